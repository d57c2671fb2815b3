"""What this dashboard is: versions, how it was started (without secrets), who may do what, and what is bounded.

Bounds are read from the modules that keep them, so that this page cannot say anything else.
"""

import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import ClassVar

import msgspec

from registry.dashboard.access import ATTEMPTS, IDLE, LASTS, MOST_SESSIONS
from registry.dashboard.address import Query
from registry.dashboard.live import EVERY, MOST_STREAMS
from registry.dashboard.loads import AT_ONCE, PERIOD
from registry.dashboard.pages.events import MOST as MOST_EVENTS
from registry.dashboard.pages.events import ON_A_PAGE
from registry.dashboard.render import MOST_OUTPUT, Part
from registry.dashboard.wire import MOST_BYTES, MOST_NODES
from registry.dashboard.world import World
from registry.wording import length

_PACKAGES = ("twostep", "aiohttp", "jinja2", "msgspec")


class Fact(msgspec.Struct, frozen=True):
    """A name and what is to be said of it."""

    name: str
    words: str


class AboutView(msgspec.Struct, frozen=True, kw_only=True):
    """Facts, group by group. ``can_act``: an operator could sign in."""

    versions: tuple[Fact, ...]
    configuration: tuple[Fact, ...]
    protection: tuple[Fact, ...]
    bounds: tuple[Fact, ...]
    can_act: bool


class About:
    """``/about``."""

    template: ClassVar[str] = "about.html"
    name: ClassVar[str] = "about"
    title = "About"
    here = "/about"

    def __init__(self, match: Mapping[str, str], query: Query) -> None:
        """Take no notice of either: there is one such page."""

    def view(self, world: World) -> AboutView:
        """The facts."""
        return AboutView(
            versions=versions(),
            configuration=tuple(Fact(name, words) for name, words in world.about.items()),
            protection=_protection(world),
            bounds=_bounds(world),
            can_act=world.can_act,
        )

    def parts(self, view: AboutView, world: World) -> Mapping[str, Part]:  # noqa: ARG002 - as pages are
        """Tables of facts."""
        groups = (
            ("versions", "Versions", view.versions),
            ("configuration", "How it was started", view.configuration),
            ("protection", "Who may do what", view.protection),
            ("bounds", "What is bounded", view.bounds),
        )
        return {
            name: Part("parts/about_facts.html", {"id": name, "title": title, "facts": facts}, facts)
            for name, title, facts in groups
        }

    def order(self, view: AboutView) -> Sequence[str]:  # noqa: ARG002 - as pages are
        """No table lives here."""
        return ()


@cache
def versions() -> tuple[Fact, ...]:
    """Versions of what runs here; packages that are not installed as such say so."""
    return (
        *(Fact(name, _version(name)) for name in _PACKAGES),
        Fact("Python", platform.python_version()),
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed as a package"


def _protection(world: World) -> tuple[Fact, ...]:
    acting = (
        f"Operators, once signed in with an operator token: for {length(LASTS)}, or until idle for {length(IDLE)}. "
        "Each action is a POST from a page of this dashboard with the session's own secret, has a reason, and is an "
        "event with the operator's name. The nodes' own admin token stays in this process."
        if world.can_act
        else "Nobody: it is read-only. Start it with --operator-token-file FILE to let operators sign in."
    )
    return (
        Fact(
            "Reading",
            "Whoever reaches its address. It listens on this machine alone unless --host says otherwise; put a proxy "
            "that asks who is there in front of it where not everybody may look.",
        ),
        Fact("Acting", acting),
        Fact(
            "Draining",
            f"Refused when fewer than {world.floor} passing would be left or more than a fifth of a service"
            " would go at once, unless the service's name is typed.",
        ),
        Fact(
            "Text of others",
            "Names, tags and what checks say are shown as text, whatever is in them; no script of"
            " another site runs on these pages.",
        ),
    )


def _bounds(world: World) -> tuple[Fact, ...]:
    return (
        Fact("Services followed", f"{len(world.fleet.services):,}; {world.fleet.unfollowed:,} more are registered"),
        Fact("Events kept", f"the newest {MOST_EVENTS:,}, {ON_A_PAGE} on a page; they end with this process"),
        Fact("Nodes asked", f"each every {length(PERIOD)}, at most {AT_ONCE} at a time"),
        Fact("Reports of clients", f"at most {MOST_BYTES // 1024:,} KiB and {MOST_NODES:,} instances each"),
        Fact("A check's output", f"{MOST_OUTPUT:,} characters are shown"),
        Fact("Open pages", f"{MOST_STREAMS:,} at a time, each redrawn at most every {length(EVERY)}"),
        Fact("Sessions", f"{MOST_SESSIONS:,}; {ATTEMPTS} failed sign-ins a minute"),
    )
