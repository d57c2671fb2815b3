"""What choosing costs: time for a pick and its release, by policy and size of the service; memory for each endpoint.

No network: nodes answer in 50 ms of virtual time and report their load with every answer, as ours do; who is to be
asked before a pick answers at once, and reading what he says is counted. The sizes take turns, each after picks that
are not, so that it finds in the processor's caches what fits there; the garbage collector waits meanwhile, as in
``timeit``. A figure is the median over the rounds. No step of a pick looks at the whole list: what 10,000 nodes cost
more than 10 is their memory, which is in no cache near by.
"""

import gc
import random
import statistics
import time
import tracemalloc

from registry.model import Instance, Snapshot
from smartclient.balancer import Balancer
from smartclient.load import LoadReport
from smartclient.policies.select import named
from smartclient.policy import ANY, PickInfo
from smartclient.stats import Outcome

SIZES = (10, 1000, 10_000)
SERVICE = "picked"
TOOK = 0.05  # seconds
WAIT = 0.0125
HEADER = "TEXT named_metrics.wait_ms=12.5,named_metrics.inflight=1,application_utilization=0.5,rps_fractional=10"


class _Clock:
    """Virtual time: only ``TOOK`` passes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Picking:
    """A service of ``size`` nodes that have all been used and have reported their load."""

    def __init__(self, policy: str, size: int) -> None:
        self._clock = _Clock()
        self._balancer = _balancer(policy, self._clock)
        self._balancer.update(_listed(size))
        for endpoint in self._balancer.endpoints:
            endpoint.latency.observe(TOOK, self._clock.now)
            endpoint.said(HEADER, self._clock.now)

    def seconds(self, picks: int) -> float:
        """Seconds of real time for each of so many picks and releases."""
        balancer, clock = self._balancer, self._clock
        began = time.perf_counter()
        for _ in range(picks):
            asked = balancer.candidates()
            for endpoint in asked:
                endpoint.heard(LoadReport(at=clock.now, wait=WAIT, in_flight=1))
            lease = balancer.pick(PickInfo(among=asked) if asked else ANY)
            clock.now += TOOK
            lease.endpoint.said(HEADER, clock.now)
            lease.release(Outcome.OK)
        return (time.perf_counter() - began) / picks


def pick_costs(policy: str, *, picks: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds for each pick, by size, one for each round."""
    services = {size: Picking(policy, size) for size in SIZES}
    costs: dict[str, list[float]] = {str(size): [] for size in SIZES}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for size, service in services.items():
                service.seconds(picks)
                costs[str(size)].append(service.seconds(picks) * 1e6)
    finally:
        gc.enable()
    return costs


def flatness(costs: dict[str, list[float]]) -> float:
    """What a pick from the largest service costs over one from the smallest: the median of the rounds' ratios."""
    pairs = zip(costs[str(SIZES[-1])], costs[str(SIZES[0])], strict=True)
    return statistics.median(largest / smallest for largest, smallest in pairs)


def bytes_per_endpoint(policy: str, size: int = SIZES[-1]) -> int:
    """Memory that a client holds for each node of a service: what the registry says of it and all that is made of that.

    After one answer of each; connections are not counted.
    """
    clock = _Clock()
    gc.collect()
    tracemalloc.start()
    try:
        balancer = _balancer(policy, clock)
        balancer.update(_listed(size))
        for endpoint in balancer.endpoints:
            endpoint.latency.observe(TOOK, clock.now)
            endpoint.said(HEADER, clock.now)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return round(held / size)


def _balancer(policy: str, clock: _Clock) -> Balancer:
    return Balancer(named(policy), service=SERVICE, source="bench://", clock=clock, rng=random.Random(7))


def _listed(size: int) -> Snapshot:
    return Snapshot(
        service=SERVICE,
        instances=tuple(
            Instance(
                id=f"{SERVICE}-{number}",
                service=SERVICE,
                address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
                port=8080,
                meta={"load": "/load"},
            )
            for number in range(size)
        ),
        index=1,
        fetched_at=0.0,
    )
