"""One instance: how it is and why, what it says and what its clients say, and what may be done with it.

``/instances/SERVICE/ID`` goes on after the instance has gone: as a tombstone with what was seen of it last, as long as
its events are kept. Whatever the machine wrote itself (tags, metadata, the output of checks) is shown within bounds.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec
from markupsafe import Markup

from registry.dashboard import charts, guard, listing, rows
from registry.dashboard.address import Query, link
from registry.dashboard.calls import PairTraffic
from registry.dashboard.figures import rounded
from registry.dashboard.fold import cause
from registry.dashboard.model import Event, Kind, Member, NodeLoad
from registry.dashboard.orders import ENDS
from registry.dashboard.page import NoSuchPage
from registry.dashboard.pages import order as orders
from registry.dashboard.pages.commands import commands
from registry.dashboard.render import MOST_OUTPUT, Part, segment
from registry.dashboard.rows import Row
from registry.dashboard.world import World
from registry.model import Health
from registry.show.explain import similar
from registry.wording import printable

MOST_CHECKS = 20
MOST_META = 64
MOST_TAGS = 64
MOST_EVENTS = 10
MOST_CALLERS = 20
# Characters of one tag, and of one entry of the metadata.
_LONGEST = 1000
# What is drawn over time: the key's first part, the unit, the words, and what the value is multiplied with.
_CHARTS = (
    ("wait", "ms", "Predicted wait", 1.0),
    ("queue", "requests", "Queue", 1.0),
    ("busy", "%", "Busy", 100.0),
    ("p95", "ms", "p95 as clients see it", 1.0),
)
_WORST_FIRST = {"critical": 0, "warning": 1, "passing": 2}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check; ``output`` is cut, of ``length`` characters in all. ``whole_machine``: of all that runs there."""

    name: str
    status: str
    output: str
    length: int
    notes: str
    whole_machine: bool


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What it registered with; ``more_meta`` and ``more_tags`` are left out."""

    address: str
    url: str
    node: str
    zone: str
    version: str
    weight: int
    tags: tuple[str, ...]
    more_tags: int
    meta: tuple[tuple[str, str], ...]
    more_meta: int
    joined: float


class Ordered(msgspec.Struct, frozen=True, kw_only=True):
    """The newest order about it; ``words`` for where it stands since ``at``, ``ended`` one way or another."""

    id: str
    kind: str
    who: str
    why: str
    words: str
    at: float
    ended: bool


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """One measure over the last quarter of an hour: (seconds since the epoch, value or None), oldest first."""

    name: str
    unit: str
    words: str
    points: tuple[tuple[float, float | None], ...]


class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    """An instance. ``gone``: it is not registered any more, since ``since``; then what is not known is None.

    ``witnessed``: this dashboard saw it come to its health, else it has been so for longer. ``load``: what the node
    said last, ``line``: the same as in the list. ``curl``: (what for, command).
    """

    service: str
    id: str
    gone: bool
    health: str
    since: float
    witnessed: bool
    cause: str
    steerable: bool
    facts: Facts | None
    checks: tuple[Check, ...]
    more_checks: int
    line: Row | None
    load: NodeLoad | None
    p95: float | None
    charts: tuple[Chart, ...]
    callers: tuple[PairTraffic, ...]
    order: Ordered | None
    events: tuple[Event, ...]
    curl: tuple[tuple[str, str], ...]


class InstancePage:
    """``/instances/SERVICE/ID``."""

    template: ClassVar[str] = "instance.html"
    name: ClassVar[str] = "instances"

    def __init__(self, match: Mapping[str, str], query: Query) -> None:  # noqa: ARG002 - every page is made this way
        self._service = match["service"]
        self._id = match["id"]

    @property
    def title(self) -> str:
        """What it is called."""
        return printable(self._id, 80)

    @property
    def here(self) -> str:
        """Its address."""
        return f"/instances/{segment(self._service)}/{segment(self._id)}"

    @property
    def all_events(self) -> Markup:
        """Everything that happened to it."""
        return link("/events", [("service", self._service), ("instance", self._id)])

    @property
    def sign_in(self) -> Markup:
        """Where to sign in and come back from."""
        return link("/sign-in", [("back", self.here)])

    def view(self, world: World) -> InstanceView:
        """All there is to say of it. Raises ``NoSuchPage``."""
        service, own = self._service, self._id
        member = world.fleet.member(service, own)
        events = tuple(world.journal.newest(MOST_EVENTS, service=service, instance=own))
        if member is None:
            return self._tombstone(world, events)
        steerable = guard.steerable(member)
        return InstanceView(
            service=service,
            id=own,
            gone=False,
            health=member.health,
            since=member.since,
            witnessed=member.witnessed,
            cause=cause(member),
            steerable=steerable,
            facts=_facts(member),
            checks=_checks(member),
            more_checks=max(0, len(member.checks) - MOST_CHECKS),
            line=rows.row(member, world),
            load=_rounded(world.loads.get(service, own)),
            p95=rounded(world.calls.instance(service, own).latency.p95),
            charts=tuple(_chart(world, name, f"{service}/{own}") for name in _CHARTS),
            callers=tuple(world.calls.matrix(service, instance=own, clients=MOST_CALLERS)),
            order=_order(world, service, own),
            events=events,
            curl=commands(member.instance, steerable=steerable),
        )

    def parts(self, view: InstanceView, world: World) -> Mapping[str, Part]:
        """Each panel by itself, so that one that changes leaves the others be."""
        now = world.now
        seen = None if view.line is None else rows.seen(view.line)
        load = None if view.load is None else msgspec.structs.replace(view.load, at=0.0)
        keys: Mapping[str, object] = {
            "status": (view.gone, view.health, view.since, view.witnessed, view.cause),
            "facts": (view.facts, view.gone),
            "checks": (view.checks, view.more_checks, view.gone),
            "says": (seen, load, view.p95),
            "charts": view.charts,
            "callers": view.callers,
            "drain": view.order,
            "act": (view.gone, view.steerable, view.health == Health.DRAINING),
            "events": view.events,
            "curl": view.curl,
        }
        extra: Mapping[str, Mapping[str, object]] = {
            "charts": {"drawn": [charts.timeline(each.points, each.unit, each.words) for each in view.charts]},
            "act": {"confirm": {kind: self._confirm(kind) for kind in ("drain", "undrain")}},
            "events": {"all_events": self.all_events},
        }
        return {
            f"instance-{name}": Part(
                f"parts/instance_{name}.html", {"view": view, "now": now, **extra.get(name, {})}, key
            )
            for name, key in keys.items()
        }

    def order(self, view: InstanceView) -> Sequence[str]:  # noqa: ARG002 - as every page
        """No rows that come and go."""
        return ()

    def _confirm(self, kind: str) -> Markup:
        return link("/confirm", [("kind", kind), ("id", listing.key(self._service, self._id))])

    def _tombstone(self, world: World, events: tuple[Event, ...]) -> InstanceView:
        """What is left of one that is not registered. Raises ``NoSuchPage``."""
        service, own = self._service, self._id
        if not events:
            raise NoSuchPage(_unknown(world, service, own))
        last = next((each for each in events if each.kind is Kind.GONE), events[0])
        return InstanceView(
            service=service,
            id=own,
            gone=True,
            health=next((each.health for each in events if each.health), ""),
            since=last.at,
            witnessed=last.kind is Kind.GONE,
            cause=last.words,
            steerable=False,
            facts=None,
            checks=(),
            more_checks=0,
            line=None,
            load=None,
            p95=None,
            charts=tuple(_chart(world, name, f"{service}/{own}") for name in _CHARTS),
            callers=(),
            order=_order(world, service, own),
            events=events,
            curl=(),
        )


def _unknown(world: World, service: str, own: str) -> str:
    if world.fleet.registry.heard_at is None:
        return "The registry has not answered yet, so nothing is known of any instance: try again in a moment."
    known = world.fleet.services.get(service)
    if known is None:
        near = similar(service, world.fleet.services)
        hint = f" Did you mean {' or '.join(printable(each, 80) for each in near)}?" if near else ""
        return f"There is no service {printable(service, 80)} here.{hint} All instances are at /instances."
    near = similar(own, known.by_id)
    hint = f" Did you mean {' or '.join(printable(each, 80) for each in near)}?" if near else ""
    return f"{printable(service, 80)} has had no instance {printable(own, 80)} for as long as events are kept.{hint}"


def _facts(member: Member) -> Facts:
    instance = member.instance
    return Facts(
        address=instance.endpoint,
        url=instance.url[:_LONGEST],
        node=instance.node,
        zone=instance.zone,
        version=instance.version,
        weight=instance.weight,
        tags=tuple(each[:_LONGEST] for each in instance.tags[:MOST_TAGS]),
        more_tags=max(0, len(instance.tags) - MOST_TAGS),
        meta=tuple((name[:_LONGEST], value[:_LONGEST]) for name, value in sorted(instance.meta.items())[:MOST_META]),
        more_meta=max(0, len(instance.meta) - MOST_META),
        joined=member.joined,
    )


def _checks(member: Member) -> tuple[Check, ...]:
    """The worst first, within bounds."""
    worst = sorted(member.checks, key=lambda each: _WORST_FIRST.get(each.status, 0))
    return tuple(
        Check(
            name=(each.name or each.check_id)[:_LONGEST],
            status=each.status if each.status in _WORST_FIRST else "critical",
            output=each.output[:MOST_OUTPUT],
            length=len(each.output),
            notes=each.notes[:_LONGEST],
            whole_machine=not each.service_id,
        )
        for each in worst[:MOST_CHECKS]
    )


def _rounded(load: NodeLoad | None) -> NodeLoad | None:
    if load is None:
        return None
    return msgspec.structs.replace(
        load,
        wait_ms=rounded(load.wait_ms),
        inflight=rounded(load.inflight),
        queue=rounded(load.queue),
        capacity_rps=rounded(load.capacity_rps),
        utilization=rounded(load.utilization, 3),
        rps=rounded(load.rps),
    )


def _chart(world: World, drawn: tuple[str, str, str, float], key: str) -> Chart:
    name, unit, words, factor = drawn
    points = world.series.points(f"{name}:{key}")
    return Chart(
        name=name,
        unit=unit,
        words=words,
        points=tuple((at, None if value is None else round(value * factor, 2)) for at, value in points),
    )


def _order(world: World, service: str, own: str) -> Ordered | None:
    found = world.drains.of(service, own)
    if found is None:
        return None
    step = found.steps[own]
    return Ordered(
        id=found.id,
        kind=found.kind,
        who=found.who,
        why=found.why,
        words=orders.words(found.kind, step),
        at=step.at,
        ended=step.stage in ENDS,
    )
