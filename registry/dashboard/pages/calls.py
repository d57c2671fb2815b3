"""Who calls whom, as the clients themselves report it: ``/calls``.

A report comes every few seconds, so a client that has been quiet for longer than three of them is called silent: it
may have ended, or be cut off from this dashboard only. Its figures stay, for they are the last it said. For one service
there is a table of clients by instances too, of which those pairs come first in which something is not well.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import msgspec
from markupsafe import Markup

from registry.dashboard.address import Query, address, cut, link, row, text, whole
from registry.dashboard.calls import PairTraffic
from registry.dashboard.model import Caller, Quantiles
from registry.dashboard.render import Part
from registry.dashboard.wire import PERIOD
from registry.dashboard.world import World

ON_A_PAGE = 100
MOST_PAIRS = 50
# Clients and instances that pairs are made of: the busiest, and of instances those first that somebody leaves out.
MOST_ACROSS = 10
MOST_NAMED = 5
MOST_SERVICES = 50
# Seconds without a report after which a client is silent.
SILENT = 3 * PERIOD
PATH = "/calls"


class CallerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One client of one service. Latencies in ms, rates a second.

    It leaves out ``leaves_out`` of ``instances``, of which some are ``named``.
    """

    client: str
    service: str
    policy: str
    heard_at: float
    silent: bool
    rps: float | None
    success: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    in_flight: int
    retries: float
    hedges: float
    throttled: float
    budget_left: float | None
    leaves_out: int
    instances: int
    named: tuple[str, ...]


class PairRow(msgspec.Struct, frozen=True, kw_only=True):
    """How one client fares with one instance; ``state`` is the breaker's word, empty when it is in use."""

    client: str
    instance: str
    rps: float | None
    success: float | None
    p50: float | None
    p99: float | None
    in_flight: int
    state: str


class CallsView(msgspec.Struct, frozen=True, kw_only=True):
    """One page of callers.

    ``found`` and ``silent`` count those of this service on all pages, ``total`` those of any; ``more_pairs``: how many
    there are besides ``pairs``.
    """

    service: str
    page: int
    pages: int
    found: int
    silent: int
    total: int
    services: tuple[str, ...]
    callers: tuple[CallerRow, ...]
    pairs: tuple[PairRow, ...]
    more_pairs: int


class CallsPage:
    """``/calls?service=&page=``."""

    template: ClassVar[str] = "calls.html"
    name: ClassVar[str] = "calls"
    title = "Calls"

    def __init__(self, match: Mapping[str, str], query: Query) -> None:  # noqa: ARG002 - every page is made this way
        self._service = text(query, "service")
        self._page = whole(query, "page", 1)

    @property
    def here(self) -> str:
        """Its address."""
        return address(PATH, [("service", self._service), ("page", self._page if self._page > 1 else "")])

    def at(self, service: str, page: int = 1) -> Markup:
        """Another page of it."""
        return link(PATH, [("service", service), ("page", page if page > 1 else "")])

    def view(self, world: World) -> CallsView:
        """Callers, and for one service how each fares with each instance."""
        everyone = _latest(world.calls.callers())
        found = tuple(each for each in everyone if not self._service or each.service == self._service)
        shown, page, pages = cut(found, self._page, ON_A_PAGE)
        pairs = self._pairs(world)
        known = sum(each.instances for each in found if self._service and not _silent(each, world.now))
        return CallsView(
            service=self._service,
            page=page,
            pages=pages,
            found=len(found),
            silent=sum(_silent(each, world.now) for each in found),
            total=len(everyone),
            services=tuple(sorted({each.service for each in everyone}))[:MOST_SERVICES],
            callers=tuple(_caller(each, world.now) for each in shown),
            pairs=tuple(_pair(each) for each in pairs),
            more_pairs=max(0, known - len(pairs)),
        )

    def parts(self, view: CallsView, world: World) -> Mapping[str, Part]:
        """How many there are, a row for each caller, and the table of pairs."""
        said = (view.found, view.silent, view.total, view.page, view.pages, view.services)
        drawn = {
            "summary": Part("parts/calls_summary.html", {"view": view, "page": self}, said),
            "pairs": Part("parts/calls_pairs.html", {"view": view}, (view.pairs, view.more_pairs, bool(view.found))),
        }
        for each in view.callers:
            name = _row(each)
            drawn[name] = Part("parts/calls_row.html", {"id": name, "caller": each, "now": world.now}, each)
        return drawn

    def order(self, view: CallsView) -> Sequence[str]:
        """Rows, by service and client."""
        return tuple(_row(each) for each in view.callers)

    def _pairs(self, world: World) -> Sequence[PairTraffic]:
        if not self._service:
            return ()
        found = world.calls.matrix(self._service, clients=MOST_ACROSS, instances=MOST_ACROSS)
        return sorted(found, key=_worth)[:MOST_PAIRS]


def _latest(callers: Iterable[Caller]) -> Sequence[Caller]:
    """One of each name: a client that moved to another host is remembered where it was, too."""
    found: dict[tuple[str, str], Caller] = {}
    for each in callers:
        key = (each.service, each.client)
        if key not in found or found[key].heard_at < each.heard_at:
            found[key] = each
    return tuple(found.values())


def _row(caller: CallerRow) -> str:
    return row(caller.service, caller.client)


def _silent(caller: Caller, now: float) -> bool:
    return now - caller.heard_at > SILENT


def _caller(caller: Caller, now: float) -> CallerRow:
    p50, p95, p99 = _latencies(caller.latency)
    return CallerRow(
        client=caller.client,
        service=caller.service,
        policy=caller.policy,
        heard_at=caller.heard_at,
        silent=_silent(caller, now),
        rps=_round(caller.rps),
        success=_share(caller.success),
        p50=p50,
        p95=p95,
        p99=p99,
        in_flight=caller.in_flight,
        retries=round(caller.retries_per_s, 2),
        hedges=round(caller.hedges_per_s, 2),
        throttled=round(caller.throttled_per_s, 2),
        budget_left=_round(caller.budget_left, 1),
        leaves_out=len(caller.ejected),
        instances=caller.instances,
        named=caller.ejected[:MOST_NAMED],
    )


def _pair(pair: PairTraffic) -> PairRow:
    return PairRow(
        client=pair.client,
        instance=pair.instance,
        rps=_round(pair.rps),
        success=_share(pair.success),
        p50=_round(pair.p50, 1),
        p99=_round(pair.p99, 1),
        in_flight=pair.in_flight,
        state=pair.state,
    )


def _worth(pair: PairTraffic) -> tuple[bool, float, str, str]:
    """What is left out first, then the busiest."""
    return not pair.state, -(pair.rps or 0.0), pair.client, pair.instance


def _latencies(found: Quantiles) -> tuple[float | None, float | None, float | None]:
    return _round(found.p50, 1), _round(found.p95, 1), _round(found.p99, 1)


def _round(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)


def _share(value: float | None) -> float | None:
    # Down: what is not all of it must not look so.
    return None if value is None else int(value * 10_000) / 10_000
