"""Some of the endpoints and another policy's picker over them: what policies that wrap others are made of."""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from smartclient.endpoint import Endpoint
from smartclient.errors import NoEndpoints
from smartclient.policy import AskingPicker, PickInfo, Policy

Inner = Callable[[], Policy]
"""Makes the policy that is wrapped: one for each part, since a policy belongs to one list."""


class Part:
    """The endpoints of one part; ``pick``, ``candidates`` and ``score`` are those of its picker."""

    __slots__ = ("_asking", "_members", "_picker")

    def __init__(self, policy: Policy, members: Sequence[Endpoint], rng: random.Random) -> None:
        self._members = frozenset(members)
        self._picker = policy.build(members, rng)
        self._asking = self._picker if isinstance(self._picker, AskingPicker) else None

    def __contains__(self, endpoint: Endpoint) -> bool:
        return endpoint in self._members

    def pick(self, info: PickInfo, now: float) -> Endpoint:
        """See ``Picker``."""
        return self._picker.pick(info, now)

    def candidates(self, info: PickInfo, now: float) -> Sequence[Endpoint]:
        """See ``AskingPicker``; none where its picker does not ask."""
        return self._asking.candidates(info, now) if self._asking else ()

    def score(self, endpoint: Endpoint, now: float) -> float | None:
        """See ``Picker``."""
        return self._picker.score(endpoint, now)


P = TypeVar("P", bound=Part)


def in_order(parts: Sequence[P], info: PickInfo) -> Sequence[P]:
    """Return the parts as given, but those first that were asked for their load: others know nothing of the answers."""
    return sorted(parts, key=lambda part: info.among[0] not in part) if info.among else parts


def first_of(parts: Sequence[Part], info: PickInfo, now: float) -> tuple[int, Endpoint]:
    """Pick from the first part that has somebody; how many have not, and whom. Raises ``NoEndpoints``."""
    for number, part in enumerate(parts):
        try:
            return number, part.pick(info, now)
        except NoEndpoints:
            continue
    raise NoEndpoints("none of the endpoints may be picked now")
