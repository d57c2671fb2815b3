"""Random draws of endpoints that may be picked, at a cost that does not grow with the list.

A few draws are tried; where hardly anybody may be picked, everybody is looked at once. Draws do not follow weights:
whoever draws compares what comes of it.
"""

import random
from collections.abc import Iterable

from smartclient.endpoint import Endpoint
from smartclient.errors import NoEndpoints
from smartclient.policies.weights import weights_of
from smartclient.policy import PickInfo

TRIES = 16  # with half of the list out (with more all may be had: panic), one draw in 65,536 looks at everybody


class Draw:
    """Draws from one list, its endpoints of weight 0 left out."""

    __slots__ = ("_endpoints", "_random", "_rng")

    def __init__(self, endpoints: Iterable[Endpoint], rng: random.Random) -> None:
        self._endpoints = tuple(weights_of(endpoints))
        self._rng = rng
        self._random = rng.random

    def one(self, info: PickInfo, now: float) -> Endpoint:
        """Return a random endpoint that ``info`` admits. Raises ``NoEndpoints``."""
        endpoint = self.other(None, info, now)
        if endpoint is None:
            raise NoEndpoints("none of the endpoints may be picked now")
        return endpoint

    def other(self, than: Endpoint | None, info: PickInfo, now: float) -> Endpoint | None:
        """Return a random one that ``info`` admits and that is not ``than``; None where there is none."""
        endpoints, draw = self._endpoints, self._random
        size = len(endpoints)
        if size > 1:
            for _ in range(TRIES):
                endpoint = endpoints[int(draw() * size)]
                if endpoint is not than and info.admits(endpoint, now):
                    return endpoint
        rest = [endpoint for endpoint in endpoints if endpoint is not than and info.admits(endpoint, now)]
        return self._rng.choice(rest) if rest else None
