"""Version split: shares of the calls by the nodes' version, as ``{"stable": 95, "canary": 5}``.

Versions take turns by smooth weighted round robin (nginx's), so the shares are exact over any longer run. A call with a
key keeps to the version that rendezvous hashing gives the key: the shares then are those of the keys, and changing them
moves no more keys than it must. A version that has nobody to pick leaves its calls to the others. Versions that are not
listed get nothing, unless none of the listed ones has anybody.
"""

import random
from collections.abc import Mapping, Sequence

from smartclient.endpoint import Endpoint
from smartclient.errors import BadOption
from smartclient.policies.hashing import distance, hash_of
from smartclient.policies.part import Inner, Part, first_of, in_order
from smartclient.policies.rotation_p2c import RotationP2C
from smartclient.policy import PickInfo, Policy


class Split:
    """The policy. ``versions``: the share of each, in any unit."""

    name = "split"

    def __init__(self, inner: Inner = RotationP2C, *, versions: Mapping[str, float]) -> None:
        if not versions or min(versions.values()) < 0 or not any(versions.values()):
            raise BadOption("the policy 'split' must be told the share of each version: split?stable=95&canary=5")
        self._versions = {name: Version(name, share, inner()) for name, share in versions.items() if share}
        self._rest = inner()
        self._begun = False

    def build(self, endpoints: Sequence[Endpoint], rng: random.Random) -> "SplitPicker":
        """See ``Policy``."""
        versions = list(self._versions.values())
        if not self._begun:
            # The first call goes anywhere, by the shares: else a client that makes one call would never see a canary.
            self._begun = True
            first = rng.choices(versions, [version.share for version in versions])[0]
            for version in versions:
                version.due = -version.share
            first.due += sum(version.share for version in versions)
        rest: list[Endpoint] = []
        members: dict[str, list[Endpoint]] = {name: [] for name in self._versions}
        for endpoint in endpoints:
            members.get(endpoint.instance.version, rest).append(endpoint)
        parts = [VersionPart(self._versions[name], each, rng) for name, each in members.items() if each]
        return SplitPicker(parts, Part(self._rest, rest, rng))


class Version:
    """A version's share, its hash, and how many turns are due to it."""

    __slots__ = ("due", "hash", "policy", "share")

    def __init__(self, name: str, share: float, policy: Policy) -> None:
        self.share = share
        self.hash = hash_of(name)
        self.policy = policy
        self.due = 0.0


class VersionPart(Part):
    """The endpoints of one version."""

    __slots__ = ("version",)

    def __init__(self, version: Version, members: Sequence[Endpoint], rng: random.Random) -> None:
        super().__init__(version.policy, members, rng)
        self.version = version


class SplitPicker:
    """The picker; an ``AskingPicker``."""

    __slots__ = ("_parts", "_rest")

    def __init__(self, parts: Sequence[VersionPart], rest: Part) -> None:
        self._parts = parts
        self._rest = rest

    def pick(self, info: PickInfo, now: float) -> Endpoint:
        """See ``Picker``."""
        order = in_order(self._order(info), info)
        number, endpoint = first_of([*order, self._rest], info, now)
        if not info.key and number < len(order):
            living = [part.version for part in order[number:]]
            for version in living:
                version.due += version.share
            living[0].due -= sum(version.share for version in living)
        return endpoint

    def candidates(self, info: PickInfo, now: float) -> Sequence[Endpoint]:
        """See ``AskingPicker``: those of the version whose turn it is."""
        return next(iter([*self._order(info), self._rest])).candidates(info, now)

    def score(self, endpoint: Endpoint, now: float) -> float | None:
        """See ``Picker``: compared with those of its version only."""
        part = next((part for part in self._parts if endpoint in part), self._rest)
        return part.score(endpoint, now)

    def _order(self, info: PickInfo) -> list[VersionPart]:
        """The versions, the one whose turn it is first."""
        if info.key:
            key = hash_of(info.key)
            return sorted(self._parts, key=lambda part: distance(key, part.version.hash, part.version.share))
        return sorted(self._parts, key=lambda part: part.version.due + part.version.share, reverse=True)
