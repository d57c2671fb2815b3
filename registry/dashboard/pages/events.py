"""What happened, newest first, a hundred to a page: ``/events``.

Events never change, so a row is drawn once; new ones come as a new order of rows. Older pages are addressed by the
number of the event before which they begin, for page numbers would move under whoever reads.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec
from markupsafe import Markup

from registry.dashboard import journal
from registry.dashboard.address import Pairs, Query, address, link, text, whole, words
from registry.dashboard.model import SEVERITY, Event, Kind
from registry.dashboard.render import Part
from registry.dashboard.world import World

ON_A_PAGE = 100
# Events that an export holds, at most.
MOST = 5000
PATH = "/events"
KINDS = tuple(each.value for each in Kind)
HEALTH = tuple(each.value for each in SEVERITY)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the list is narrowed to; empty narrows nothing. ``before``: only events with a smaller number."""

    q: str = ""
    kind: tuple[str, ...] = ()
    service: str = ""
    instance: str = ""
    health: str = ""
    before: int | None = None

    @property
    def narrowed(self) -> bool:
        """Whether anything is left out."""
        return bool(self.q or self.kind or self.service or self.instance or self.health)


class EventsView(msgspec.Struct, frozen=True, kw_only=True):
    """One page of events. ``older``: the number to ask for the next page with, None when this is the last one.

    ``ever``: anything has happened at all.
    """

    asked: Asked
    events: tuple[Event, ...]
    older: int | None
    ever: bool


class Chip(msgspec.Struct, frozen=True):
    """A kind of events as a switch: ``href`` turns it the other way."""

    name: str
    href: Markup
    on: bool


class Events:
    """``/events?q=&kind=&service=&instance=&health=&before=``; ``kind`` may be repeated."""

    template: ClassVar[str] = "events.html"
    name: ClassVar[str] = "events"
    title = "Events"

    def __init__(self, match: Mapping[str, str], query: Query) -> None:  # noqa: ARG002 - every page is made this way
        self.asked = Asked(
            q=text(query, "q"),
            kind=words(query, "kind", KINDS),
            service=text(query, "service"),
            instance=text(query, "instance"),
            health=next(iter(words(query, "health", HEALTH)), ""),
            before=whole(query, "before", 0) or None,
        )

    @property
    def here(self) -> str:
        """Its address."""
        return address(PATH, [*self._pairs(), ("before", self.asked.before)])

    @property
    def csv(self) -> Markup:
        """Where everything that matches is, as CSV; not this page of it alone."""
        return link("/events.csv", self._pairs())

    @property
    def newest(self) -> Markup:
        """The first page of the same."""
        return link(PATH, self._pairs())

    @property
    def chips(self) -> tuple[Chip, ...]:
        """Kinds of events, to choose from."""
        return tuple(Chip(each, link(PATH, self._pairs(toggled=each)), each in self.asked.kind) for each in KINDS)

    def older(self, before: int) -> Markup:
        """The page of events before a number."""
        return link(PATH, [*self._pairs(), ("before", before)])

    def matching(self, world: World) -> Sequence[Event]:
        """Everything that matches, newest first, for an export; bounded."""
        return self._newest(world, MOST)

    def view(self, world: World) -> EventsView:
        """One page of events, and whether there is another."""
        found = tuple(self._newest(world, ON_A_PAGE + 1))
        shown = found[:ON_A_PAGE]
        return EventsView(
            asked=self.asked,
            events=shown,
            older=shown[-1].number if len(found) > ON_A_PAGE else None,
            ever=bool(found or world.journal.newest(1)),
        )

    def parts(self, view: EventsView, world: World) -> Mapping[str, Part]:
        """A row for each event."""
        return {
            _row(each): Part("parts/events_row.html", {"event": each, "now": world.now}, each.number)
            for each in view.events
        }

    def order(self, view: EventsView) -> Sequence[str]:
        """Rows, the newest first."""
        return tuple(_row(each) for each in view.events)

    def _newest(self, world: World, limit: int) -> Sequence[Event]:
        asked = self.asked
        return world.journal.newest(
            limit,
            before=asked.before,
            kind=tuple(Kind(each) for each in asked.kind),
            service=asked.service,
            instance=asked.instance,
            q=asked.q,
            health=asked.health,
        )

    def _pairs(self, toggled: str = "") -> Pairs:
        asked = self.asked
        kinds = [each for each in KINDS if (each in asked.kind) != (each == toggled)]
        return [
            ("q", asked.q),
            *(("kind", each) for each in kinds),
            ("service", asked.service),
            ("instance", asked.instance),
            ("health", asked.health),
        ]


def _row(event: Event) -> str:
    return f"row:{event.number}"


def as_csv(query: Query, world: World) -> str:
    """Return everything that matches an address's query as CSV. Raises ``BadAddress``."""
    return journal.as_csv(Events({}, query).matching(world))
