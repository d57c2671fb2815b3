"""The seam between "who may be picked" and "who is picked next".

The control side calls ``Policy.build`` whenever the list changes; the data side calls ``Picker.pick`` for every
attempt: synchronous, no I/O. A policy belongs to one balancer and may carry its position from one picker to the next.
Availability is not the policy's business beyond asking: ``info.admits`` says who may be had.
"""

import random
from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from smartclient.breaker import Reach
from smartclient.endpoint import Endpoint


class PickInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What one pick asks for. ``exclude``: endpoints this call has tried; ``reach``: how ill one may be."""

    exclude: Collection[Endpoint] = ()
    reach: Reach = Reach.WELL

    def admits(self, endpoint: Endpoint, now: float) -> bool:
        """Whether ``endpoint`` may be picked for this."""
        breaker = endpoint.breaker
        return (breaker.calm or breaker.available(now, self.reach)) and endpoint not in self.exclude


ANY = PickInfo()


class Picker(Protocol):
    """Chooses among the endpoints it was built for."""

    def pick(self, info: PickInfo, now: float) -> Endpoint:
        """Return the next endpoint that ``info`` admits. ``now``: monotonic seconds. Raises ``NoEndpoints``."""
        ...


class Policy(Protocol):
    """Builds pickers."""

    @property
    def name(self) -> str:
        """The word it is chosen by."""
        ...

    def build(self, endpoints: Sequence[Endpoint], rng: random.Random) -> Picker:
        """Return a picker over ``endpoints``, going on from where the one before stood."""
        ...
