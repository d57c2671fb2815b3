"""How long the slowest answers take when many clients share a fleet: the default policy beside plain rotation.

Twenty client processes that know nothing of each other ask six engines that take 50 ms (lognormal, sigma 0.5), in an
open loop that loads them to 70 %. The policies take turns within one run, round by round, each with the same arrivals
and with fresh clients; who goes first changes. Percentiles are over the requests of all rounds. Then one process asks
engines of 1 ms as fast as it can: there a probe costs as much as the answer, and the rates tell whether the default
knows. Their ratio is the median of the rounds' ratios.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import msgspec

from infra.bench.arrivals import Outcome
from infra.bench.engines import Engines
from infra.bench.registry import Child, percentile
from infra.fleet import FleetError
from smartclient.policies.select import DEFAULT

NODES = 6
MEAN_MS = 50.0
LOAD = 0.7
FAST_MS = 1.0
AT_ONCE = 16
# Turns on engines of 1 ms for each round: many short ones, for what else the machine does to weigh on both arms alike.
FAST_TURNS = 3
ROTATION = "rotation"
# Seconds between the word and the beginning, so that every process has heard it.
NOTICE = 0.3


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


# Of each policy one outcome for every round and client.
Results = dict[str, list[Outcome]]


async def run(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything and return it; see ``docs/benchmarks.md`` for the keys. Raises ``FleetError``."""
    rate = LOAD * NODES * 1000 / MEAN_MS / effort.clients
    slow = await _rounds(
        effort.policies,
        effort.rounds,
        say,
        mean_ms=MEAN_MS,
        clients=effort.clients,
        turn={"rate": rate, "warm": effort.warm, "seconds": effort.seconds},
    )
    fast = await _rounds(
        effort.policies,
        effort.rounds * FAST_TURNS,
        say,
        mean_ms=FAST_MS,
        clients=1,
        turn={"at_once": AT_ONCE, "warm": effort.fast_seconds / 2, "seconds": effort.fast_seconds},
    )
    return summary(effort, slow, fast)


async def _rounds(
    policies: Sequence[str],
    rounds: int,
    say: Callable[[str], None],
    *,
    mean_ms: float,
    clients: int,
    turn: dict[str, float],
) -> Results:
    """Take all rounds on a fleet of their own; ``turn``: what stays the same of a turn (``arrivals.Turn``)."""
    results: Results = {policy: [] for policy in policies}
    async with AsyncExitStack() as stack:
        say(f"engines of {mean_ms:g} ms, starting with {clients} client processes")
        ports = stack.enter_context(Engines([["--mean-ms", str(mean_ms)]] * NODES)).ports
        start = [Child.start("infra.bench.arrivals", *map(str, ports)) for _ in range(clients)]
        children = [await stack.enter_async_context(each) for each in start]
        for child in children:
            await child.line()
        for number in range(rounds):
            say(f"engines of {mean_ms:g} ms, round {number + 1} of {rounds}")
            for policy in policies if number % 2 else policies[::-1]:
                begin = time.monotonic() + NOTICE
                for place, child in enumerate(children):
                    seed = number * clients + place
                    child.ask(msgspec.json.encode({"policy": policy, "seed": seed, "begin": begin} | turn).decode())
                results[policy] += [msgspec.convert(await child.line(), Outcome) for child in children]
    return results


def summary(effort: Effort, slow: Results, fast: Results) -> dict[str, Any]:
    """The figures. Raises ``FleetError`` when an arm answered nothing."""
    times = {policy: [each for outcome in of for each in outcome.milliseconds] for policy, of in slow.items()}
    for policy in effort.policies:
        if not times[policy] or not all(each.answered for each in fast[policy]):
            failures = [each.first_failure for each in slow[policy] + fast[policy] if each.first_failure]
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
        "requests": {policy: sum(each.requests for each in of) for policy, of in slow.items()},
        "failed": {policy: sum(each.failed for each in of) for policy, of in slow.items()},
        "p50_ms": {policy: round(percentile(each, 50), 1) for policy, each in times.items()},
        "p99_ms": {policy: round(each, 1) for policy, each in p99.items()},
        "ratio": round(p99[effort.policy] / p99[ROTATION], 3),
        "probe_share": _probe_share(slow[effort.policy]),
        "per_s_1ms": {policy: round(statistics.median(each)) for policy, each in rates.items()},
        "throughput_ratio_1ms": round(statistics.median(ratios), 3),
        "throughput_ratios_1ms": [round(ratio, 3) for ratio in ratios],
        "probe_share_1ms": _probe_share(fast[effort.policy]),
    }


def _probe_share(outcomes: Sequence[Outcome]) -> float:
    """Probes for each request."""
    return round(sum(each.probes for each in outcomes) / sum(each.requests for each in outcomes), 3)
