"""How the arms of ``bench node`` compare: rates, latencies and ratios from what was measured. Pure.

Rates are medians over the rounds; a ratio is the median of the ratios within each round, because a machine that was
slow for one arm was slow for the one beside it.
"""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.bench.child import percentile
from infra.bench.closed import Outcome
from node.machine import cores

# What a node's lone request is held against: the same engine without HTTP.
BARE = {"node_tensorflow": "bare_tensorflow", "node_auto": "bare_fastest"}
RIVALS = ("litserve", "mosec")
# What is aimed for: a ratio of images/s, at least. ``rival`` is the quicker of those that took part.
TARGETS = (
    ("node_tensorflow", "bare_tensorflow", 0.90),
    ("node_auto", "bare_fastest", 0.90),
    ("node_auto", "rival", 1.5),
    ("node_int8", "rival", 2.5),
    ("node_auto", "naive", 10.0),
)
MOST_LONE_RATIO = 1.1
MOST_IDLE_PERCENT = 1.0
# Of the machine, that other processes may take while this is measured: the kernel's own work for nobody is a few.
MOST_OTHERS_PERCENT = 5.0


@dataclass
class Arm:
    """What was measured of one arm, turn by turn; of a server also seconds from start to answer, bytes, idle percent.

    ``ready_again``: the same with a runtime that was chosen at the first start.
    ``cpu``, ``client_cpu`` and ``others``: seconds of processor time of the arm, of the load generator and of whatever
    else ran, over all turns, which took ``wall`` seconds.
    """

    name: str
    outcomes: list[Outcome] = field(default_factory=list)
    lone: list[Outcome] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)
    cpu: float = 0.0
    client_cpu: float = 0.0
    others: float = 0.0
    wall: float = 0.0
    ready: float | None = None
    ready_again: float | None = None
    resident: int | None = None
    idle_percent: float | None = None

    @property
    def rates(self) -> list[float]:
        """Images per second, round by round."""
        return [each.rate for each in self.outcomes]

    @property
    def milliseconds(self) -> list[float]:
        """Latencies of all rounds."""
        return [each for outcome in self.outcomes for each in outcome.milliseconds]

    @property
    def turns(self) -> list[Outcome]:
        """All turns, the lone client's too."""
        return self.outcomes + self.lone

    @property
    def answered(self) -> int:
        """Images of all turns."""
        return sum(each.answered for each in self.turns)


def summary(arms: Sequence[Arm], **facts: Any) -> dict[str, Any]:
    """Every figure by its key; ``facts`` of the run are added as they are."""
    by_name = {arm.name: arm for arm in arms}
    servers = [arm for arm in arms if arm.ready is not None]
    nodes = [arm for arm in servers if arm.name.startswith("node_")]
    lone = lone_ratios(by_name)
    asked = sum(arm.answered for arm in servers)
    taken, wall = sum(arm.others for arm in arms), sum(arm.wall for arm in arms)
    return {
        "machine": {"cores": cores(), "python": sys.version.split()[0]},
        **facts,
        "images_per_s": _each(arms, lambda arm: round(statistics.median(arm.rates), 1)),
        "p50_ms": _each(arms, lambda arm: round(percentile(arm.milliseconds, 50), 1)),
        "p99_ms": _each(arms, lambda arm: round(percentile(arm.milliseconds, 99), 1)),
        "ratios": ratios(by_name),
        "lone_ratio": max(lone.values(), default=None),
        "lone_ratios": lone,
        "lone_ms": _each([arm for arm in arms if arm.lone], lambda arm: round(_lone_ms(arm), 2)),
        "cpu_s_per_1000": _each(arms, lambda arm: round(1000 * arm.cpu / arm.answered, 2)),
        "rss_mb": _each(servers, lambda arm: round((arm.resident or 0) / 1e6)),
        "start_to_ready_s": _each(servers, lambda arm: round(arm.ready or 0.0, 1)),
        "start_again_s": _each([arm for arm in arms if arm.ready_again], lambda arm: round(arm.ready_again or 0.0, 1)),
        "idle_cpu_percent": max((round(arm.idle_percent or 0.0, 2) for arm in nodes), default=None),
        "idle_cpu_percents": _each(servers, lambda arm: round(arm.idle_percent or 0.0, 2)),
        "auto_runtime": by_name["node_auto"].about.get("runtime") if "node_auto" in by_name else None,
        "runtimes": _each([arm for arm in arms if arm.about], lambda arm: arm.about["runtime"]),
        "agreement": _each([arm for arm in arms if "agreement" in arm.about], lambda arm: arm.about["agreement"]),
        "client_cpu_ms": round(1000 * sum(arm.client_cpu for arm in servers) / asked, 3) if asked else None,
        "others_percent": round(100 * max(0.0, taken) / (wall * cores()), 1) if wall else None,
        "failed": _each(arms, lambda arm: sum(each.failed for each in arm.turns)),
        "other_class": _each(arms, lambda arm: round(sum(each.other for each in arm.turns) / arm.answered, 4)),
        "rounds": _each(arms, lambda arm: arm.rates),
    }


def ratios(arms: Mapping[str, Arm]) -> dict[str, float]:
    """The ratios of ``TARGETS`` between those that took part, named ``ours / theirs``."""
    found = {}
    for ours, theirs, _ in TARGETS:
        other = best_rival(arms) if theirs == "rival" else theirs
        if ours in arms and other in arms:
            pairs = zip(arms[ours].rates, arms[other].rates, strict=True)
            found[f"{ours} / {theirs}"] = round(statistics.median(mine / other for mine, other in pairs), 3)
    return found


def best_rival(arms: Mapping[str, Arm]) -> str:
    """The quicker of the rivals that took part, an empty name where none did."""
    present = [name for name in RIVALS if name in arms]
    return max(present, key=lambda name: statistics.median(arms[name].rates), default="")


def lone_ratios(arms: Mapping[str, Arm]) -> dict[str, float]:
    """A lone request's latency at each node, by decoding and running in one process: medians of the rounds' ratios."""
    found = {}
    for node, bare in BARE.items():
        if node in arms and bare in arms and arms[node].lone:
            pairs = zip(arms[node].lone, arms[bare].lone, strict=True)
            found[node] = round(statistics.median(_median(served) / _median(alone) for served, alone in pairs), 3)
    return found


def as_text(result: dict[str, Any]) -> str:
    """The figures of ``bench node`` as lines for people."""
    machine, arms = result["machine"], result["images_per_s"]
    rounds = len(next(iter(result["rounds"].values())))
    head = f"{machine['cores']} cores, Python {machine['python']}; MobileNetV2, JPEGs of {result['image_kb']} kB"
    lines = [
        f"{head}, {result['clients']} clients; medians of {rounds} rounds of {result['seconds']:g} s",
        f"{'':<20}{'images/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU s/1000':>12}{'RSS MB':>8}{'ready s':>9}  runs",
    ]
    for name in sorted(arms, key=arms.__getitem__, reverse=True):
        cells = f"{arms[name]:>9,.1f}{result['p50_ms'][name]:>9,.0f}{result['p99_ms'][name]:>9,.0f}"
        cells += f"{result['cpu_s_per_1000'][name]:>12,.1f}"
        if name in result["rss_mb"]:
            cells += f"{result['rss_mb'][name]:>8,}{result['start_to_ready_s'][name]:>9,.1f}"
        lines.append(f"  {name:<18}{cells:<56}  {result['runtimes'].get(name, '')}".rstrip())
    for ours, theirs, least in TARGETS:
        if (ratio := result["ratios"].get(f"{ours} / {theirs}")) is not None:
            lines.append(f"  {ours + ' / ' + theirs:<45}{ratio:>8.2f}   (aim: at least {least:g})")
    for node, ratio in result["lone_ratios"].items():
        words = f"a lone request at {node} / (decode + run)"
        aim = f"aim: at most {MOST_LONE_RATIO:g}; {result['lone_ms'][node]:g} ms"
        lines.append(f"  {words:<45}{ratio:>8.2f}   ({aim})")
    if result["idle_cpu_percent"] is not None:
        idle = f"{result['idle_cpu_percent']:>8.2f}   (aim: below {MOST_IDLE_PERCENT:g})"
        lines.append(f"  {'an idle node, % of a core':<45}{idle}")
    if result["agreement"]:
        lines += [f"  {name}: {words}" for name, words in result["agreement"].items()]
    if result["client_cpu_ms"] is not None:
        lines.append(f"  {'the load generator, CPU ms for each image':<45}{result['client_cpu_ms']:>8.3f}")
    if (result["others_percent"] or 0.0) > MOST_OTHERS_PERCENT:
        lines.append(f"  other processes took {result['others_percent']:g} % of the machine: no figures to keep")
    for name, failed in result["failed"].items():
        if failed:
            lines.append(f"  {name}: {failed} requests failed")
    return "\n".join(lines)


def _each(arms: Sequence[Arm], figure: Callable[[Arm], Any]) -> dict[str, Any]:
    return {arm.name: figure(arm) for arm in arms}


def _lone_ms(arm: Arm) -> float:
    return statistics.median(_median(each) for each in arm.lone)


def _median(outcome: Outcome) -> float:
    return statistics.median(outcome.milliseconds)
