"""The power of two choices: draw two different endpoints, take the better one.

``p2c`` compares by peak EWMA, ``least_request`` by attempts in flight alone (Mitzenmacher's two choices, as in Envoy
and Finagle). Neither promises shares that follow the weights: weights divide what is compared, and who is idle is as
good as another. A client with less than one request in flight at a time gets from ``least_request`` what chance gives.
"""

import random
from collections.abc import Callable, Sequence

from smartclient.endpoint import Endpoint
from smartclient.policies.draw import Draw
from smartclient.policies.scores import least_request, peak_ewma
from smartclient.policy import PickInfo

Score = Callable[[Endpoint, float], float]


class TwoChoices:
    """The picker."""

    __slots__ = ("_draw", "_score")

    def __init__(self, endpoints: Sequence[Endpoint], rng: random.Random, score: Score) -> None:
        self._draw = Draw(endpoints, rng)
        self._score = score

    def pick(self, info: PickInfo, now: float) -> Endpoint:
        """See ``Picker``."""
        one = self._draw.one(info, now)
        other = self._draw.other(one, info, now)
        if other is None or self._score(one, now) <= self._score(other, now):
            return one
        return other

    def score(self, endpoint: Endpoint, now: float) -> float:
        """See ``Picker``."""
        return self._score(endpoint, now)


class P2C:
    """Two choices by peak EWMA."""

    name = "p2c"

    def build(self, endpoints: Sequence[Endpoint], rng: random.Random) -> TwoChoices:
        """See ``Policy``."""
        return TwoChoices(endpoints, rng, peak_ewma)


class LeastRequest:
    """Two choices by attempts in flight."""

    name = "least_request"

    def build(self, endpoints: Sequence[Endpoint], rng: random.Random) -> TwoChoices:
        """See ``Policy``."""
        return TwoChoices(endpoints, rng, least_request)
