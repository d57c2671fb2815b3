"""Weighted rotation: each endpoint's turn comes 1/weight after its last one (earliest deadline first).

With equal weights this is an exact rotation: of n picks over k endpoints each gets n/k, whatever is going on beside
it, because a pick is synchronous and nothing but picks moves the clock of turns. The first turn is drawn from
[0, 1/weight), else every client would begin with the same node (BALANCING: EDF as in Envoy and gRPC). Turns are kept
by identity when the list changes. Who was left out for a while may be behind by one turn and no more, so that nobody
comes back to a burst.
"""

import heapq
import itertools
import random
from collections.abc import Mapping, Sequence

from smartclient.endpoint import Endpoint, Key
from smartclient.errors import NoEndpoints
from smartclient.policy import PickInfo


class Rotation:
    """The policy: remembers the last picker, whose turns the next one continues."""

    name = "rotation"

    def __init__(self) -> None:
        self._last: RotationPicker | None = None

    def build(self, endpoints: Sequence[Endpoint], rng: random.Random) -> "RotationPicker":
        """See ``Policy``. Endpoints of weight 0 get no turn, unless all have weight 0: then all count as 1."""
        before, time = ({}, 0.0) if self._last is None else (self._last.turns(), self._last.time)
        weights = {endpoint: endpoint.weight for endpoint in endpoints}
        if not any(weights.values()):
            weights = dict.fromkeys(weights, 1)
        self._last = RotationPicker(weights, before, time, rng)
        return self._last


class RotationPicker:
    """A heap of turns. ``time`` is the turn picked last: virtual, it moves with picks only."""

    __slots__ = ("_order", "_turns", "time")

    def __init__(
        self, weights: Mapping[Endpoint, int], before: Mapping[Key, float], time: float, rng: random.Random
    ) -> None:
        self.time = time
        self._order = itertools.count()
        self._turns: list[tuple[float, int, float, Endpoint]] = []
        for endpoint, weight in weights.items():
            if weight:
                period = 1.0 / weight
                fresh = time + rng.random() * period
                # A turn kept from a lower weight may lie further off than one period of the new one.
                turn = min(before.get(endpoint.key, fresh), time + period)
                self._turns.append((turn, next(self._order), period, endpoint))
        heapq.heapify(self._turns)

    def pick(self, info: PickInfo, now: float) -> Endpoint:
        """See ``Picker``. An endpoint passed over keeps its turn; the one picked moves on by its period."""
        turns = self._turns
        passed: list[tuple[float, int, float, Endpoint]] = []
        try:
            while turns:
                turn, _, period, endpoint = turns[0]
                if info.admits(endpoint, now):
                    turn = max(turn, self.time - period)
                    self.time = max(self.time, turn)
                    heapq.heapreplace(turns, (turn + period, next(self._order), period, endpoint))
                    return endpoint
                passed.append(heapq.heappop(turns))
        finally:
            for entry in passed:
                heapq.heappush(turns, entry)
        raise NoEndpoints("no endpoint of the rotation may be picked now")

    def score(self, endpoint: Endpoint, now: float) -> None:
        """See ``Picker``: turns are taken, not compared."""

    def turns(self) -> dict[Key, float]:
        """Next turn of each endpoint, by key."""
        return {endpoint.key: turn for turn, _, _, endpoint in self._turns}
