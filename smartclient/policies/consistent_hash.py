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
from smartclient.policies.scores import least_request
from smartclient.policies.weights import weight_of, weights_of
from smartclient.policy import PickInfo

FACTOR = 1.25
WALK = 64  # full ones that are passed; then one key has so much of the work that the least full of these has to do
RECOUNT = 16  # endpoints looked at for each pick, on average, to know how much room there is


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

    __slots__ = ("_endpoints", "_factor", "_in_flight", "_order", "_picks", "_rotation", "_weight")

    def __init__(self, weights: Mapping[Endpoint, int], rotation: RotationPicker, factor: float) -> None:
        self._endpoints = tuple(weights)
        self._order = Rendezvous(weights) if len(weights) <= FEW else Circle(weights)
        self._rotation = rotation
        self._factor = factor
        self._picks = 0
        self._in_flight = 0
        self._weight = 0.0

    def pick(self, info: PickInfo, now: float) -> Endpoint:
        """See ``Picker``."""
        if not info.key:
            return self._rotation.pick(info, now)
        room = self._room(info, now)
        full: list[Endpoint] = []
        for endpoint in self._order.walk(hash_of(info.key)):
            if info.admits(endpoint, now):
                if endpoint.in_flight < math.ceil(room * weight_of(endpoint, now)):
                    return endpoint
                full.append(endpoint)
                if len(full) == WALK:
                    break
        if not full:
            raise NoEndpoints("none of the endpoints may be picked now")
        return min(full, key=lambda endpoint: least_request(endpoint, now))

    def score(self, endpoint: Endpoint, now: float) -> None:
        """See ``Picker``: the order is the key's."""

    def _room(self, info: PickInfo, now: float) -> float:
        """Attempts that an endpoint may have for each unit of its weight, this one included.

        Attempts in flight, and the weight that may be had, are counted now and then: nobody tells a picker of changes.
        """
        if self._picks % (len(self._endpoints) // RECOUNT + 1) == 0:
            self._in_flight = sum(endpoint.in_flight for endpoint in self._endpoints)
            self._weight = sum(weight_of(each, now) for each in self._endpoints if info.admits(each, now))
        self._picks += 1
        self._in_flight += 1
        return self._factor * self._in_flight / self._weight if self._weight else 0.0
