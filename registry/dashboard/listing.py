"""Which members an address asks for, in which order: filter, sort and facets over the whole fleet. Pure.

The browser holds a hundred rows and no more, so everything that is about all of them is decided here. What nobody has
said is no number and comes last whichever way a column is sorted; members that are alike stay in the fleet's own order,
by service and id, so that rows do not change places without a reason.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from registry.dashboard import guard
from registry.dashboard.address import Pairs, Query, text, whole, words
from registry.dashboard.calls import Calls
from registry.dashboard.loads import Loads
from registry.dashboard.model import SEVERITY, Fleet, Member
from registry.dashboard.rows import rate
from registry.dashboard.shelf import Shelf
from registry.dashboard.world import World
from registry.model import Health

ON_A_PAGE = 100
ATTENTION = "attention"
HEALTH = tuple(each.value for each in SEVERITY)
# Choices in a list of them.
_MOST_CHOICES = 50
_RANK = {word: rank for rank, word in enumerate(SEVERITY)}

_SINCE = attrgetter("since")

Value = Callable[[Member], Any]

_PLAIN: Mapping[str, Value] = {
    ATTENTION: lambda member: (_RANK[member.health], member.since),
    "id": lambda member: member.id,
    "service": lambda member: member.instance.service,
    "zone": lambda member: member.instance.zone or None,
    "health": lambda member: _RANK[member.health],
    "version": lambda member: member.instance.version or None,
    "since": _SINCE,
}
# Columns of figures, which are read with the largest first.
FIGURES = ("inflight", "queue", "rps", "success", "p50", "p99")
SORTS = (*_PLAIN, *FIGURES)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What an address asks for; empty narrows nothing. ``sort``: one of ``SORTS``, ``-`` before it for the reverse."""

    q: str = ""
    service: str = ""
    zone: str = ""
    health: tuple[str, ...] = ()
    version: str = ""
    tag: str = ""
    sort: str = ATTENTION
    page: int = 1

    @property
    def narrowed(self) -> bool:
        """Whether anything is left out."""
        return bool(self.q or self.service or self.zone or self.health or self.version or self.tag)

    def narrowing(self) -> Pairs:
        """Parameters that say what is left out, in one order."""
        return [
            ("q", self.q),
            ("service", self.service),
            ("zone", self.zone),
            *(("health", each) for each in self.health),
            ("version", self.version),
            ("tag", self.tag),
        ]

    def pairs(self) -> Pairs:
        """All parameters, in one order and without those that go without saying."""
        sort = "" if self.sort == ATTENTION else self.sort
        return [*self.narrowing(), ("sort", sort), ("page", self.page if self.page > 1 else "")]


class Facets(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to choose from, with the number of members: names in order, at most fifty, the most frequent.

    ``health`` counts what matches everything else, so each says what a click on it would show.
    """

    services: tuple[tuple[str, int], ...]
    zones: tuple[tuple[str, int], ...]
    versions: tuple[tuple[str, int], ...]
    health: Mapping[str, int]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The members that match, in the fleet's order; ``total``: how many there are to choose from."""

    members: tuple[Member, ...]
    total: int
    facets: Facets


def read(query: Query) -> Asked:
    """Read what is asked for; a sort that there is not and a page that is no number are as if not given.

    Raises ``BadAddress`` over a word that is none of health.
    """
    sort = text(query, "sort")
    return Asked(
        q=text(query, "q"),
        service=text(query, "service"),
        zone=text(query, "zone"),
        health=words(query, "health", HEALTH),
        version=text(query, "version"),
        tag=text(query, "tag"),
        sort=sort if sort.removeprefix("-") in SORTS else ATTENTION,
        page=whole(query, "page", 1),
    )


def find(fleet: Fleet, asked: Asked, shelf: Shelf) -> Found:
    """Find what matches, and what else there is to choose from."""
    return shelf.of(fleet.version, ("found", *asked.narrowing()), lambda: _find(fleet, asked, shelf))


def arranged(world: World, asked: Asked) -> tuple[Member, ...]:
    """Return what matches in the order that is asked for."""
    found = find(world.fleet, asked, world.shelf)

    def sort() -> tuple[Member, ...]:
        return ordered(found.members, asked.sort, world.loads, world.calls)

    if asked.sort.removeprefix("-") in FIGURES:  # which change while the fleet does not
        return sort()
    return world.shelf.of(world.fleet.version, ("arranged", asked.sort, *asked.narrowing()), sort)


def _find(fleet: Fleet, asked: Asked, shelf: Shelf) -> Found:
    every = [each for service in fleet.services.values() for each in service.members]
    within = every if not asked.service else [each for each in every if each.instance.service == asked.service]
    found = [each for each in within if _wanted(each, asked)] if _narrow(asked) else within
    if asked.q:
        q = asked.q.casefold()
        found = [each for each in found if q in shelf.searched(each.instance)]
    counts = Counter(each.health for each in found)
    if asked.health:
        found = [each for each in found if each.health in asked.health]
    facets = Facets(
        services=_choices({name: len(each.members) for name, each in fleet.services.items()}, asked.service),
        zones=_choices(Counter(each.instance.zone for each in within), asked.zone),
        versions=_choices(Counter(each.instance.version for each in within), asked.version),
        health={word: counts[Health(word)] for word in HEALTH},
    )
    return Found(members=tuple(found), total=len(every), facets=facets)


def ordered(members: Iterable[Member], sort: str, loads: Loads, calls: Calls) -> tuple[Member, ...]:
    """Sort members that are in the fleet's order."""
    if sort == ATTENTION:  # what everybody looks at first, and the quickest way there
        by_health: dict[Health, list[Member]] = {word: [] for word in SEVERITY}
        for each in members:
            by_health[each.health].append(each)
        return tuple(each for word in SEVERITY for each in sorted(by_health[word], key=_SINCE))
    value = _value(sort.removeprefix("-"), loads, calls)
    pairs = [(value(each), each) for each in members]
    known = [pair for pair in pairs if pair[0] is not None]
    known.sort(key=lambda pair: pair[0], reverse=sort.startswith("-"))
    return tuple(each for _, each in known) + tuple(each for found, each in pairs if found is None)


def targets(members: Iterable[Member], kind: str) -> tuple[str, ...]:
    """Return the ids of those that an order of this kind, drain or undrain, can be about at all."""
    draining = kind == "undrain"
    return tuple(each.id for each in members if (each.health is Health.DRAINING) is draining and guard.steerable(each))


def key(service: str, instance: str) -> str:
    """Return how a form names an instance: ``SERVICE/ID``, unambiguous whatever is in the two."""
    return f"{quote(service, safe='', errors='replace')}/{quote(instance, safe='', errors='replace')}"


def unkey(name: str) -> tuple[str, str]:
    """Return service and id of a name that a form sent."""
    service, _, instance = name.partition("/")
    return unquote(service), unquote(instance)


def _value(sort: str, loads: Loads, calls: Calls) -> Value:
    if sort in _PLAIN:
        return _PLAIN[sort]

    def said(member: Member) -> float | None:
        load = loads.get(member.instance.service, member.id)
        return None if load is None or load.error else load.inflight if sort == "inflight" else load.queue

    def seen(member: Member) -> float | None:
        traffic = calls.instance(member.instance.service, member.id)
        if sort == "rps":
            return rate(traffic, loads.get(member.instance.service, member.id))
        found: float | None = getattr(traffic if sort == "success" else traffic.latency, sort)
        return found

    return said if sort in ("inflight", "queue") else seen


def _narrow(asked: Asked) -> bool:
    return bool(asked.zone or asked.version or asked.tag)


def _wanted(member: Member, asked: Asked) -> bool:
    """Whether it matches, but for its service, its health and the words."""
    instance = member.instance
    if asked.zone and instance.zone != asked.zone:
        return False
    if asked.version and instance.version != asked.version:
        return False
    return not asked.tag or asked.tag in instance.tags


def _choices(counts: Mapping[str, int], chosen: str) -> tuple[tuple[str, int], ...]:
    named = {name: count for name, count in counts.items() if name}
    if len(named) > _MOST_CHOICES:
        named = dict(Counter(named).most_common(_MOST_CHOICES))
    if chosen:
        named.setdefault(chosen, counts.get(chosen, 0))
    return tuple(sorted(named.items()))
