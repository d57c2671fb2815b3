"""What stands round every page: navigation, how old the data are, who is looking."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from markupsafe import Markup

from registry.dashboard.access import Session
from registry.dashboard.render import Part
from registry.dashboard.world import World

# Seconds after which data count as old.
OLD = 10.0
THEMES = ("auto", "light", "dark")
_LAST_LIST = (
    "What you see is the last list there was. Clients go on with the list they have, and draining still reaches the "
    "nodes."
)
_LATER = "Pages fill by themselves when it does."
_PAGES = (
    ("overview", "Overview", "/"),
    ("instances", "Instances", "/instances"),
    ("calls", "Calls", "/calls"),
    ("events", "Events", "/events"),
    ("lookup", "Look-up", "/lookup"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the navigation."""

    name: str
    href: str
    here: bool


@dataclass(frozen=True, slots=True)
class Shell:
    """The variables of ``base.html``."""

    cluster: str
    theme: str
    here: str
    twin: str
    stream: str
    version: str
    now: float
    navigation: tuple[Entry, ...]
    operator: str
    csrf: str
    may_sign_in: bool
    live: bool


def shell(
    world: World, *, name: str, here: str, version: str, theme: str, session: Session | None, live: bool
) -> Shell:
    """Make them for a page called ``name`` at ``here``; ``live``: it has a stream and a twin."""
    return Shell(
        cluster=world.cluster,
        theme=theme if theme in THEMES else "auto",
        here=Markup.escape(here),  # whole, however long
        twin=Markup.escape(twin(here) if live else "/api/v1/overview"),
        stream=Markup.escape(f"/stream?at={quote(here, safe='')}" if live else ""),
        version=version,
        now=world.now,
        navigation=tuple(Entry(words, href, key == name) for key, words, href in _PAGES),
        operator="" if session is None else session.name,
        csrf="" if session is None else session.csrf,
        may_sign_in=world.can_act,
        live=live,
    )


def twin(here: str) -> str:
    """The address of a page's JSON."""
    return "/api/v1/overview" if here == "/" else f"/api/v1{here}"


def parts(world: World) -> Mapping[str, Part]:
    """What is live on every page: how old the registry's word is, and what it means when that is too old."""
    registry = world.fleet.registry
    heard = registry.heard_at
    old = heard is None or world.now - heard > OLD
    title, words = "", ""
    if not registry.live:
        title = "The registry does not answer." if heard else "The registry has not answered yet."
        words = f"{registry.source}: {registry.error or 'no answer'}. " + (_LAST_LIST if heard else _LATER)
    variables = {"old": old, "heard_at": heard, "now": world.now, "live": registry.live}
    return {
        "fresh": Part("parts/fresh.html", variables, (old, heard if not registry.live else 0)),
        "notice": Part("parts/notice.html", {"title": title, "words": words}, (title, words)),
    }
