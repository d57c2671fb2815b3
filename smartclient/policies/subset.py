"""Deterministic subsetting: each client keeps to ``size`` of many nodes, so that neither has too many connections.

A client's nodes are those nearest to its own hash (rendezvous, as gRPC's A68): a node more or less in the list changes
at most one of them, and clients share the nodes evenly. Below twice the size all are used. Where none of the subset
may be had, any other node may. ``size`` 32 is go-zero's; Finagle takes 12, Spring 100. ``client`` is what tells this
client from the others, random for each process if not given.
"""

import random
from collections.abc import Sequence
from heapq import nsmallest

from smartclient.endpoint import Endpoint
from smartclient.errors import BadOption, NoEndpoints
from smartclient.policies.hashing import distance, hash_of, identity
from smartclient.policies.part import Inner, Part
from smartclient.policies.rotation import Rotation
from smartclient.policies.rotation_p2c import RotationP2C
from smartclient.policies.weights import weights_of
from smartclient.policy import PickInfo

SIZE = 32


class Subset:
    """The policy."""

    name = "subset"

    def __init__(self, inner: Inner = RotationP2C, *, size: int = SIZE, client: str = "") -> None:
        if size < 1:
            raise BadOption(f"size={size}: at least 1")
        self._inner = inner()
        self._size = size
        self._client = hash_of(client) if client else None
        self._everybody = Rotation()

    def build(self, endpoints: Sequence[Endpoint], rng: random.Random) -> "SubsetPicker":
        """See ``Policy``."""
        if self._client is None:
            self._client = rng.getrandbits(64)
        members = nearest(self._client, endpoints, self._size)
        return SubsetPicker(Part(self._inner, members, rng), Part(self._everybody, endpoints, rng))


class SubsetPicker:
    """The picker."""

    __slots__ = ("_everybody", "_subset", "candidates", "score")

    def __init__(self, subset: Part, everybody: Part) -> None:
        self._subset = subset
        self._everybody = everybody
        self.candidates = subset.candidates
        self.score = subset.score

    def pick(self, info: PickInfo, now: float) -> Endpoint:
        """See ``Picker``."""
        try:
            return self._subset.pick(info, now)
        except NoEndpoints:
            return self._everybody.pick(info, now)


def nearest(client: int, endpoints: Sequence[Endpoint], size: int) -> Sequence[Endpoint]:
    """Return the ``size`` endpoints that are this client's; all, when there are less than twice as many."""
    with_work = tuple(weights_of(endpoints))
    if len(with_work) < 2 * size:
        return endpoints
    return nsmallest(size, with_work, key=lambda endpoint: distance(client, identity(endpoint)))
