"""One service, ``/services/NAME``: how it fares, how long it takes, where it runs, who calls it.

Latencies and rates are what clients report; where none does, there are dashes and the page says how to turn reports
on. Tables are bounded, however many zones, versions, callers and instances there are. A service that has lost its last
instance keeps its page while the registry's list is remembered; after that the address says what there is instead.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from heapq import nsmallest
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from registry.dashboard import charts, rows
from registry.dashboard.address import Query, link, row
from registry.dashboard.figures import Figures, figures, inside, key, plain, rank, rounded, top, waiting
from registry.dashboard.model import Caller, Event, Quantiles
from registry.dashboard.page import BadAddress, NoSuchPage
from registry.dashboard.pages import equivalents
from registry.dashboard.pages.attention import Status, sentence
from registry.dashboard.render import Part, ago
from registry.dashboard.world import World
from registry.model import Health
from registry.query import Query as LookUp
from registry.show.explain import similar
from registry.wording import printable

# Characters of a service's name that an address still carries, percent-encoded.
LONGEST = 1024
INSTANCES = 20
CALLERS = 20
GROUPS = 20
POLICIES = 5
EVENTS = 10
# Names of other services that a wrong address is answered with.
_NAMES = 10
# What is drawn over the last 15 minutes: series, unit, heading.
LINES = (("rps", "requests/s", "Requests"), ("p95", "ms", "p95 latency"), ("passing", "instances", "Passing instances"))


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The instances of one zone or version; ``name`` is empty for those that say none."""

    name: str
    instances: int
    counts: Mapping[str, int]


class Groups(msgspec.Struct, frozen=True, kw_only=True):
    """The largest groups, and how many more there are."""

    shown: tuple[Group, ...]
    more: int


class CallerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One client. ``latency`` in ms; ``leaves_out`` of ``instances``; ``late``: its last report is a while ago."""

    client: str
    policy: str
    rps: float | None
    success: float | None
    latency: Quantiles
    in_flight: int
    leaves_out: int
    instances: int
    heard_at: float
    late: bool


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``in_flight_nodes``: what all nodes say; ``queue``: requests that wait at them.

    ``histogram``: latencies, (upper edge in ms, count). ``lines``: points (seconds, value) by what they are of.
    ``policies``: what clients use, and how many of them. ``look_up``: commands that ask for the same list.
    """

    name: str
    status: Status
    counts: Mapping[str, int]
    instances: int
    index: int
    live: bool
    suspect: bool
    error: str
    last_good_at: float | None
    figures: Figures
    in_flight_nodes: float | None
    queue: float | None
    histogram: tuple[tuple[float, int], ...]
    lines: Mapping[str, tuple[tuple[float, float | None], ...]]
    zones: Groups
    versions: Groups
    policies: tuple[tuple[str, int], ...]
    more_policies: int
    callers: tuple[CallerRow, ...]
    more_callers: int
    rows: tuple[rows.Row, ...]
    events: tuple[Event, ...]
    look_up: tuple[str, ...]


class ServicePage:
    """``/services/NAME``. Raises ``BadAddress`` when the name is longer than any address."""

    template: ClassVar[str] = "service.html"
    name: ClassVar[str] = "overview"

    def __init__(self, match: Mapping[str, str], _query: Query) -> None:
        self._service = match["service"]
        if len(self._service) > LONGEST:
            raise BadAddress(f"A service's name is at most {LONGEST:,} characters long.")

    @property
    def here(self) -> str:
        """Its address."""
        return f"/services/{quote(self._service, safe='', errors='replace')}"

    @property
    def title(self) -> str:
        """The service's name."""
        return printable(self._service, 80)

    def view(self, world: World) -> ServiceView:
        """What it says. Raises ``NoSuchPage``."""
        service = world.fleet.services.get(self._service)
        if service is None:
            raise NoSuchPage(missing(self._service, world))
        name, source = service.name, world.fleet.registry.source
        callers = sorted(world.calls.callers(name), key=lambda each: (-(each.rps or 0.0), each.client))
        talking = [each.policy for each in callers if each.policy and world.now - each.heard_at <= rows.LATE]
        policies, more_policies = top(talking, POLICIES)
        look_up = LookUp(name)
        ours, heard = inside(service, world.loads)
        return ServiceView(
            name=name,
            status=sentence(service),
            counts=plain(service.counts),
            instances=len(service.members),
            index=service.index,
            live=service.live,
            suspect=service.suspect,
            error=service.error,
            last_good_at=rounded(service.last_good_at, 3),
            figures=figures(world.calls.service(name)),
            in_flight_nodes=rounded(ours) if heard else None,
            queue=waiting(service, world.loads),
            histogram=tuple((rounded(edge, 2) or 0.0, count) for edge, count in world.calls.histogram(name)),
            lines={series: _points(world, f"{series}:{name}") for series, _, _ in LINES},
            zones=groups((each.instance.zone, each.instance.health) for each in service.members),
            versions=groups((each.instance.version, each.instance.health) for each in service.members),
            policies=policies,
            more_policies=more_policies,
            callers=tuple(_caller(each, world.now) for each in callers[:CALLERS]),
            more_callers=max(0, len(callers) - CALLERS),
            rows=tuple(rows.row(each, world) for each in nsmallest(INSTANCES, service.members, key=rank)),
            events=tuple(world.journal.newest(EVENTS, service=name)),
            look_up=tuple(filter(None, (equivalents.twostep(look_up, source), equivalents.curl(look_up, source)))),
        )

    def parts(self, view: ServiceView, world: World) -> Mapping[str, Part]:
        """How it is drawn."""
        now = world.now
        listed = (view.live, view.suspect, view.error, None if view.live else view.last_good_at)
        said = (view.figures, view.in_flight_nodes, view.queue)
        late = [each.heard_at if each.late else 0 for each in view.callers]
        callers = [msgspec.structs.replace(each, heard_at=0.0) for each in view.callers]
        drawn = {
            "service-status": _part("status", key(view.status, view.counts, listed), view=view, now=now),
            "service-figures": _part("figures", key(said), view=view),
            "service-histogram": _part(
                "histogram",
                key(view.histogram, view.figures.latency),
                buckets=view.histogram,
                marks=view.figures.latency,
                charts=charts,
            ),
            "service-zones": _part("groups", key(view.zones), **self._groups("zone", "Zones", view.zones)),
            "service-versions": _part(
                "groups", key(view.versions), **self._groups("version", "Versions", view.versions)
            ),
            "service-policies": _part(
                "policies", key(view.policies, view.more_policies), policies=view.policies, more=view.more_policies
            ),
            "service-callers": _part("callers", key(callers, late, view.more_callers), view=view, now=now),
            "service-more": _part("more", key(view.instances), view=view, shown=len(view.rows)),
            "service-events": _part("events", key([each.number for each in view.events]), events=view.events, now=now),
        }
        for series, unit, heading in LINES:
            points = view.lines[series]
            drawn[f"service-{series}"] = _part(
                "line",
                key(series, points[-1:], len(points)),
                id=f"service-{series}",
                points=points,
                unit=unit,
                heading=heading,
                charts=charts,
            )
        for each in view.rows:
            name = row(each.service, each.id)
            drawn[name] = _part("row", key(rows.seen(each)), id=name, row=each, now=now)
        return drawn

    def order(self, view: ServiceView) -> Sequence[str]:
        """Ids of the instances' rows."""
        return [row(each.service, each.id) for each in view.rows]

    def _groups(self, field: str, heading: str, found: Groups) -> Mapping[str, Any]:
        place = {"id": f"service-{field}s", "service": self._service, "field": field}
        return place | {"heading": heading, "found": found, "link": link}


def missing(name: str, world: World) -> str:
    """Say what there is instead of a service that is not there."""
    fleet = world.fleet
    if fleet.registry.heard_at is None:
        return "The registry has not answered yet, so nothing is known of any service; look again in a moment."
    words = f"There is no service called {printable(name, 80) or '(nothing)'} in the registry."
    last = world.journal.newest(1, service=name) if name else []
    if last:
        words += f" The last that was heard of it, {ago(last[0].at, world.now)}: {printable(last[0].words, 200)}."
    names = sorted(fleet.services)
    near = similar(name, names)
    if near:
        words += f" Did you mean {' or '.join(printable(each, 80) for each in near)}?"
    elif names:
        more = f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
        words += f" There are: {', '.join(printable(each, 80) for each in names[:_NAMES])}{more}."
    else:
        words += " No service is registered yet."
    if fleet.unfollowed:
        words += f" {fleet.unfollowed:,} more are registered and not followed by this dashboard."
    return words


def groups(said: Iterable[tuple[str, Health]]) -> Groups:
    """Count members by what they say, (word, health) each; the largest groups come first."""
    found: dict[str, dict[Health, int]] = {}
    for (name, health), count in Counter(said).items():
        found.setdefault(name, dict.fromkeys(Health, 0))[health] += count
    ordered = sorted(found.items(), key=lambda each: (-sum(each[1].values()), each[0]))
    shown = (
        Group(name=name, instances=sum(counts.values()), counts=plain(counts)) for name, counts in ordered[:GROUPS]
    )
    return Groups(shown=tuple(shown), more=max(0, len(ordered) - GROUPS))


def _caller(each: Caller, now: float) -> CallerRow:
    latency = each.latency
    return CallerRow(
        client=each.client,
        policy=each.policy,
        rps=rounded(each.rps, 2),
        success=rounded(each.success, 4, down=True),
        latency=Quantiles(p50=rounded(latency.p50), p95=rounded(latency.p95), p99=rounded(latency.p99)),
        in_flight=each.in_flight,
        leaves_out=len(each.ejected),
        instances=each.instances,
        heard_at=round(each.heard_at, 3),
        late=now - each.heard_at > rows.LATE,
    )


def _points(world: World, name: str) -> tuple[tuple[float, float | None], ...]:
    return tuple((round(at, 1), rounded(value, 2)) for at, value in world.series.points(name))


def _part(name: str, made_of: bytes, **variables: Any) -> Part:
    return Part(f"parts/service_{name}.html", variables, made_of)
