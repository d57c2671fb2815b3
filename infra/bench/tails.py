"""How long the slowest answers take when many clients share a fleet: the default policy beside plain rotation.

Twenty client processes that know nothing of each other ask six engines that take 50 ms (lognormal, sigma 0.5), in an
open loop that loads them to 70 %. The policies take turns within one run, round by round, each with the same arrivals
and with fresh clients; who goes first changes. Percentiles are over the requests of all rounds. The same with one of
the six ten times slower, beside the five without it. Then one process asks engines of 1 ms as fast as it can: there a
probe costs as much as the answer, and the rates tell whether the default knows. Their ratio is the median of the
rounds' ratios.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from infra.bench.arrivals import Outcome
from infra.bench.child import percentile
from infra.bench.engines import Engines
from infra.bench.turns import Arm, Clients, Pace, Results
from infra.fleet import FleetError
from smartclient.policies.select import DEFAULT

NODES = 6
MEAN_MS = 50.0
LOAD = 0.7
SLOW = 10.0
SLOW_LOAD = 0.5  # of what six sound engines can do: the five that are left are loaded to 60 %
FAST_MS = 1.0
AT_ONCE = 16
# Turns on engines of 1 ms for each round: many short ones, for what else the machine does to weigh on both arms alike.
FAST_TURNS = 3
ROTATION = "rotation"


@dataclass(frozen=True)
class Effort:
    """How much to do. For each policy and round: ``warm`` seconds that are not counted, ``seconds`` that are.

    ``fast_seconds``: the same on engines of 1 ms. ``policy``: what stands beside rotation.
    """

    rounds: int = 8
    seconds: float = 15.0
    clients: int = 20
    warm: float = 3.0
    fast_seconds: float = 1.0
    policy: str = DEFAULT

    @property
    def policies(self) -> tuple[str, ...]:
        """The arms, rotation first."""
        return tuple(dict.fromkeys((ROTATION, self.policy)))


async def run(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything and return it; see ``docs/benchmarks.md`` for the keys. Raises ``FleetError``."""
    rate = 1000 / MEAN_MS / effort.clients
    usual = ["--mean-ms", str(MEAN_MS)]
    open_loop = Pace(warm=effort.warm, seconds=effort.seconds, rate=rate * LOAD * NODES)
    lighter = Pace(warm=effort.warm, seconds=effort.seconds, rate=rate * SLOW_LOAD * NODES)
    closed_loop = Pace(warm=effort.fast_seconds / 2, seconds=effort.fast_seconds, at_once=AT_ONCE)

    def telling(what: str) -> Callable[[str], None]:
        return lambda words: say(f"{what}, {words}")

    async with Clients.start(effort.clients) as clients:
        with Engines([usual] * NODES) as engines:
            arms = [Arm(policy, policy, engines.ports) for policy in effort.policies]
            even = await clients.rounds(arms, effort.rounds, open_loop, telling(f"engines of {MEAN_MS:g} ms"))
        one_slow = [usual] * (NODES - 1) + [[*usual, "--slow", str(SLOW)]]
        # Rotation has engines of its own: what it heaps up on the slow one outlasts its turn.
        with Engines(one_slow) as engines, Engines(one_slow) as others:
            arms = [
                Arm("without", effort.policy, engines.ports[:-1]),
                Arm(effort.policy, effort.policy, engines.ports),
                Arm(ROTATION, ROTATION, others.ports),
            ]
            slow = await clients.rounds(arms[:2], effort.rounds, lighter, telling("one engine slow"))
            slow |= await clients.rounds(arms[2:], 1, lighter, telling("one engine slow, rotation"))
    async with Clients.start(1) as clients:
        with Engines([["--mean-ms", str(FAST_MS)]] * NODES) as engines:
            arms = [Arm(policy, policy, engines.ports) for policy in effort.policies]
            rounds = effort.rounds * FAST_TURNS
            fast = await clients.rounds(arms, rounds, closed_loop, telling(f"engines of {FAST_MS:g} ms"))
    return summary(effort, even, fast) | {"one_slow": one_slow_summary(effort, slow)}


def one_slow_summary(effort: Effort, slow: Results) -> dict[str, Any]:
    """The figures of the fleet with a slow node; ``ratio``: the default's p99 over that of the fleet without it."""
    p99 = {arm: percentile([ms for each in of for ms in each.milliseconds], 99) for arm, of in slow.items()}
    return {
        "slower": SLOW,
        "load": SLOW_LOAD,
        "p99_ms": {arm: round(each, 1) for arm, each in p99.items()},
        "failed": {arm: sum(each.failed for each in of) for arm, of in slow.items()},
        "ratio": round(p99[effort.policy] / p99["without"], 3),
    }


def summary(effort: Effort, even: Results, fast: Results) -> dict[str, Any]:
    """The figures. Raises ``FleetError`` when an arm answered nothing."""
    times = {policy: [each for outcome in of for each in outcome.milliseconds] for policy, of in even.items()}
    for policy in effort.policies:
        if not times[policy] or not all(each.answered for each in fast[policy]):
            failures = [each.first_failure for each in even[policy] + fast[policy] if each.first_failure]
            raise FleetError(f"nothing was answered with {policy}: {next(iter(failures), 'nothing was asked')}")
    p99 = {policy: percentile(each, 99) for policy, each in times.items()}
    rates = {policy: [each.answered / effort.fast_seconds for each in of] for policy, of in fast.items()}
    ratios = [ours / theirs for ours, theirs in zip(rates[effort.policy], rates[ROTATION], strict=True)]
    return {
        "default": effort.policy,
        "nodes": NODES,
        "load": LOAD,
        "clients": effort.clients,
        "rounds": effort.rounds,
        "seconds": effort.seconds,
        "requests": {policy: sum(each.requests for each in of) for policy, of in even.items()},
        "failed": {policy: sum(each.failed for each in of) for policy, of in even.items()},
        "p50_ms": {policy: round(percentile(each, 50), 1) for policy, each in times.items()},
        "p99_ms": {policy: round(each, 1) for policy, each in p99.items()},
        "ratio": round(p99[effort.policy] / p99[ROTATION], 3),
        "probe_share": _probe_share(even[effort.policy]),
        "per_s_1ms": {policy: round(statistics.median(each)) for policy, each in rates.items()},
        "throughput_ratio_1ms": round(statistics.median(ratios), 3),
        "throughput_ratios_1ms": [round(ratio, 3) for ratio in ratios],
        "probe_share_1ms": _probe_share(fast[effort.policy]),
    }


def _probe_share(outcomes: Sequence[Outcome]) -> float:
    """Probes for each request."""
    return round(sum(each.probes for each in outcomes) / sum(each.requests for each in outcomes), 3)
