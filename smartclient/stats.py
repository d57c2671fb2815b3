"""How one attempt ended, and what a client learns of times: an average that believes the worst, quantiles.

``Outcome`` is the one vocabulary shared by the breaker (may this node be used?), the retry rule (may this be sent
again?) and ``snapshot()``. Nothing here reads a clock: every method takes ``now``, in monotonic seconds.
"""

import math
from enum import StrEnum


class Outcome(StrEnum):
    """How an attempt ended, as far as the node's health is concerned."""

    OK = "ok"  # any answer that is not the node's fault, 4xx included
    CONNECT_ERROR = "connect_error"  # no connection: nothing was sent
    STALE = "stale"  # a kept-alive connection was closed before a byte of answer: says nothing of the node
    RESET = "reset"  # a fresh connection broke before the answer, or any one broke during it
    TIMEOUT = "timeout"  # no answer within the deadline
    OVERLOADED = "overloaded"  # 429, or 503 with Retry-After: alive, and asks to be left alone for a moment
    SERVER_ERROR = "server_error"  # any other 5xx
    CANCELLED = "cancelled"  # the caller left, or another node was quicker


NEUTRAL = frozenset({Outcome.STALE, Outcome.CANCELLED})


TAU = 10.0
"""Seconds in which a peak is forgotten to 1/e (Finagle's default decay time)."""


SPAN = 8
LEAST = 1e-4  # seconds; what is shorter is not told apart: the first bucket ends here


class PeakEwma:
    """A moving average of latencies that jumps to every peak and forgets it slowly (Finagle's Peak EWMA).

    A sample above the average becomes the average; one below is blended in by the time since the sample before:
    ``w = exp(-dt/tau)``, ``ewma = ewma * w + x * (1 - w)``. ``tau`` must be several typical latencies, or the average
    would be the last sample: it is the larger of 10 s and 5 times the average. 0 is unknown.
    """

    __slots__ = ("_at", "_count", "_log", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._at = 0.0
        self._count = 0
        self._log = 0.0  # mean of the samples' logarithms

    def observe(self, seconds: float, now: float) -> None:
        """Take one latency in."""
        value = self.value
        if seconds >= value:
            self.value = seconds
        else:
            weight = math.exp((self._at - now) / max(TAU, 5.0 * value))
            self.value = value * weight + seconds * (1.0 - weight)
        self._at = now
        self._count += 1
        self._log += (math.log(max(seconds, LEAST)) - self._log) / min(self._count, SPAN)

    @property
    def typical(self) -> float:
        """Seconds it takes as a rule: the geometric mean of some 8 samples, which single peaks hardly move.

        0, unknown, before the third: the first may have had a connection to make.
        """
        return math.exp(self._log) if self._count > 2 else 0.0

    def silence(self, now: float) -> float:
        """Seconds since the last sample."""
        return now - self._at

    def read(self, now: float) -> float:
        """Seconds, decayed by the silence since the last sample, so that an old peak is given another trial."""
        value = self.value
        return value and value * math.exp((self._at - now) / max(TAU, 5.0 * value))


_GROWTH = math.log(1.1)
_BUCKETS = 170  # up to about a quarter of an hour


class LatencyHistogram:
    """Counts of latencies in buckets that grow by 10 %, from 0.1 ms to a quarter of an hour.

    A quantile is the upper edge of its bucket, so never more than 10 % above the true value.
    """

    __slots__ = ("buckets", "count", "total")

    def __init__(self) -> None:
        self.buckets = [0] * _BUCKETS
        self.count = 0
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one latency."""
        self.buckets[bucket_of(seconds)] += 1
        self.count += 1
        self.total += seconds

    def quantile(self, share: float) -> float | None:
        """The latency (s) that ``share`` (0 to 1) of the samples do not exceed; None without samples."""
        return quantile_of(self.buckets, self.count, share)


def bucket_of(seconds: float) -> int:
    """The number of the bucket that ``seconds`` falls into."""
    if seconds <= LEAST:
        return 0
    return min(_BUCKETS - 1, math.ceil(math.log(seconds / LEAST) / _GROWTH))


def upper_edge(bucket: int) -> float:
    """The longest latency (s) that bucket number ``bucket`` counts."""
    return LEAST * math.exp(_GROWTH * bucket)


def quantile_of(buckets: list[int], count: int, share: float) -> float | None:
    """The quantile of a histogram's buckets that hold ``count`` samples."""
    if not count:
        return None
    wanted, seen = share * count, 0
    for number, held in enumerate(buckets):
        seen += held
        if held and seen >= wanted:
            return upper_edge(number)
    return upper_edge(_BUCKETS - 1)


class RollingQuantile:
    """Quantiles of the recent past: of one to two windows of ``window`` seconds each.

    Two histograms take turns: one is filled, the one before still counts, so that what is told never rests on a window
    just begun.
    """

    __slots__ = ("_before", "_filling", "_since", "window")

    def __init__(self, window: float = 30.0) -> None:
        self.window = window
        self._filling = LatencyHistogram()
        self._before = LatencyHistogram()
        self._since = 0.0

    def observe(self, seconds: float, now: float) -> None:
        """Count one latency."""
        if now - self._since >= self.window:
            self._turn(now)
        self._filling.observe(seconds)

    def count(self, now: float) -> int:
        """Samples that count at present."""
        if now - self._since >= self.window:
            self._turn(now)
        return self._filling.count + self._before.count

    def quantile(self, share: float, now: float) -> float | None:
        """Seconds; None without samples."""
        count = self.count(now)
        both = [a + b for a, b in zip(self._filling.buckets, self._before.buckets, strict=True)]
        return quantile_of(both, count, share)

    def _turn(self, now: float) -> None:
        fresh = now - self._since < 2 * self.window
        self._before = self._filling if fresh else LatencyHistogram()
        self._filling = LatencyHistogram()
        self._since = now
