"""The event stream of one open page, and the door for reports of clients: what comes and goes by itself.

A stream says what has changed of its page, at most once a second, and beats in between with the age of the data. It
ends with the dashboard, or aiohttp would wait for it, and with a reader that takes nothing for a while: whoever sleeps
that long gets the whole page when they come back.
"""

import asyncio
import logging
from collections.abc import Callable

from aiohttp import hdrs, web

from registry.dashboard import wire
from registry.dashboard.access import Access, Refused
from registry.dashboard.calls import BadReport, Calls, TooMany
from registry.dashboard.figures import many
from registry.dashboard.journal import Journal
from registry.dashboard.live import BEAT, EVERY, MOST_STREAMS, Live, LivePage, Squeezed, event
from registry.dashboard.page import Page
from registry.dashboard.world import World
from registry.timing import Clock
from registry.waiting import within
from registry.wording import printable

log = logging.getLogger(__name__)

# Seconds for which a reader may take nothing of what it is sent: then it is asleep, or worse.
_PATIENCE = 10.0


class Streams:
    """``page_at`` finds the page of an address. ``stop`` ends every stream."""

    def __init__(self, live: Live, page_at: Callable[[str], Page], world: Callable[[], World], *, clock: Clock) -> None:
        self._live = live
        self._page_at = page_at
        self._world = world
        self._clock = clock
        self._open: set[asyncio.Event] = set()
        self._sending: set[asyncio.Transport] = set()
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End every stream, and take no more."""
        self._stopped.set()
        for each in self._open:
            each.set()
        for transport in self._sending:
            transport.abort()  # who does not take what they are sent would keep us waiting

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """``GET /stream?at=ADDRESS&v=VERSION``."""
        if self._stopped.is_set() or len(self._open) >= MOST_STREAMS:
            raise Refused(503, f"there are {MOST_STREAMS} open pages already; close some")
        live = self._live.page(self._page_at(request.query.get("at", "/")))
        self._live.draw(live)
        squeezed = Squeezed("gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""))
        response = web.StreamResponse(
            headers={hdrs.CONTENT_TYPE: "text/event-stream", hdrs.CACHE_CONTROL: "no-store", "X-Accel-Buffering": "no"}
        )
        if squeezed.packs:
            response.headers[hdrs.CONTENT_ENCODING] = "gzip"
        response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
        response.enable_chunked_encoding()
        news = asyncio.Event()
        self._open.add(news)
        self._live.follow(live, news)
        try:
            await response.prepare(request)
            await self._follow(request, response, squeezed, live, news)
            await response.write(squeezed.end())
            await response.write_eof()
        except (ConnectionError, TimeoutError):
            pass  # the tab is closed, or asleep
        except Exception:
            # The answer has begun, so nobody else can say it; the page asks for another stream.
            log.exception("the stream of %s broke", printable(live.page.here))
        finally:
            self._live.leave(live, news)
            self._open.discard(news)
        return response

    async def _follow(
        self,
        request: web.Request,
        response: web.StreamResponse,
        squeezed: Squeezed,
        live: LivePage,
        news: asyncio.Event,
    ) -> None:
        known, beat_at = request.query.get("v", ""), 0.0
        told = self._world().journal.last
        while (transport := request.transport) is not None and not transport.is_closing():
            if self._stopped.is_set():
                return
            news.clear()
            data = live.encoded(known) or b""
            known = live.version
            now = self._clock.monotonic()
            if data or now >= beat_at:
                world = self._world()
                registry = world.fleet.registry
                beat = {"now": self._clock.time(), "heard": registry.heard_at, "live": registry.live}
                data += event(beat | spoken(world.journal, told))
                beat_at, told = now + BEAT, world.journal.last
            if live.gone:
                data += event({"leave": live.gone})
            if data:
                await self._send(transport, response, squeezed.add(data))
            if live.gone:
                return
            await within(EVERY, self._stopped.wait(), self._clock)
            if not news.is_set():
                await within(max(0.05, beat_at - self._clock.monotonic()), news.wait(), self._clock)

    async def _send(self, transport: asyncio.Transport, response: web.StreamResponse, data: bytes) -> None:
        self._sending.add(transport)
        try:
            async with asyncio.timeout(_PATIENCE):
                await response.write(data)
        except TimeoutError:
            transport.abort()
            raise
        finally:
            self._sending.discard(transport)


def spoken(journal: Journal, told: int) -> dict[str, str]:
    """What is new since event number ``told``, for those who listen to a page; nothing when nothing is."""
    fresh = journal.last - told
    if fresh <= 0:
        return {}
    (last,) = journal.newest(1)
    more = f". And {many(fresh - 1, 'more event')}." if fresh > 1 else ""
    return {"say": printable(last.words) + more}


class Reports:
    """``POST /api/v1/reports``: bounded in size and rate, and a bearer token where one is demanded."""

    def __init__(self, calls: Calls, access: Access) -> None:
        self._calls = calls
        self._access = access

    async def take(self, request: web.Request) -> web.Response:
        """Take one report."""
        if not self._access.bearer_ok(request.headers.get(hdrs.AUTHORIZATION, "")):
            raise Refused(401, "reports need the bearer token of this dashboard: TWOSTEP_DASHBOARD_TOKEN_FILE")
        body = bytearray()
        async for piece in request.content.iter_chunked(64 * 1024):
            body += piece
            if len(body) > wire.MOST_BYTES:
                raise Refused(413, f"a report is at most {wire.MOST_BYTES // 1024} KiB")
        try:
            self._calls.take(bytes(body), request.remote or "")
        except BadReport as error:
            raise Refused(400, str(error)) from error
        except TooMany as error:
            raise Refused(429, str(error)) from error
        return web.Response(status=204)
