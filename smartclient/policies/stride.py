"""gRPC's static stride scheduler (A58): shares by weight, evenly spread, with nothing but a counter to move on.

Counted round after round, number ``i`` is taken in round ``g`` when ``weight * g`` has just passed another multiple of
the largest weight: a pass over all numbers takes the heaviest each time and the others in proportion. Offsets keep
numbers of one weight from being taken in the same round.
"""

import random
from collections.abc import Sequence
from statistics import fmean

FULL = 65_535  # what the largest weight is scaled to
MOST = 10.0  # times the mean: caps a weight, and so the steps of one turn


class Stride:
    """Numbers 0 to n - 1 in turns."""

    __slots__ = ("_at", "_scaled")

    def __init__(self, weights: Sequence[float], rng: random.Random) -> None:
        self._at = rng.randrange(1 << 32)
        self.weights(weights)

    def weights(self, weights: Sequence[float]) -> None:
        """Go on with other weights, as many as before and all above 0."""
        cap = MOST * fmean(weights)
        scale = FULL / min(cap, max(weights))
        self._scaled = [max(1, round(min(weight, cap) * scale)) for weight in weights]

    def next(self) -> int:
        """Whose turn it is."""
        scaled = self._scaled
        size = len(scaled)
        while True:
            turn, number = divmod(self._at, size)
            self._at += 1
            weight = scaled[number]
            if (weight * turn + number * (FULL // 2)) % FULL >= FULL - weight:
                return number
