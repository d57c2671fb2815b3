"""Whose turn it is among several look-up services. Pure but for its own few numbers.

Each gets its turn, beginning anywhere, so that many clients spread; one that failed lately is asked last, so that a
machine that is down costs its time-out now and then and not at every other question.
"""

import math
import random
from collections.abc import Sequence

AVOID = 30.0


class Rotation:
    """Takes turns among ``addresses``; a failure counts for ``AVOID`` seconds."""

    def __init__(self, addresses: Sequence[str], rng: random.Random) -> None:
        self._addresses = tuple(addresses)
        self._turn = rng.randrange(len(self._addresses))
        self._failed: dict[str, float] = {}

    def order(self, now: float, *, last: str = "") -> list[str]:
        """All addresses in the order to ask them in; the next call begins one further. ``last``: rather not this."""
        turned = self._addresses[self._turn :] + self._addresses[: self._turn]
        self._turn = (self._turn + 1) % len(turned)
        return sorted(turned, key=lambda each: (each == last, now - self._failed.get(each, -math.inf) < AVOID))

    def failed(self, address: str, now: float) -> None:
        """It did not answer, or ended what it was sending."""
        self._failed[address] = now

    def answered(self, address: str) -> None:
        """It is well."""
        self._failed.pop(address, None)
