"""The words of the dashboard, as frozen values: members of services, what nodes and clients say, what happened.

Nothing here does I/O. Times are seconds since the epoch, for people look at them; what has never been heard of is None,
never a zero or a NaN. An unchanged member stays the same object from one list to the next, so that whoever draws it
can tell by identity.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property

import msgspec

from registry.consul.reports import CheckReport
from registry.model import Health, Instance

# From worst to best, as lists are ordered that show the worst first.
SEVERITY = (Health.CRITICAL, Health.WARNING, Health.DRAINING, Health.PASSING)


# Without gc: there are thousands and none is part of a cycle; a collection among them held the loop for 30 ms.
class Member(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One instance with its checks.

    ``since``: when it came to its present health, as far as this dashboard has seen; ``witnessed``: it saw the change,
    else it was so already when first seen. ``joined``: when first seen.
    """

    instance: Instance
    checks: tuple[CheckReport, ...] = ()
    since: float
    witnessed: bool = False
    joined: float

    @property
    def id(self) -> str:
        """The instance's id, unique within its service."""
        return self.instance.id

    @property
    def health(self) -> Health:
        """The word of its health."""
        return self.instance.health


class Service(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One service, members ordered by id, and how its watch is doing (see ``WatchStatus``)."""

    name: str
    members: tuple[Member, ...] = ()
    index: int = 0
    live: bool = True
    last_good_at: float | None = None
    error: str = ""
    suspect: bool = False

    @cached_property
    def by_id(self) -> Mapping[str, Member]:
        """Members by id."""
        return {each.id: each for each in self.members}

    @cached_property
    def counts(self) -> Mapping[Health, int]:
        """How many members there are of each health, zeroes included."""
        found = dict.fromkeys(Health, 0)
        for each in self.members:
            found[each.health] += 1
        return found


class Registry(msgspec.Struct, frozen=True, kw_only=True):
    """The registry itself. ``heard_at``: when it last answered anything; ``error``: why it does not now."""

    source: str
    live: bool = False
    leader: str = ""
    heard_at: float | None = None
    error: str = ""


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the registry says. ``version`` grows with every change; ``services`` are ordered by name.

    ``unfollowed``: how many services there are beyond those that are followed.
    """

    registry: Registry
    services: Mapping[str, Service] = {}
    unfollowed: int = 0
    version: int = 0

    def member(self, service: str, instance: str) -> Member | None:
        """One member, None when there is no such."""
        found = self.services.get(service)
        return None if found is None else found.by_id.get(instance)


class NodeLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What a node said of itself at ``at``; ``error``: why it says nothing now, the rest is what it said last."""

    at: float
    wait_ms: float | None = None
    inflight: float | None = None
    queue: float | None = None
    capacity_rps: float | None = None
    utilization: float | None = None
    rps: float | None = None
    error: str = ""


class Kind(StrEnum):
    """What an event is about."""

    REGISTERED = "registered"
    GONE = "gone"
    HEALTH = "health"
    DRAINED = "drained"
    UNDRAINED = "undrained"
    EJECTED = "ejected"
    REGISTRY_LOST = "registry lost"
    REGISTRY_BACK = "registry back"
    ACTION = "action"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened: one sentence in ``words``. ``who`` and ``why`` are an operator's. ``number`` counts up.

    ``health``: what a member has become, for events about one.
    """

    at: float
    kind: Kind
    words: str
    service: str = ""
    instance: str = ""
    health: str = ""
    who: str = ""
    why: str = ""
    number: int = 0


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies in milliseconds; None where nobody has measured any."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What clients say of one instance, or of one service, over the last minute or so.

    ``rps``: attempts a second; ``success``: share (0 to 1) of those that ended well; ``in_flight``: attempts of all
    clients under way; ``ejected_by`` of ``clients``: how many leave it out. ``heard_at``: the newest report.
    """

    rps: float | None = None
    success: float | None = None
    in_flight: int | None = None
    latency: Quantiles = Quantiles()
    ejected_by: int = 0
    clients: int = 0
    heard_at: float | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """One client of one service, as it reported last; ``ejected``: ids of the instances it leaves out."""

    client: str
    service: str
    policy: str = ""
    heard_at: float
    rps: float | None = None
    success: float | None = None
    latency: Quantiles = Quantiles()
    in_flight: int = 0
    retries_per_s: float = 0.0
    hedges_per_s: float = 0.0
    throttled_per_s: float = 0.0
    budget_left: float | None = None
    ejected: tuple[str, ...] = ()
    instances: int = 0
