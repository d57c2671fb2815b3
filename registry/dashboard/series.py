"""Points of charts over time: for each key a ring of the newest, some ``every`` seconds apart.

Whoever adds a little early or late makes no gap: only where a whole point is missing there is one, and so where the
value is None. Added to more often, the newest point takes the newest value. The number of keys is bounded: the one not
added to for longest goes.
"""

from collections import deque

MOST_KEYS = 10_000
_EARLY = 0.9  # of the time between two points

Point = tuple[float, float | None]


class Series:
    """``keep`` points of each key, ``every`` seconds apart: a quarter of an hour, as it is."""

    def __init__(self, keep: int = 90, every: float = 10.0) -> None:
        self._keep = keep
        self._every = every
        self._rings: dict[str, deque[Point]] = {}  # in the order in which they were added to

    def add(self, key: str, now: float, value: float | None) -> None:
        """Add a value at ``now`` (seconds)."""
        ring = self._rings.pop(key, None)
        if ring is None:
            if len(self._rings) >= MOST_KEYS:
                del self._rings[next(iter(self._rings))]
            ring = deque(maxlen=self._keep)
        self._rings[key] = ring
        if ring and now - ring[-1][0] < _EARLY * self._every:
            ring[-1] = (ring[-1][0], value)
        else:
            ring.append((now, value))

    def points(self, key: str) -> list[Point]:
        """Return times and values, oldest first, ``keep`` at most; None for each point that is missing between two."""
        found: list[Point] = []
        for at, value in self._rings.get(key, ()):
            if found:
                last = found[-1][0]
                missing = min(self._keep, round((at - last) / self._every) - 1)
                found += [(at - self._every * back, None) for back in range(missing, 0, -1)]
            found.append((at, value))
        return found[-self._keep :]
