"""What a client would get if it looked a service up now, and why each instance is in or out: ``/lookup``.

Nobody is asked: the answer comes from the list this dashboard follows, so its age is part of the answer. Filters mean
what they mean to clients (``registry.query``), and an instance is explained in the words of ``twostep lookup
--explain``. The order is that of every snapshot, by id; which instance a client sends to first is its policy's choice.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec
from markupsafe import Markup

from registry.dashboard.address import Query as Given
from registry.dashboard.address import address, link, row, text
from registry.dashboard.model import Member, Service
from registry.dashboard.pages.equivalents import curl, twostep
from registry.dashboard.render import Part
from registry.dashboard.world import World
from registry.model import Health
from registry.query import Query
from registry.show.explain import explain, similar

# Of those that are in, and of those that are out.
MOST = 100
MOST_OFFERED = 200
# An instance may have any number of checks.
MOST_REASONS = 6
PATH = "/lookup"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One instance. ``place``: where it stands in the answer, from 1; None when it is out of it, and then ``why``."""

    place: int | None
    id: str
    address: str
    health: Health
    zone: str
    version: str
    weight: int
    why: tuple[str, ...]


class LookupView(msgspec.Struct, frozen=True, kw_only=True):
    """The question and its answer.

    ``included`` and ``excluded`` are numbers of instances, of which ``instances`` holds the first ``MOST`` of each.
    ``confirmed_at``: when the registry last confirmed the list; ``doubt``: why it may be old.
    """

    service: str
    tag: str
    zone: str
    version: str
    meta: str
    known: bool
    similar: tuple[str, ...]
    services: tuple[str, ...]
    unfollowed: int
    included: int
    excluded: int
    instances: tuple[Found, ...]
    index: int
    confirmed_at: float | None
    doubt: str
    twostep: str
    curl: str


class Lookup:
    """``/lookup?service=&tag=&zone=&version=&meta=KEY=VALUE``."""

    template: ClassVar[str] = "lookup.html"
    name: ClassVar[str] = "lookup"
    title = "Look-up"

    def __init__(self, match: Mapping[str, str], query: Given) -> None:  # noqa: ARG002 - every page is made this way
        self._meta = text(query, "meta")
        key, equals, value = self._meta.partition("=")
        self._query = Query(
            text(query, "service"),
            tag=text(query, "tag"),
            zone=text(query, "zone"),
            version=text(query, "version"),
            meta={key: value} if key and equals else {},
        )

    @property
    def here(self) -> str:
        """Its address."""
        asked = self._query
        pairs = (("tag", asked.tag), ("zone", asked.zone), ("version", asked.version), ("meta", self._meta))
        return address(PATH, [("service", asked.service), *pairs])

    def of(self, service: str) -> Markup:
        """The same question about another service, without its filters."""
        return link(PATH, [("service", service)])

    def view(self, world: World) -> LookupView:
        """The answer from the list there is."""
        query, services = self._query, world.fleet.services
        service = services.get(query.service)
        members = service.members if service else ()
        inside: list[Member] = []
        outside: list[Member] = []
        for each in members:
            (inside if query.wants(each.instance) else outside).append(each)
        likely = similar(query.service[:100], services) if query.service and service is None else []
        source = world.fleet.registry.source
        return LookupView(
            service=query.service,
            tag=query.tag,
            zone=query.zone,
            version=query.version,
            meta=self._meta,
            known=service is not None,
            similar=tuple(likely),
            services=tuple(services)[:MOST_OFFERED],
            unfollowed=world.fleet.unfollowed,
            included=len(inside),
            excluded=len(outside),
            instances=(*_found(query, inside[:MOST], 1), *_found(query, outside[:MOST], None)),
            index=service.index if service else 0,
            confirmed_at=service.last_good_at if service else None,
            doubt=_doubt(service, live=world.fleet.registry.live),
            twostep=twostep(query, source),
            curl=curl(query, source),
        )

    def parts(self, view: LookupView, world: World) -> Mapping[str, Part]:
        """The answer in a sentence, a row for each instance, and what more there is."""
        said = (view.known, view.included, view.excluded, view.index, view.confirmed_at, view.doubt)
        about = (*said, view.similar, view.unfollowed, view.services)
        more = (view.included - MOST, view.excluded - MOST)
        drawn = {
            "answer": Part("parts/lookup_answer.html", {"view": view, "page": self, "now": world.now}, about),
            "more": Part("parts/lookup_more.html", {"inside": more[0], "outside": more[1]}, more),
        }
        for each in view.instances:
            name = row(each.id)
            drawn[name] = Part(
                "parts/lookup_row.html", {"id": name, "service": view.service, "found": each}, (view.service, each)
            )
        return drawn

    def order(self, view: LookupView) -> Sequence[str]:
        """Rows: what is in, by id, then what is out."""
        return tuple(row(each.id) for each in view.instances)


def _found(query: Query, members: Sequence[Member], first: int | None) -> tuple[Found, ...]:
    explained = explain(query, [each.instance for each in members], {each.id: each.checks for each in members})
    return tuple(
        Found(
            place=None if first is None else first + at,
            id=each.instance.id,
            address=each.instance.endpoint,
            health=each.instance.health,
            zone=each.instance.zone,
            version=each.instance.version,
            weight=each.instance.weight,
            why=_bounded(each.why),
        )
        for at, each in enumerate(explained)
    )


def _bounded(why: tuple[str, ...]) -> tuple[str, ...]:
    return why if len(why) <= MOST_REASONS else (*why[:MOST_REASONS], f"and {len(why) - MOST_REASONS} more")


def _doubt(service: Service | None, *, live: bool) -> str:
    if service is None:
        return "" if live else "the registry does not answer, so there may be services that are not known here yet"
    if service.error:
        return service.error
    if not (service.live and live):
        return "the registry does not answer"
    return (
        "the last answer lacked more than half of the instances, and is believed when a second one agrees"
        if service.suspect
        else ""
    )
