"""Pages that somebody looks at: drawn once for all who look at the same address, and sent again part by part.

A page is looked at again at most once a second, and only when anything at all has changed; of its parts those are
drawn whose key is another. Whoever has the version before gets what changed since, anybody else the whole page's parts.
Addresses are bounded: beyond ``MOST`` those go that nobody follows, the longest unseen first, and a page that is made
again takes no version it had before. A part that fails says so in its own place, and a page that fails keeps the
picture it had: neither takes anything else along.
"""

import asyncio
import itertools
import logging
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from markupsafe import Markup

from registry.dashboard.page import NoSuchPage, Page
from registry.dashboard.render import Part, Renderer
from registry.dashboard.world import World
from registry.timing import Clock
from registry.wording import printable

log = logging.getLogger(__name__)

EVERY = 1.0
# A beat when nothing changes, so that silence means that the dashboard is gone.
BEAT = 2.0
# Seconds that a page nobody follows is kept, for the stream of whoever has just got it.
KEEP = 20.0
MOST = 400
# Streams at a time; a browser has one for each tab that is seen.
MOST_STREAMS = 500


def _no_frame(_: World) -> Mapping[str, Part]:
    return {}


class Drawn(msgspec.Struct):
    """A page as it was drawn last."""

    view: msgspec.Struct
    parts: dict[str, Markup]
    order: tuple[str, ...]


class LivePage:
    """One address: its page, how it was drawn last, and who follows it."""

    def __init__(
        self, page: Page, renderer: Renderer, epoch: str, frame: Callable[[World], Mapping[str, Part]] = _no_frame
    ) -> None:
        self.page = page
        self.followers: set[asyncio.Event] = set()
        self.left_at = 0.0
        self.gone = ""
        self._renderer = renderer
        self._frame = frame
        self._epoch = epoch
        self._count = 0
        self._failed: set[str] = set()
        self._stamp: object = None
        self._keys: dict[str, object] = {}
        self._drawn: Drawn | None = None
        self._change: dict[str, Any] = {}
        self._said: dict[str | None, bytes] = {}

    @property
    def version(self) -> str:
        """Which drawing this is."""
        return f"{self._epoch}.{self._count}"

    def draw(self, world: World, stamp: object) -> Drawn:
        """Return the page as it is now; ``stamp`` says whether there is anything new. Raises ``NoSuchPage``."""
        if self._drawn is not None and stamp == self._stamp:
            return self._drawn
        view = self.page.view(world)
        parts = {**self._frame(world), **self.page.parts(view, world)}
        before = self._drawn
        drawn = Drawn(view, {}, tuple(self.page.order(view)))
        changed: dict[str, Markup] = {}
        for name, part in parts.items():
            if before is not None and name in self._keys and name in before.parts and self._keys[name] == part.key:
                drawn.parts[name] = before.parts[name]
                continue
            drawn.parts[name] = self._part(name, part)
            if before is None or before.parts.get(name) != drawn.parts[name]:
                changed[name] = drawn.parts[name]
        self._keys = {name: part.key for name, part in parts.items()}
        self._drawn, self._stamp, self.gone = drawn, stamp, ""
        if before is not None and (changed or before.order != drawn.order):
            self._count += 1
            self._change = {"parts": changed}
            if before.order != drawn.order:
                self._change["order"] = {"ids": drawn.order}
            self._said = {}
            for each in self.followers:
                each.set()
        return drawn

    def message(self, known: str) -> dict[str, Any] | None:
        """What to send to somebody whose page is of version ``known``; None when it is this one."""
        if self._drawn is None or known == self.version:
            return None
        if known == f"{self._epoch}.{self._count - 1}":
            return {"v": self.version, **self._change}
        order = {"order": {"ids": self._drawn.order}} if self._drawn.order else {}
        return {"v": self.version, "parts": self._drawn.parts, **order}

    def encoded(self, known: str) -> bytes | None:
        """The same as an event; encoded once for all who are at the same version."""
        at = known if known in (self.version, f"{self._epoch}.{self._count - 1}") else None
        if at not in self._said:
            said = self.message(known)
            self._said[at] = b"" if said is None else event(said)
        return self._said[at] or None

    def _part(self, name: str, part: Part) -> Markup:
        try:
            made = self._renderer.part(part)
        except Exception:
            if name not in self._failed:
                self._failed.add(name)
                log.exception("%s of %s cannot be shown", printable(name), printable(self.page.here))
            return _unshown(name)
        self._failed.discard(name)
        return made


class Live:
    """All pages that are looked at. ``world`` and ``stamp`` say what there is now, and whether that is news.

    ``frame``: the parts that live round every page.
    """

    def __init__(
        self,
        renderer: Renderer,
        world: Callable[[], World],
        stamp: Callable[[], object],
        *,
        clock: Clock,
        epoch: str,
        frame: Callable[[World], Mapping[str, Part]] = _no_frame,
    ) -> None:
        self._renderer = renderer
        self._world = world
        self._stamp = stamp
        self._clock = clock
        self._epoch = epoch
        self._frame = frame
        self._made = itertools.count()
        self._failed: set[str] = set()
        self._pages: OrderedDict[str, LivePage] = OrderedDict()
        self.streams = 0

    def page(self, page: Page) -> LivePage:
        """The live page at an address, made if need be."""
        found = self._pages.get(page.here)
        if found is None:
            found = LivePage(page, self._renderer, f"{self._epoch}.{next(self._made)}", self._frame)
            self._pages[page.here] = found
            if len(self._pages) > MOST:
                self._make_room()
        self._pages.move_to_end(page.here)
        found.left_at = self._clock.monotonic()
        return found

    def follow(self, live: LivePage, news: asyncio.Event) -> None:
        """Set ``news`` whenever the page has changed, until ``leave``."""
        live.followers.add(news)
        self.streams += 1

    def leave(self, live: LivePage, news: asyncio.Event) -> None:
        """Follow it no longer."""
        live.followers.discard(news)
        live.left_at = self._clock.monotonic()
        self.streams -= 1

    def draw(self, live: LivePage) -> Drawn:
        """Draw a page for somebody who asks for it now. Raises ``NoSuchPage``."""
        return live.draw(self._world(), self._stamp())

    async def run(self) -> None:
        """Look at every page that is followed once a second."""
        while True:
            await self._clock.sleep(EVERY)
            await self.look()

    async def look(self) -> None:
        """Draw what is followed and forget what nobody has looked at for a while; others have turns in between."""
        now = self._clock.monotonic()
        for here, live in list(self._pages.items()):
            if live.followers:
                self._again(live)
                await self._clock.sleep(0)
            elif now - live.left_at > KEEP:
                self._pages.pop(here, None)

    def _again(self, live: LivePage) -> None:
        here = live.page.here
        try:
            self.draw(live)
        except NoSuchPage as error:
            live.gone = str(error)
            for each in live.followers:
                each.set()
        except Exception:
            if here not in self._failed:
                log.exception("%s cannot be drawn; who looks at it sees it as it was", printable(here))
            self._failed = {*self._failed & self._pages.keys(), here}
        else:
            self._failed.discard(here)

    def _make_room(self) -> None:
        """Forget the page that nobody has asked for the longest; those that are followed stay, as many as there are."""
        *others, _ = self._pages.items()
        for here, live in others:
            if not live.followers:
                del self._pages[here]
                return

    def snapshot(self) -> Mapping[str, int]:
        """How many pages and streams there are."""
        return {"pages": len(self._pages), "streams": self.streams}


class Squeezed:
    """A stream of events as gzip, every event whole as soon as it is said."""

    def __init__(self, accepted: bool) -> None:
        # A small window: fifty streams must not hold megabytes.
        self._pack = zlib.compressobj(6, zlib.DEFLATED, 16 + 13, 7) if accepted else None

    @property
    def packs(self) -> bool:
        """Whether it is gzip."""
        return self._pack is not None

    def add(self, data: bytes) -> bytes:
        """Return the bytes to send for ``data``."""
        if self._pack is None:
            return data
        return self._pack.compress(data) + self._pack.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        """Return the bytes that end it."""
        return b"" if self._pack is None else self._pack.flush()


def _unshown(name: str) -> Markup:
    """What stands in the place of a part that failed; within a table only a table's own elements can."""
    words = "This part cannot be shown: the dashboard's log says why."
    if name.startswith("row:"):
        return Markup('<tr id="{}"><td class="empty" colspan="20">{}</td></tr>').format(name, words)
    tag = "caption" if name.endswith("-caption") else "p"
    return Markup('<{} id="{}" class="empty">{}</{}>').format(tag, name, words, tag)


def event(message: Mapping[str, Any]) -> bytes:
    """A message as one server-sent event."""
    return b"data: " + msgspec.json.encode(message, enc_hook=str) + b"\n\n"
