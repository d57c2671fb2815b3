"""Latencies that many clients have measured, added up: sparse histograms on one grid, and their quantiles.

The grid is that of the smart client, 0.1 ms growing by 10 % to a quarter of an hour, so its reports lose nothing;
another client's edges are moved up to the next of ours, which bounds what a histogram can hold. A quantile is the
upper edge of its bucket. What counts is the last half to whole of ``WINDOW``: two histograms take turns.
"""

import math
from collections.abc import Iterable
from functools import lru_cache

from registry.dashboard.model import Quantiles
from registry.dashboard.wire import Buckets

WINDOW = 60.0  # seconds
HALF = WINDOW / 2

_LEAST = 0.1  # milliseconds
_GROWTH = math.log(1.1)
_SLACK = 1e-3  # of a bucket: an edge that was rounded on its way is still the same edge
EDGES = tuple(_LEAST * math.exp(_GROWTH * number) for number in range(170))
_COARSE = 8

Numbered = list[tuple[int, int]]
"""Number of a bucket of the grid, and a count."""


@lru_cache(maxsize=4096)
def number_of(edge: float) -> int:
    """The number of the first bucket whose upper edge (ms) is not below ``edge``; the last one, if there is none."""
    if edge <= _LEAST:
        return 0
    return min(len(EDGES) - 1, math.ceil(math.log(edge / _LEAST) / _GROWTH - _SLACK))


def numbered(buckets: Buckets) -> Numbered:
    """Put a report's histogram on the grid."""
    return [(number_of(edge), count) for edge, count in buckets if count]


class Recent:
    """A histogram of the recent past. ``exact``: buckets it tells apart; once it has them, others are eight together.

    Few at most, where there is one for each pair of a client and an instance.
    """

    __slots__ = ("_before", "_exact", "_filling", "_turned")

    def __init__(self, now: float, exact: int = len(EDGES)) -> None:
        self._exact = exact
        self._turned = now
        self._filling: dict[int, int] | None = None
        self._before: dict[int, int] | None = None

    def add(self, counts: Numbered, now: float) -> None:
        """Count in what was measured until ``now`` (monotonic seconds)."""
        self._turn(now)
        held = self._filling
        if held is None:
            held = self._filling = {}
        for number, count in counts:
            if number in held:
                held[number] += count
            elif len(held) < self._exact:
                held[number] = count
            else:
                number = min(len(EDGES) - 1, -(-number // _COARSE) * _COARSE)  # noqa: PLW2901 - the next one up
                held[number] = held.get(number, 0) + count

    def read(self, now: float) -> dict[int, int]:
        """Counts by number of bucket; not to be changed."""
        self._turn(now)
        if self._before is None or self._filling is None:
            return self._filling or self._before or {}
        both = dict(self._before)
        for number, count in self._filling.items():
            both[number] = both.get(number, 0) + count
        return both

    def quantiles(self, now: float) -> Quantiles:
        """Return p50, p95 and p99 in ms."""
        p50, p95, p99 = quantiles(self.read(now), (0.5, 0.95, 0.99))
        return Quantiles(p50=p50, p95=p95, p99=p99)

    def _turn(self, now: float) -> None:
        if now - self._turned >= HALF:
            self._before = self._filling if now - self._turned < WINDOW else None
            self._filling = None
            self._turned = now


def quantiles(counts: dict[int, int], shares: Iterable[float]) -> list[float | None]:
    """The latencies (ms) that the ``shares`` (0 to 1, rising) of the samples do not exceed; None without samples."""
    total, found = sum(counts.values()), list[float | None]()
    if not total:
        return [None for _ in shares]
    held = iter(sorted(counts.items()))
    number, seen = 0, 0
    for share in shares:
        while seen < share * total:
            number, count = next(held)
            seen += count
        found.append(EDGES[number])
    return found
