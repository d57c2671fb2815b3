"""Every instance, filtered, sorted, a hundred to a page: ``/instances``, and the same as CSV.

Rows, the caption and the chips are live; what an operator may do stands round them, for live parts are the same for
everybody who looks.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec
from markupsafe import Markup

from registry.dashboard import guard, listing, rows
from registry.dashboard.address import Query, address, cut, link
from registry.dashboard.address import row as row_id
from registry.dashboard.listing import ATTENTION, FIGURES, HEALTH, Asked, Facets, Found
from registry.dashboard.render import Part
from registry.dashboard.rows import Row
from registry.dashboard.world import World

PATH = "/instances"
# Rows of an export, at most.
MOST = 10_000
# Characters of what a box sends: addresses hold a hundred of them.
_LONGEST_KEY = 800


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """All that match and that an order can be about: how many, and the mark of the set as it is shown."""

    count: int
    fingerprint: str


class InstancesView(msgspec.Struct, frozen=True, kw_only=True):
    """One page of instances: ``rows`` are the ``first`` to ``last`` of ``matching``; the fleet has ``total``.

    ``drain``, ``undrain``: what an order on all that match would be about, while one service is chosen.
    """

    asked: Asked
    total: int
    matching: int
    page: int
    pages: int
    first: int
    last: int
    rows: tuple[Row, ...]
    facets: Facets
    drain: Batch | None = None
    undrain: Batch | None = None


class Chip(msgspec.Struct, frozen=True, kw_only=True):
    """A word of health as a switch: ``href`` turns it the other way."""

    word: str
    count: int
    href: Markup
    on: bool


class Instances:
    """``/instances?q=&service=&zone=&health=&version=&tag=&sort=&page=``; ``health`` may be repeated."""

    template: ClassVar[str] = "instances.html"
    name: ClassVar[str] = "instances"
    title = "Instances"

    def __init__(self, match: Mapping[str, str], query: Query) -> None:  # noqa: ARG002 - every page is made this way
        self.asked = listing.read(query)

    @property
    def here(self) -> str:
        """Its address."""
        return address(PATH, self.asked.pairs())

    @property
    def csv(self) -> Markup:
        """Where everything that matches is as CSV; not this page of it alone."""
        return link("/instances.csv", msgspec.structs.replace(self.asked, page=1).pairs())

    def at(self, page: int) -> Markup:
        """Another page of the same."""
        return link(PATH, msgspec.structs.replace(self.asked, page=page).pairs())

    def sorted_by(self, sort: str) -> Markup:
        """The same sorted by a column: figures with the largest first, anything that is sorted so already reversed."""
        begin = f"-{sort}" if sort in FIGURES else sort
        turned = sort if begin.startswith("-") else f"-{sort}"
        wanted = turned if self.asked.sort == begin else begin
        return link(PATH, msgspec.structs.replace(self.asked, sort=wanted, page=1).pairs())

    def direction(self, sort: str) -> str:
        """What ``aria-sort`` says of a column; empty when it is not sorted by it."""
        if self.asked.sort.removeprefix("-") != sort:
            return ""
        return "descending" if self.asked.sort.startswith("-") else "ascending"

    @property
    def by_attention(self) -> Markup:
        """The same in the order in which it needs attention."""
        return link(PATH, msgspec.structs.replace(self.asked, sort=ATTENTION, page=1).pairs())

    def view(self, world: World) -> InstancesView:
        """One page of what matches."""
        asked = self.asked
        found = listing.find(world.fleet, asked, world.shelf)
        members = listing.arranged(world, asked)
        shown, page, pages = cut(members, asked.page, listing.ON_A_PAGE)
        first = (page - 1) * listing.ON_A_PAGE
        drain, undrain = (_batch(found, kind) if asked.service else None for kind in ("drain", "undrain"))
        return InstancesView(
            asked=asked,
            total=found.total,
            matching=len(members),
            page=page,
            pages=pages,
            first=first + 1 if shown else 0,
            last=first + len(shown),
            rows=tuple(rows.row(each, world) for each in shown),
            facets=found.facets,
            drain=drain,
            undrain=undrain,
        )

    def parts(self, view: InstancesView, world: World) -> Mapping[str, Part]:
        """A row for each instance; the numbers round them."""
        chips = tuple(self._chip(word, view.facets.health[word]) for word in HEALTH)
        caption = (view.first, view.last, view.matching, view.total, view.asked.sort)
        batches = {"drain": view.drain, "undrain": view.undrain}
        found = {
            row_id(each.service, each.id): Part(
                "parts/instances_row.html",
                {"row": each, "id": row_id(each.service, each.id), "key": _key(each), "now": world.now},
                rows.seen(each),
            )
            for each in view.rows
        }
        return {
            **found,
            "instances-chips": Part("parts/instances_chips.html", {"chips": chips}, chips),
            "instances-caption": Part("parts/instances_caption.html", {"view": view}, caption),
            "instances-all": Part(
                "parts/instances_all.html", {**batches, "to": self._confirm(view)}, (view.drain, view.undrain)
            ),
        }

    def order(self, view: InstancesView) -> Sequence[str]:
        """Rows as they are sorted."""
        return tuple(row_id(each.service, each.id) for each in view.rows)

    def lines(self, world: World) -> tuple[Row, ...]:
        """Everything that matches, for an export; bounded."""
        return tuple(rows.row(each, world) for each in listing.arranged(world, self.asked)[:MOST])

    def _chip(self, word: str, count: int) -> Chip:
        chosen = self.asked.health
        health = tuple(each for each in HEALTH if (each in chosen) != (each == word))
        asked = msgspec.structs.replace(self.asked, health=health, page=1)
        return Chip(word=word, count=count, href=link(PATH, asked.pairs()), on=word in chosen)

    def _confirm(self, view: InstancesView) -> Mapping[str, Markup]:
        """Where orders on all that match are confirmed."""
        return {
            kind: link(
                "/confirm",
                [("kind", kind), ("all", 1), ("fingerprint", batch.fingerprint), *self.asked.narrowing()],
            )
            for kind, batch in (("drain", view.drain), ("undrain", view.undrain))
            if batch is not None
        }


def as_csv(query: Query, world: World) -> str:
    """Return everything that a filter finds as CSV, at most ``MOST`` rows. Raises ``BadAddress``."""
    return rows.as_csv(Instances({}, query).lines(world))


def _batch(found: Found, kind: str) -> Batch:
    ids = listing.targets(found.members, kind)
    return Batch(count=len(ids), fingerprint=guard.fingerprint(ids))


def _key(row: Row) -> Markup:
    """What its box sends, whole, for a printed string is cut; empty when it cannot be chosen, or has no sane name."""
    found = listing.key(row.service, row.id) if row.steerable else ""
    return Markup.escape(found if len(found) <= _LONGEST_KEY else "")
