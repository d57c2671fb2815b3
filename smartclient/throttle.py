"""Adaptive throttling: when nodes refuse nearly everything, most calls end here instead of adding to their load.

From "Handling Overload" in Google's Site Reliability Engineering book: over a window, a call is rejected locally with
probability ``max(0, (requests - K * accepts) / (requests + 1))``, K = 2, so nothing is rejected while at least half of
the calls are served. The window is 10 s where the book takes two minutes, and one call in ten always goes through, so
that a fleet that recovers is noticed within a second or two. Counted are calls that a node answered: what never reached
one (refused connections) put no load on anybody. Under 100 calls in the window nothing is rejected.
"""

import random

from smartclient.window import Window

K = 2.0
LEAST = 100  # calls in the window
MOST = 0.9  # probability of a rejection


class Throttle:
    """Requests and refusals of the last ten seconds; mostly there are none to count."""

    __slots__ = ("_refusals", "_requests", "rejected")

    def __init__(self) -> None:
        self._requests = Window()
        self._refusals = Window()
        self.rejected = 0

    def rejects(self, now: float, rng: random.Random) -> bool:
        """Whether the call that begins now is to fail at once."""
        chance = self.chance(now)
        if chance <= 0.0 or rng.random() >= chance:
            return False
        self.rejected += 1
        return True

    def chance(self, now: float) -> float:
        """The probability (0 to 0.9) with which a call is rejected now."""
        refusals = self._refusals.total(now)
        if not refusals:
            return 0.0
        requests = self._requests.total(now)
        if requests < LEAST:
            return 0.0
        return min(MOST, max(0.0, (requests - K * (requests - refusals)) / (requests + 1)))

    def ended(self, now: float, *, accepted: bool) -> None:
        """Note how a call ended that reached a node."""
        self._requests.add(now)
        if not accepted:
            self._refusals.add(now)
