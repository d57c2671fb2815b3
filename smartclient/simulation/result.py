"""What a run came to: quantiles of what calls took, errors, and how evenly the nodes were used.

A call that fails counts as its whole deadline, else a policy would look quick for failing fast. The quantiles are
exact. ``spread`` is the largest, over the nodes, of

    (attempts sent to the node / all attempts)  /  (weight of the node / all weights)

1 is exactly fair by weight. On unequal nodes of one weight a good policy is above 1: it sends more to the faster.
"""

import math
from array import array
from collections.abc import Sequence

import msgspec


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One policy in one scenario; times in milliseconds."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    errors: int
    spread: float


class Tally:
    """Counts calls as they end."""

    __slots__ = ("errors", "seconds")

    def __init__(self) -> None:
        self.seconds = array("d")
        self.errors = 0

    def result(self, sent: Sequence[int], weights: Sequence[int]) -> Result:
        """What it came to. ``sent``: attempts by node."""
        ordered = sorted(self.seconds)
        return Result(
            p50_ms=_quantile(ordered, 0.5),
            p99_ms=_quantile(ordered, 0.99),
            p999_ms=_quantile(ordered, 0.999),
            errors=self.errors,
            spread=round(spread(sent, weights), 3),
        )


def spread(sent: Sequence[int], weights: Sequence[int]) -> float:
    """The busiest node's share over its fair share; 1 where nothing was sent."""
    if not any(weights):
        weights = [1] * len(sent)
    total, whole = sum(sent), sum(weights)
    shares = [count * whole / (total * weight) for count, weight in zip(sent, weights, strict=True) if weight and total]
    return max(shares, default=1.0)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Milliseconds that ``share`` of the calls did not exceed; NaN is never needed, a run has calls."""
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1000, 3)
