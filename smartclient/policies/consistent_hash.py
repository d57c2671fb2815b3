"""Consistent hashing with bounded load: the same key goes to the same endpoint, as long as that one has room.

An endpoint that leaves moves its own keys only, one that comes takes its share from all others (``hash_order``). It is
full when it has more than ``factor`` times its share, by weight, of what this client has in flight (Mirrokni, Thorup
and Zadimoghaddam, 2018; 1.25 is theirs). Then, and when it is not to be had, the next in the key's own order takes the
key. A newcomer has room as its share grows. A call without a key takes its turn in a rotation.
"""

import math
import random
from collections.abc import Mapping, Sequence

from smartclient.endpoint import Endpoint
from smartclient.errors import BadOption, NoEndpoints
from smartclient.policies.hash_order import FEW, Circle, Rendezvous
from smartclient.policies.hashing import hash_of
from smartclient.policies.rotation import Rotation, RotationPicker
from smartclient.policies.weights import weight_of, weights_of
from smartclient.policy import PickInfo

FACTOR = 1.25
WALK = 32  # full ones that are passed; when so many are full, it is the key's first that has to bear it
RECOUNT = 16  # what is in flight is counted again every so many-th part of the list's length


class Hash:
    """The policy. ``factor``: how much more than its share an endpoint may have in flight."""

    name = "hash"

    def __init__(self, *, factor: float = FACTOR) -> None:
        if factor <= 1:
            raise BadOption(f"factor={factor}: must be above 1, or there is no room for what comes")
        self._factor = factor
        self._rotation = Rotation()

    def build(self, endpoints: Sequence[Endpoint], rng: random.Random) -> "HashPicker":
        """See ``Policy``."""
        return HashPicker(weights_of(endpoints), self._rotation.build(endpoints, rng), self._factor)


class HashPicker:
    """The picker."""

    __slots__ = ("_endpoints", "_in_flight", "_order", "_picks", "_room", "_rotation")

    def __init__(self, weights: Mapping[Endpoint, int], rotation: RotationPicker, factor: float) -> None:
        self._endpoints = tuple(weights)
        self._order = Rendezvous(weights) if len(weights) <= FEW else Circle(weights)
        self._room = factor / sum(weights.values()) if weights else 0.0
        self._rotation = rotation
        self._in_flight = 0
        self._picks = 0

    def pick(self, info: PickInfo, now: float) -> Endpoint:
        """See ``Picker``."""
        if not info.key:
            return self._rotation.pick(info, now)
        room = self._room * self._count()
        first: Endpoint | None = None
        full = 0
        for endpoint in self._order.walk(hash_of(info.key)):
            if info.admits(endpoint, now):
                if endpoint.in_flight < math.ceil(room * weight_of(endpoint, now)):
                    return endpoint
                first = first or endpoint
                full += 1
                if full >= WALK:
                    break
        if first is None:
            raise NoEndpoints("none of the endpoints may be picked now")
        return first

    def score(self, endpoint: Endpoint, now: float) -> None:
        """See ``Picker``: the order is the key's."""

    def _count(self) -> int:
        """Attempts in flight with this one; counted again now and then, for nobody tells a picker of their end."""
        if self._picks % (len(self._endpoints) // RECOUNT + 1) == 0:
            self._in_flight = sum(endpoint.in_flight for endpoint in self._endpoints)
        self._picks += 1
        self._in_flight += 1
        return self._in_flight
