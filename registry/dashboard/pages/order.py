"""One order and how far each of its instances has come: ``/orders/ID``, live until the last one has ended.

Instances stand in the order in which they were chosen and keep their places; what went wrong is said on top, for in an
order about a thousand it would be on the eighth page.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec
from markupsafe import Markup

from registry.dashboard.address import MOST, Query, address, cut, link, row, whole
from registry.dashboard.orders import ENDS, Order, Stage, Step
from registry.dashboard.page import NoSuchPage
from registry.dashboard.render import Part, segment
from registry.dashboard.world import World
from registry.wording import printable

PATH = "/orders"
ON_A_PAGE = 100
# Failures that are named on top.
MOST_NAMED = 10
_FAILED = (Stage.REFUSED, Stage.OVERDUE, Stage.GONE)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One instance: ``words`` for where it stands since ``at``; ``took`` seconds from the order to its end, if it has.

    ``inflight``: requests inside when it last said.
    """

    id: str
    stage: str
    words: str
    inflight: int | None
    at: float
    took: float | None


class OrderView(msgspec.Struct, frozen=True, kw_only=True):
    """An order: ``done`` of ``total`` as wanted, ``ended`` one way or another; ``lines`` are one page of it.

    ``failed``: those that went wrong, at most ten of ``failures``. ``ended_at`` is None while it goes on.
    """

    id: str
    kind: str
    service: str
    who: str
    why: str
    begun_at: float
    ended_at: float | None
    total: int
    done: int
    ended: int
    result: str
    failures: int
    failed: tuple[Line, ...]
    lines: tuple[Line, ...]
    page: int
    pages: int


class OrderPage:
    """``/orders/ID?page=``."""

    template: ClassVar[str] = "order.html"
    name: ClassVar[str] = "instances"

    def __init__(self, match: Mapping[str, str], query: Query) -> None:
        self._id = match["id"]
        self._page = whole(query, "page", 1)

    @property
    def title(self) -> str:
        """What it is called."""
        return f"Order {printable(self._id, 20)}"

    @property
    def here(self) -> str:
        """Its address."""
        return address(f"{PATH}/{self._segment}", [("page", self._page if self._page > 1 else "")])

    def at(self, page: int) -> Markup:
        """Another page of it."""
        return link(f"{PATH}/{self._segment}", [("page", page if page > 1 else "")])

    def instances(self, service: str) -> Markup:
        """The list of a service's instances."""
        return link("/instances", [("service", service[:MOST])])

    def view(self, world: World) -> OrderView:
        """How it stands. Raises ``NoSuchPage``."""
        order = world.drains.order(self._id)
        if order is None:
            raise NoSuchPage(
                f"There is no order {printable(self._id, 20)}, or no more: the last hundred are kept until the "
                "dashboard is started again. What came of it is among the events."
            )
        stages = Counter(each.stage for each in order.steps.values())
        shown, page, pages = cut(tuple(order.steps.items()), self._page, ON_A_PAGE)
        failed = [(name, each) for name, each in order.steps.items() if each.stage in _FAILED]
        return OrderView(
            id=order.id,
            kind=order.kind,
            service=order.service,
            who=order.who,
            why=order.why,
            begun_at=order.begun_at,
            ended_at=max((each.at for each in order.steps.values()), default=order.begun_at) if order.ended else None,
            total=len(order.steps),
            done=stages[Stage.DONE],
            ended=sum(stages[each] for each in ENDS),
            result=result(order, stages),
            failures=len(failed),
            failed=tuple(_line(order, name, each) for name, each in failed[:MOST_NAMED]),
            lines=tuple(_line(order, name, each) for name, each in shown),
            page=page,
            pages=pages,
        )

    def parts(self, view: OrderView, world: World) -> Mapping[str, Part]:
        """How far it is, and a row for each instance."""
        told = (view.result, view.ended, view.total, view.failures, view.failed, view.ended_at)
        found = {
            row(view.service, each.id): Part(
                "parts/order_row.html",
                {"line": each, "id": row(view.service, each.id), "service": view.service, "now": world.now},
                each,
            )
            for each in view.lines
        }
        return {"order-progress": Part("parts/order_progress.html", {"view": view, "now": world.now}, told), **found}

    def order(self, view: OrderView) -> Sequence[str]:
        """Rows in the order in which they were chosen."""
        return tuple(row(view.service, each.id) for each in view.lines)

    @property
    def _segment(self) -> str:
        return segment(self._id)


def words(kind: str, step: Step) -> str:
    """Say where one instance of an order of this kind, drain or undrain, stands."""
    drain = kind == "drain"
    reason = f": {step.reason}" if step.reason else ""
    return {
        Stage.WAITING: "waits for its turn",
        Stage.ASKED: "is asked to drain" if drain else "is asked to come back",
        Stage.DONE: "is out: it takes no new requests and is empty" if drain else "is back: it takes requests again",
        Stage.DRAINING: f"is {step.words}",
        Stage.REFUSED: f"refused{reason}",
        Stage.GONE: f"is gone{reason}",
        Stage.OVERDUE: f"is overdue{reason}",
    }[step.stage]


def result(order: Order, stages: Mapping[Stage, int]) -> str:
    """Say how an order stands, in one sentence."""
    total, done = len(order.steps), stages[Stage.DONE]
    place = "out" if order.kind == "drain" else "back"
    wrong = ", ".join(f"{stages[each]} {each}" for each in _FAILED if stages[each])
    if order.ended and done == total:
        return f"All {total} are {place}." if total != 1 else f"It is {place}."
    told = f"{done} of {total} {'is' if done == 1 else 'are'} {place}" + (f"; {wrong}" if wrong else "")
    return f"Ended: {told}." if order.ended else f"{told}."


def _line(order: Order, name: str, step: Step) -> Line:
    return Line(
        id=name,
        stage=step.stage,
        words=words(order.kind, step),
        inflight=step.inflight,
        at=step.at,
        took=round(step.at - order.begun_at, 1) if step.stage in ENDS else None,
    )
