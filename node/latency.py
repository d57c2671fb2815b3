"""How long a batch takes: T(n) = a·n + b, learned from the runs themselves.

A least-squares line through the last 50 runs; the first two of a size are left out, for they pay for allocation and
kernel selection. Times are seconds. Pure: it reads no clock.
"""

from collections import Counter, deque

WINDOW = 50
UNSETTLED = 2


class LatencyModel:
    """The line through the latest runs; before the first counted run every batch is predicted to take no time."""

    def __init__(self, *, window: int = WINDOW, unsettled: int = UNSETTLED) -> None:
        self._runs: deque[tuple[int, float]] = deque(maxlen=window)
        self._seen: Counter[int] = Counter()
        self._unsettled = unsettled
        self._per_item = 0.0
        self._fixed = 0.0

    def observe(self, size: int, seconds: float) -> None:
        """Take in one run of ``size`` items."""
        self._seen[size] += 1
        if self._seen[size] > self._unsettled:
            self._runs.append((size, seconds))
            self._fit()

    def predict(self, size: int) -> float:
        """Seconds a batch of ``size`` will take."""
        return self._per_item * size + self._fixed

    def largest(self, seconds: float, at_most: int) -> int:
        """Return the largest batch, from 1 to ``at_most``, predicted to finish within ``seconds``."""
        if self.predict(at_most) <= seconds:
            return at_most
        if self._per_item <= 0:
            return 1
        return max(1, min(at_most, int((seconds - self._fixed) / self._per_item)))

    def snapshot(self) -> dict[str, float]:
        """The line as it stands: milliseconds per item and per batch, and from how many runs."""
        return {
            "per_item_ms": round(self._per_item * 1e3, 4),
            "per_batch_ms": round(self._fixed * 1e3, 4),
            "runs": len(self._runs),
        }

    def _fit(self) -> None:
        count = len(self._runs)
        mean_size = sum(size for size, _ in self._runs) / count
        mean_time = sum(seconds for _, seconds in self._runs) / count
        spread = sum((size - mean_size) ** 2 for size, _ in self._runs)
        slope = 0.0
        if spread > 0:
            slope = sum((size - mean_size) * (seconds - mean_time) for size, seconds in self._runs) / spread
        if slope < 0:  # noise: larger batches do not take less
            self._per_item, self._fixed = 0.0, mean_time
        elif spread == 0 or mean_time < slope * mean_size:  # one size only, or a negative constant: through the origin
            self._per_item, self._fixed = mean_time / mean_size, 0.0
        else:
            self._per_item, self._fixed = slope, mean_time - slope * mean_size
