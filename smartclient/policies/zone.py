"""Zone preference: stay in the own zone as far as that is fair, spill the rest (Envoy's zone-aware routing).

The local share of the picks is ``min(1, u / o)``: ``u`` is the own zone's part of the capacity (weight) that may be had
now, ``o`` its part of the clients. Where nobody says ``o`` (option ``clients``, 0 to 1), clients are taken to be spread
as the listed nodes are: then all stays local while all is well, and when a third of the own zone's capacity is out,
the part that would overload the rest goes to the other zones, to each by what its nodes can take. Off with fewer than
6 nodes (Envoy's ``min_cluster_size``), without nodes in the own zone or elsewhere, and in panic.
"""

import random
from collections.abc import Sequence

from smartclient.breaker import Reach
from smartclient.endpoint import Endpoint
from smartclient.errors import BadOption
from smartclient.policies.part import Inner, Part, first_of, in_order
from smartclient.policies.rotation_p2c import RotationP2C
from smartclient.policies.weights import weights_of
from smartclient.policy import ANY, PickInfo

LEAST = 6
STANDS = 0.1  # seconds for which a local share is not worked out again: everybody is looked at for it


class Zone:
    """The policy. ``zone``: the client's own; ``clients``: the share of all clients that are in it."""

    name = "zone"

    def __init__(self, inner: Inner = RotationP2C, *, zone: str = "", clients: float | None = None) -> None:
        if not zone:
            raise BadOption("the policy 'zone' must be told the zone of this client: zone?zone=NAME")
        if clients is not None and not 0 < clients <= 1:
            raise BadOption(f"clients={clients}: the share of all clients that are in the zone, above 0 up to 1")
        self._zone = zone
        self._clients = clients
        self._local, self._others, self._everybody = inner(), inner(), inner()

    def build(self, endpoints: Sequence[Endpoint], rng: random.Random) -> "ZonePicker":
        """See ``Policy``."""
        local = [endpoint for endpoint in endpoints if endpoint.instance.zone == self._zone]
        others = [endpoint for endpoint in endpoints if endpoint.instance.zone != self._zone]
        everybody = Part(self._everybody, endpoints, rng)
        share: LocalShare | None = None
        if local and others and len(endpoints) >= LEAST:
            share = LocalShare(local, others, self._clients)
        return ZonePicker(Part(self._local, local, rng), Part(self._others, others, rng), everybody, share, rng)


class ZonePicker:
    """The picker; an ``AskingPicker``."""

    __slots__ = ("_credit", "_everybody", "_local", "_others", "_share")

    def __init__(
        self, local: Part, others: Part, everybody: Part, share: "LocalShare | None", rng: random.Random
    ) -> None:
        self._local = local
        self._others = others
        self._everybody = everybody
        self._share = share
        self._credit = rng.random()  # of a local pick; whole ones are taken

    def pick(self, info: PickInfo, now: float) -> Endpoint:
        """See ``Picker``."""
        parts, share = self._parts(info, now)
        _, endpoint = first_of(in_order(parts, info), info, now)
        if share is not None:
            self._credit = max(-1.0, min(1.0, self._credit + share - (endpoint in self._local)))
        return endpoint

    def candidates(self, info: PickInfo, now: float) -> Sequence[Endpoint]:
        """See ``AskingPicker``: those of the part whose turn it is."""
        return self._parts(info, now)[0][0].candidates(info, now)

    def score(self, endpoint: Endpoint, now: float) -> float | None:
        """See ``Picker``."""
        return self._everybody.score(endpoint, now)

    def _parts(self, info: PickInfo, now: float) -> tuple[Sequence[Part], float | None]:
        """Where to pick, first choice first, and the local share; None where zones play no part."""
        if self._share is None or info.reach is not Reach.WELL:
            return (self._everybody,), None
        share = self._share.now(now)
        local_first = self._credit + share >= 1.0
        return ((self._local, self._others) if local_first else (self._others, self._local)), share


class LocalShare:
    """The share of this client's picks that is to stay in its zone."""

    __slots__ = ("_clients", "_local", "_others", "_share", "_until")

    def __init__(self, local: Sequence[Endpoint], others: Sequence[Endpoint], clients: float | None) -> None:
        weights = weights_of([*local, *others])
        self._local = [(endpoint, weights.get(endpoint, 0)) for endpoint in local]
        self._others = [(endpoint, weights.get(endpoint, 0)) for endpoint in others]
        listed = sum(weight for _, weight in self._local) / sum(weights.values())
        self._clients = listed if clients is None else clients
        self._share = 1.0
        self._until = float("-inf")

    def now(self, now: float) -> float:
        """The share (0 to 1)."""
        if now >= self._until:
            local, others = _capacity(self._local, now), _capacity(self._others, now)
            available = local + others
            self._share = min(1.0, local / available / self._clients) if available and self._clients else 0.0
            self._until = now + STANDS
        return self._share


def _capacity(endpoints: Sequence[tuple[Endpoint, int]], now: float) -> int:
    return sum(weight for endpoint, weight in endpoints if ANY.admits(endpoint, now))
