"""Endpoints of one weight that take turns in a fixed order; the part of the rotation that is exact."""

import random
from collections.abc import Iterable

from smartclient.endpoint import Endpoint


class Ring:
    """Its ``members`` in their order; ``at`` is the next one, ``period`` the virtual time between two turns.

    Those who are in ``order`` keep it, the others come in at random places.
    """

    __slots__ = ("at", "members", "period")

    def __init__(self, weight: int, members: Iterable[Endpoint], order: Iterable[Endpoint], rng: random.Random) -> None:
        new = dict.fromkeys(members)
        self.members = [each for each in order if each in new]
        for each in self.members:
            del new[each]
        if self.members:
            for each in new:
                self.members.insert(rng.randrange(len(self.members) + 1), each)
        else:
            self.members = list(new)
            rng.shuffle(self.members)
        self.at = 0
        self.period = 1.0 / (len(self.members) * weight)

    def step(self) -> None:
        """Go on to the next one."""
        at = self.at + 1
        self.at = at if at < len(self.members) else 0

    def in_order(self) -> list[Endpoint]:
        """Everybody, beginning with the next one."""
        return self.members[self.at :] + self.members[: self.at]
