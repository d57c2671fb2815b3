"""Weighted rotation: turns in proportion to the weights, exactly equal ones where the weights are equal.

Endpoints of one weight form a ring, in an order drawn at random, else every client would begin with the same node.
Rings are served by earliest deadline first, as Envoy and gRPC serve endpoints: a turn moves a ring of k endpoints of
weight w on by 1 / (k·w) of a virtual time that only picks move. A pick costs a step in a ring and one in a heap of
the different weights, however long the list is.

Who is out loses its turns, who is new loses some (``Endpoint.share``, summed up turn by turn), so that nobody returns
to a burst. Whom only this call passes over, having tried it, is owed that turn. A change of the list moves nobody's
turn but that of who came.
"""

import heapq
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from smartclient.endpoint import Endpoint
from smartclient.errors import NoEndpoints
from smartclient.policies.ring import Ring
from smartclient.policies.weights import share_of, weights_of
from smartclient.policy import PickInfo

Turn = tuple[float, int, Ring]
"""A ring's deadline, its weight, and the ring; in this order they are served."""


class Rotation:
    """The policy: remembers the last picker, whose turns the next one continues."""

    name = "rotation"

    def __init__(self) -> None:
        self._last: RotationPicker | None = None

    def build(self, endpoints: Sequence[Endpoint], rng: random.Random) -> "RotationPicker":
        """See ``Policy``. Endpoints of weight 0 get no turn, unless all have weight 0: then all count as 1."""
        self._last = RotationPicker(endpoints, rng, self._last)
        return self._last


class RotationPicker:
    """A heap of rings; the first one's head is next. ``time``: of the turn taken last, virtual.

    ``owed``: who was passed over and is next, before all turns. ``credit``: what newcomers have of a turn.
    """

    __slots__ = ("credit", "owed", "rng", "time", "turns")

    def __init__(
        self, endpoints: Sequence[Endpoint], rng: random.Random, before: "RotationPicker | None" = None
    ) -> None:
        weights = weights_of(endpoints)
        self.rng = rng
        self.time: float = before.time if before else 0.0
        self.owed: dict[Endpoint, None] = {}
        self.credit: dict[Endpoint, float] = {}
        old: dict[int, tuple[float, Ring]] = {}
        if before:
            self.owed = {each: None for each in before.owed if each in weights}
            new = {each: had for each, had in before.credit.items() if each.joined is not None}
            self.credit = {each: had for each, had in new.items() if each in weights}
            old = {weight: (deadline, ring) for deadline, weight, ring in before.turns}
        members: defaultdict[int, list[Endpoint]] = defaultdict(list)
        for endpoint, weight in weights.items():
            members[weight].append(endpoint)
        self.turns: list[Turn] = [self._entry(weight, each, old.get(weight)) for weight, each in members.items()]
        heapq.heapify(self.turns)

    def pick(self, info: PickInfo, now: float) -> Endpoint:
        """See ``Picker``."""
        endpoint = self._head(info, now)
        if endpoint is None:
            return self._next(info, now, take=True)
        self._take()
        return endpoint

    def peek(self, info: PickInfo, now: float) -> Endpoint:
        """Return whom ``pick`` would return, and leave it its turn. Raises ``NoEndpoints``."""
        return self._head(info, now) or self._next(info, now, take=False)

    def _head(self, info: PickInfo, now: float) -> Endpoint | None:
        """The first ring's first endpoint, if it may have its turn without further ado."""
        if self.turns and not self.owed:
            ring = self.turns[0][2]
            endpoint = ring.members[ring.at]
            if endpoint.joined is None and info.admits(endpoint, now):
                return endpoint
        return None

    def score(self, endpoint: Endpoint, now: float) -> None:
        """See ``Picker``: turns are taken, not compared."""

    def _entry(self, weight: int, members: Iterable[Endpoint], old: tuple[float, Ring] | None) -> Turn:
        if old is None:
            ring = Ring(weight, members, (), self.rng)
            return self.time + self.rng.random() * ring.period, weight, ring
        deadline, last = old
        ring = Ring(weight, members, last.in_order(), self.rng)
        # A deadline kept from a smaller ring may lie further off than one period of this one.
        return min(deadline, self.time + ring.period), weight, ring

    def _next(self, info: PickInfo, now: float, *, take: bool) -> Endpoint:
        for owed in tuple(self.owed):
            if info.admits(owed, now):
                if take:
                    del self.owed[owed]
                return owed
            if owed not in info.exclude:
                del self.owed[owed]
        turns = self.turns
        nobody: list[Turn] = []
        try:
            while turns:
                deadline, weight, ring = turns[0]
                endpoint, lost = self._seek(ring, info, now)
                turn = (deadline + lost * ring.period, weight, ring)
                if endpoint is None:
                    nobody.append(turn)
                    heapq.heappop(turns)
                elif lost:
                    heapq.heapreplace(turns, turn)
                else:
                    if take:
                        self._take()
                        if endpoint.joined is not None:
                            self.credit[endpoint] = self._credit(endpoint, now) - 1.0
                    return endpoint
        finally:
            for turn in nobody:
                heapq.heappush(turns, turn)
        raise NoEndpoints("no endpoint of the rotation may be picked now")

    def _seek(self, ring: Ring, info: PickInfo, now: float) -> tuple[Endpoint | None, int]:
        """Move a ring on to one that may take its turn, None if there is none; and how many lost theirs."""
        lost = refused = 0
        while refused < len(ring.members):
            endpoint = ring.members[ring.at]
            if info.admits(endpoint, now):
                if endpoint.joined is None or (credit := self._credit(endpoint, now)) >= 1.0:
                    return endpoint, lost
                self.credit[endpoint] = credit
                refused = 0
            else:
                if endpoint in info.exclude:
                    self.owed[endpoint] = None
                refused += 1
            ring.step()
            lost += 1
        return None, lost

    def _credit(self, endpoint: Endpoint, now: float) -> float:
        """What a newcomer has of a turn when it comes to it; it begins at random, or all would come at once."""
        if endpoint not in self.credit:
            self.credit[endpoint] = self.rng.random()
        return self.credit[endpoint] + share_of(endpoint, now)

    def _take(self) -> None:
        deadline, weight, ring = self.turns[0]
        # Who is behind for having been out altogether may be behind by one turn and no more.
        turn = max(deadline, self.time - ring.period)
        self.time = max(self.time, turn)
        ring.step()
        heapq.heapreplace(self.turns, (turn + ring.period, weight, ring))
