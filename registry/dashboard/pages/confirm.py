"""What an order would do, before it is given: ``/confirm``, and the same judgement once more when it is.

The page says the effect and who is meant while nothing has happened yet; the form on it is the only way to an order. It
names each instance, or says "all that match" with the mark of the set that was on screen, so nobody drains machines
that came after they looked.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec
from markupsafe import Markup

from registry.dashboard import guard, listing
from registry.dashboard.address import Pairs, Query, address, link, text
from registry.dashboard.guard import Ruling
from registry.dashboard.model import Service
from registry.dashboard.page import BadAddress
from registry.dashboard.render import Part
from registry.dashboard.world import World
from registry.wording import printable

PATH = "/confirm"
KINDS = ("drain", "undrain")
# Instances that are named on the page, and in one order.
MOST_NAMED = 20
MOST_CHOSEN = 10_000
_LONGEST = 2000


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """One instance that is meant; ``health`` is empty when it has gone."""

    id: str
    health: str


class ConfirmView(msgspec.Struct, frozen=True, kw_only=True):
    """What would be done. ``problem``: why it cannot, whatever is typed. ``harm``: why the service's name is asked for.

    ``refused``: why it was not done the last time.
    """

    kind: str
    service: str
    effect: str
    count: int
    named: tuple[Named, ...]
    needs_name: bool
    harm: str
    problem: str
    refused: str
    reason: str
    typed: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What has been decided on an order; ``refused``: why it is not carried out, empty when it is."""

    service: Service
    ids: tuple[str, ...]
    refused: str = ""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """Who is meant, as far as they are of one service; ``problem``: what is wrong with the choice."""

    service: Service
    ids: tuple[str, ...] = ()
    problem: str = ""


class Confirm:
    """``/confirm?kind=drain&id=SERVICE/ID&id=…``, or ``all=1`` with a filter and its ``fingerprint``; as a form, too.

    ``reason``, ``typed`` and ``refused``: what was written the last time, and why it would not do.
    """

    template: ClassVar[str] = "confirm.html"
    name: ClassVar[str] = "instances"

    def __init__(self, match: Mapping[str, str], query: Query) -> None:  # noqa: ARG002 - every page is made this way
        self.kind = text(query, "kind") or KINDS[0]
        if self.kind not in KINDS:
            raise BadAddress("There is no such order; an instance can be drained or undrained.")
        self.all = text(query, "all") == "1"
        self.asked = listing.read(query)
        self.fingerprint = text(query, "fingerprint")
        ids = () if self.all else query.getall("id", [])
        self.keys = tuple(dict.fromkeys(listing.key(*listing.unkey(each)) for each in ids))[:MOST_CHOSEN]
        self.reason, self.typed, self.refused = (_written(query, each) for each in ("reason", "typed", "refused"))

    @property
    def title(self) -> str:
        """What it is called."""
        return f"{self.kind.capitalize()} instances"

    @property
    def here(self) -> str:
        """Its address."""
        said = [("reason", self.reason), ("typed", self.typed), ("refused", self.refused)]
        return address(PATH, [("kind", self.kind), *self._choice(), *said])

    @property
    def hidden(self) -> Sequence[tuple[str, Markup]]:
        """Fields of the form that say who is meant; whole, for a printed string is cut."""
        return [(name, Markup.escape(str(value))) for name, value in self._choice() if value]

    @property
    def said(self) -> Markup:
        """The reason as it was written, whole."""
        return Markup.escape(self.reason)

    @property
    def sign_in(self) -> Markup:
        """Where to sign in and come back from."""
        return link("/sign-in", [("back", self.here)])

    @property
    def back(self) -> Markup:
        """The list of instances it was chosen from, as far as that is known."""
        services = {listing.unkey(each)[0] for each in self.keys}
        only = [("service", services.pop())] if len(services) == 1 else []
        return link("/instances", self.asked.narrowing() if self.all else only)

    def view(self, world: World) -> ConfirmView:
        """What it would do, as the fleet is now."""
        chosen = self.chosen(world)
        # With a reason and the name given, so that what is left cannot be helped by typing.
        ruling = _ruling(self.kind, chosen, "for the page", chosen.service.name, world.floor)
        unnamed = _ruling(self.kind, chosen, "for the page", "", world.floor)
        problem = chosen.problem or ruling.refusal
        members = chosen.service.by_id
        return ConfirmView(
            kind=self.kind,
            service=chosen.service.name,
            effect=ruling.effect if chosen.ids else "",
            count=len(chosen.ids),
            named=tuple(
                Named(id=each, health=members[each].health if each in members else "")
                for each in chosen.ids[:MOST_NAMED]
            ),
            needs_name=ruling.needs_name and not problem,
            harm=unnamed.refusal if ruling.needs_name and not problem else "",
            problem=problem,
            refused=self.refused,
            reason=self.reason,
            typed=self.typed,
        )

    def parts(self, view: ConfirmView, world: World) -> Mapping[str, Part]:  # noqa: ARG002 - as every page
        """The effect, and who is meant; the form stands beside it."""
        told = (view.kind, view.service, view.effect, view.count, view.named, view.problem)
        return {"confirm-effect": Part("parts/confirm_effect.html", {"view": view, "back": self.back}, told)}

    def order(self, view: ConfirmView) -> Sequence[str]:  # noqa: ARG002 - as every page
        """No rows that live."""
        return ()

    def chosen(self, world: World) -> Chosen:
        """Find who is meant."""
        fleet = world.fleet
        if self.all:
            return self._matching(world)
        pairs = [listing.unkey(each) for each in self.keys]
        services = {service for service, _ in pairs}
        if not services:
            return _nobody("", "nothing is selected: choose the instances first")
        if len(services) > 1:
            return _nobody("", "these are of several services: choose instances of one")
        name = services.pop()
        if name not in fleet.services:
            return _nobody(name, f"there is no service {printable(name, 80)} any more: look again")
        return Chosen(service=fleet.services[name], ids=tuple(instance for _, instance in pairs))

    def _matching(self, world: World) -> Chosen:
        fleet, name = world.fleet, self.asked.service
        if not name:
            return _nobody("", "filter by one service first: all that match must be of one")
        if name not in fleet.services:
            return _nobody(name, f"there is no service {printable(name, 80)} any more: look again")
        ids = listing.targets(listing.find(world.fleet, self.asked, world.shelf).members, self.kind)
        return Chosen(service=fleet.services[name], ids=ids, problem=guard.changed(ids, self.fingerprint))

    def _choice(self) -> Pairs:
        if self.all:
            return [("all", 1), ("fingerprint", self.fingerprint), *self.asked.narrowing()]
        return [("id", each) for each in self.keys]


def decide(asked: Confirm, world: World, *, kind: str, form: Mapping[str, str]) -> Decision:
    """Decide on an order as it was sent, as things are now; ``form`` holds the ``reason`` and what was ``typed``."""
    chosen = asked.chosen(world)
    if kind != asked.kind:
        return Decision(service=chosen.service, ids=chosen.ids, refused="this form is of another order: look again")
    if chosen.problem:
        return Decision(service=chosen.service, ids=chosen.ids, refused=chosen.problem)
    ruling = _ruling(kind, chosen, _written(form, "reason"), _written(form, "typed"), world.floor)
    return Decision(service=chosen.service, ids=ruling.ids, refused=ruling.refusal)


def _ruling(kind: str, chosen: Chosen, reason: str, typed: str, floor: int) -> Ruling:
    if kind == "drain":
        return guard.judge(chosen.service, chosen.ids, reason=reason, typed=typed, floor=floor)
    return guard.judge_undrain(chosen.service, chosen.ids, reason=reason)


def _written(form: Mapping[str, str], name: str) -> str:
    """What was written into a field; its line ends are one character, as they were where it was counted."""
    return form.get(name, "").replace("\r\n", "\n")[:_LONGEST]


def _nobody(service: str, problem: str) -> Chosen:
    return Chosen(service=Service(name=service), problem=problem)
