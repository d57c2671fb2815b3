"""How busy a node is, for clients that choose by it: JSON at ``/load``, and a header on every answer to work.

The header is ORCA's (Open Request Cost Aggregation, ``xds.data.orca.v3``) in its TEXT form, which Envoy and vLLM speak
too. What balances best is the predicted wait, for only the node knows what its queue costs; the rest is for balancers
that know ORCA's own fields. Busy share and rate fade with a time constant of ``MEMORY``: long enough for a few batches
of a slow model, short enough that a burst is forgotten before the next decision. Pure: time is an argument, in
monotonic seconds that never go back, and every call takes the same few steps.
"""

from math import exp

import msgspec

PATH = "/load"
HEADER = "endpoint-load-metrics"
MEMORY = 5.0


class Load(msgspec.Struct, frozen=True):
    """A node's load at one moment; its JSON is the answer of ``/load``.

    ``wait_ms``: until a request that came now would begin to run. ``inflight``: requests inside. ``queue``: images that
    wait for a batch. ``capacity_rps``: what it can do at best, None while unknown. ``utilization``: share of its time
    that the engine was busy, 0 to 1. ``rps``: requests answered per second.
    """

    wait_ms: float
    inflight: int
    queue: int
    capacity_rps: float | None
    utilization: float
    rps: float

    @property
    def orca(self) -> str:
        """The value of the header ``endpoint-load-metrics``."""
        return (
            f"TEXT named_metrics.wait_ms={self.wait_ms:.3f},named_metrics.inflight={self.inflight},"
            f"application_utilization={self.utilization:.4f},rps_fractional={self.rps:.3f}"
        )


def report(*, wait: float, inflight: int, queue: int, capacity: float | None, utilization: float, rps: float) -> Load:
    """Build the report from facts; ``wait`` in seconds, ``capacity`` and ``rps`` per second."""
    return Load(
        wait_ms=round(wait * 1e3, 3),
        inflight=inflight,
        queue=queue,
        capacity_rps=None if capacity is None else round(capacity, 2),
        utilization=round(utilization, 4),
        rps=round(rps, 3),
    )


def slowest(*stages: tuple[int, float]) -> float | None:
    """Items per second through stages that each do ``count`` in ``seconds``; 0 seconds: not known yet, left out."""
    return min((count / seconds for count, seconds in stages if seconds > 0), default=None)


class BusyShare:
    """The share of its time that something was busy, the present stretch included."""

    __slots__ = ("_busy", "_share", "_since")

    def __init__(self) -> None:
        self._busy = 0.0
        self._share = 0.0
        self._since = 0.0

    def turn(self, busy: bool, now: float) -> None:
        """Note that it is busy, or idle, from ``now`` on."""
        self._share, self._busy, self._since = self.at(now), float(busy), now

    def at(self, now: float) -> float:
        """The share, 0 to 1."""
        return self._busy + (self._share - self._busy) * exp((self._since - now) / MEMORY)


class Rate:
    """Events per second."""

    __slots__ = ("_rate", "_since")

    def __init__(self) -> None:
        self._rate = 0.0
        self._since = 0.0

    def count(self, now: float) -> None:
        """Note one event."""
        self._rate, self._since = self.at(now) + 1.0 / MEMORY, now

    def at(self, now: float) -> float:
        """Events per second."""
        return self._rate * exp((self._since - now) / MEMORY)
