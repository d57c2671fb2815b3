"""The overview, ``/``: whether the fleet is well, and if not, what is the matter and since when.

One sentence, what needs a look, a square for each instance, a row for each service. However many instances there are,
the page stays the same size: squares and sentences are bounded, services come fifty to a page, and each part is
drawn again only when what it shows is different.
"""

import shlex
from collections.abc import Mapping, Sequence
from heapq import nsmallest
from typing import Any, ClassVar

import msgspec

from registry.dashboard import charts
from registry.dashboard.address import Pairs, Query, address, cut, link, row, text, whole
from registry.dashboard.figures import Figures, figures, key, plain, rank, rounded, top, waiting
from registry.dashboard.model import Event, Service
from registry.dashboard.pages.attention import Attention, attention
from registry.dashboard.render import Part
from registry.dashboard.world import World
from registry.model import Health

ON_A_PAGE = 50
EVENTS = 8
VERSIONS = 3
# Squares of one service, and of all on the page together.
SQUARES, ALL_SQUARES, FEWEST_SQUARES = 120, 600, 12
SORTS = ("attention", "name", "instances", "rps", "success", "p99")
# Seconds between two looks at how old the registry's word is, in its card; the head of the page shows it all the time.
_HEARD = 5.0


class Strip(msgspec.Struct, frozen=True, kw_only=True):
    """One service as squares, (id, health), worst first; ``rest``: how many more there are of each health.

    ``passing``: all of those, said once to who listens to the page instead of square by square.
    """

    service: str
    squares: tuple[tuple[str, str], ...]
    rest: Mapping[str, int]
    passing: int


class ServiceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One service. ``queue``: requests that wait at its nodes. ``old``: its list is of ``last_good_at``, not of now."""

    name: str
    instances: int
    counts: Mapping[str, int]
    figures: Figures
    queue: float | None
    versions: tuple[tuple[str, int], ...]
    more_versions: int
    old: bool
    last_good_at: float | None


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The registry. ``index``: the highest of any list."""

    source: str
    live: bool
    leader: str
    error: str
    heard_at: float | None
    index: int
    followed: int
    unfollowed: int


class OverviewView(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``instances`` and ``counts`` are of all services, ``strips`` and ``rows`` of those on this page."""

    attention: Attention
    instances: int
    services: int
    counts: Mapping[str, int]
    strips: tuple[Strip, ...]
    rows: tuple[ServiceRow, ...]
    page: int
    pages: int
    events: tuple[Event, ...]
    registry: Card


class Overview:
    """``/?sort=&page=``; a minus before ``sort`` turns the order round."""

    template: ClassVar[str] = "overview.html"
    name: ClassVar[str] = "overview"
    title = "Overview"

    def __init__(self, _match: Mapping[str, str], query: Query) -> None:
        asked = text(query, "sort")
        self._sort = asked if asked.removeprefix("-") in SORTS else SORTS[0]
        self._page = whole(query, "page", 1)

    @property
    def here(self) -> str:
        """Its address."""
        return address("/", self._pairs(self._sort, self._page))

    def view(self, world: World) -> OverviewView:
        """What it says."""
        fleet = world.fleet
        services = self._sorted(world)
        shown, page, pages = cut(services, self._page, ON_A_PAGE)
        most = max(FEWEST_SQUARES, min(SQUARES, ALL_SQUARES // max(1, len(shown))))
        return OverviewView(
            attention=attention(world),
            instances=sum(len(each.members) for each in services),
            services=len(services),
            counts=plain({word: sum(each.counts[word] for each in services) for word in Health}),
            strips=tuple(_strip(each, most) for each in shown),
            rows=tuple(_row(each, world) for each in shown),
            page=page,
            pages=pages,
            events=tuple(world.journal.newest(EVENTS)),
            registry=Card(
                source=fleet.registry.source,
                live=fleet.registry.live,
                leader=fleet.registry.leader,
                error=fleet.registry.error,
                heard_at=rounded(fleet.registry.heard_at, 3),
                index=max((each.index for each in services), default=0),
                followed=len(services),
                unfollowed=fleet.unfollowed,
            ),
        )

    def parts(self, view: OverviewView, world: World) -> Mapping[str, Part]:
        """How it is drawn."""
        card, now = view.registry, world.now
        heard = card.heard_at if not card.live or card.heard_at is None else card.heard_at // _HEARD
        drawn = {
            "overview-status": _part("status", key(view.attention.status, view.counts), view=view),
            "overview-events": _part("events", key([each.number for each in view.events]), events=view.events, now=now),
            "overview-registry": _part(
                "registry", key(msgspec.structs.replace(card, heard_at=None), heard), card=card, now=now
            ),
        }
        if view.services:
            concerns, more = view.attention.concerns, view.attention.more
            drawn["overview-attention"] = _part("attention", key(concerns, more), concerns=concerns, more=more, now=now)
            drawn["overview-pager"] = _part("pager", key(view.services, view.page, view.pages), **self._pager(view))
        for strip in view.strips:
            drawn[squares(strip.service)] = _part("strip", key(strip), id=squares(strip.service), strip=strip)
        for each in view.rows:
            points, label = _trend(world, each.name)
            drawn[row(each.name)] = _part(
                "row",
                key(each, points[-1:], label),
                id=row(each.name),
                row=each,
                points=points,
                label=label,
                charts=charts,
                now=now,
            )
        return drawn

    def order(self, view: OverviewView) -> Sequence[str]:
        """Ids of the services' rows."""
        return [row(each.name) for each in view.rows]

    def strips(self, view: OverviewView) -> Sequence[str]:
        """Ids of the services' squares."""
        return [squares(each.service) for each in view.strips]

    def heading(self, name: str) -> Mapping[str, str]:
        """Where the head of a column leads and how the table is sorted by it; numbers begin with the largest."""
        first = name if name in SORTS[:2] else f"-{name}"
        # Pressed again, it is turned round.
        sort = _turned(first) if self._sort == first else first
        now = {name: "ascending", f"-{name}": "descending"}.get(self._sort, "none")
        return {"href": link("/", self._pairs(sort, 1)), "sorted": now}

    def first_steps(self, view: OverviewView) -> Sequence[str]:
        """The commands that start a first service."""
        registry = shlex.quote(view.registry.source)
        return [
            "twostep train digits --out models/digits",
            f"twostep node --model models/digits --registry {registry}",
        ]

    def _pairs(self, sort: str, page: int) -> Pairs:
        return (("sort", "" if sort == SORTS[0] else sort), ("page", "" if page == 1 else page))

    def _pager(self, view: OverviewView) -> Mapping[str, Any]:
        places = {"before": view.page - 1, "after": view.page + 1 if view.page < view.pages else 0}
        return {
            "first": (view.page - 1) * ON_A_PAGE + 1,
            "last": (view.page - 1) * ON_A_PAGE + len(view.rows),
            "total": view.services,
            **{name: link("/", self._pairs(self._sort, page)) if page else "" for name, page in places.items()},
        }

    def _sorted(self, world: World) -> tuple[Service, ...]:
        services = tuple(world.fleet.services.values())
        name, backwards = self._sort.removeprefix("-"), self._sort.startswith("-")
        if name == "attention":
            found = sorted(services, key=lambda each: (_urgency(each), each.name))
        elif name == "name":
            found = sorted(services, key=lambda each: each.name)
        else:
            values = {each.name: _value(each, name, world) for each in services}
            known = [each for each in services if values[each.name] is not None]
            found = sorted(known, key=lambda each: values[each.name] or 0.0, reverse=backwards)
            return *found, *(each for each in services if values[each.name] is None)
        return tuple(reversed(found) if backwards else found)


def squares(service: str) -> str:
    """Return the id of a service's squares."""
    return "strip:" + row(service).removeprefix("row:")


def _strip(service: Service, most: int) -> Strip:
    ill = [each for each in service.members if each.instance.health is not Health.PASSING]
    shown = nsmallest(most, ill, key=rank)
    for each in service.members:
        if len(shown) >= most:
            break
        if each.instance.health is Health.PASSING:
            shown.append(each)
    rest = plain(service.counts)
    for each in shown:
        rest[each.instance.health] -= 1
    return Strip(
        service=service.name,
        squares=tuple((each.id, each.health.value) for each in shown),
        rest={word: count for word, count in rest.items() if count},
        passing=service.counts[Health.PASSING],
    )


def _row(service: Service, world: World) -> ServiceRow:
    versions, more = top((each.instance.version for each in service.members if each.instance.version), VERSIONS)
    return ServiceRow(
        name=service.name,
        instances=len(service.members),
        counts=plain(service.counts),
        figures=figures(world.calls.service(service.name)),
        queue=waiting(service, world.loads),
        versions=versions,
        more_versions=more,
        old=not service.live,
        # While it is live, this is a time of day and nothing to see.
        last_good_at=None if service.live else service.last_good_at,
    )


def _trend(world: World, name: str) -> tuple[charts.Points, str]:
    """What its sparkline shows: requests, or how many pass where no client reports."""
    points = world.series.points(f"rps:{name}")
    if any(value is not None for _, value in points):
        return points, "requests/s"
    return world.series.points(f"passing:{name}"), "passing instances"


def _turned(sort: str) -> str:
    return sort[1:] if sort.startswith("-") else f"-{sort}"


def _urgency(service: Service) -> int:
    counts = service.counts
    if not counts[Health.PASSING]:
        return 0
    if counts[Health.CRITICAL]:
        return 1
    if counts[Health.WARNING]:
        return 2
    return 4 if service.live and not service.suspect else 3


def _value(service: Service, name: str, world: World) -> float | None:
    if name == "instances":
        return len(service.members)
    traffic = world.calls.service(service.name)
    return {"rps": traffic.rps, "success": traffic.success, "p99": traffic.latency.p99}[name]


def _part(name: str, made_of: bytes, **variables: Any) -> Part:
    return Part(f"parts/overview_{name}.html", variables, made_of)
