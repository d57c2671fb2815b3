"""The transport on aiohttp: one connection pool for one client, apart from the registry's.

The pool has no limit of its own: how much may be in flight is the caller's decision, and a hidden queue in front of
the network would spoil both the deadline and the balancing. Idle connections are kept 15 s; a server that keeps them
for less closes first, and where that happens just as one is used again ``Outcome.STALE`` says so. A small request with
a whole answer goes the short way (``wire.exchange``), all else through aiohttp's session; there aiohttp itself sends
an idempotent request (GET, PUT, …) a second time when its connection breaks.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from multidict import CIMultiDict

from smartclient.errors import BadInput, ClientClosed
from smartclient.transport import Answer, Request
from smartclient.wire.bodies import BYTES, Pieces, flat, in_pieces
from smartclient.wire.exchange import Exchange
from smartclient.wire.progress import CURRENT, FAILURES, Pool, Progress
from smartclient.wire.streamed import BodyStream

KEEP_IDLE = 15.0  # seconds
LARGE = 1 << 20  # bytes; from here on a body is sent in pieces

Waits = Callable[[Callable[[], None]], None]


class AiohttpTransport:
    """See ``Transport``. A session is made at its first request, in that request's event loop."""

    def __init__(self, *, connect_within: float) -> None:
        self._keeping: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None  # aiohttp cannot be asked for a new connection otherwise
        self._exchange: Exchange | None = None
        self._usual = _connecting(connect_within)
        self._closed = False
        self.sent = 0

    async def send(
        self,
        url: str,
        request: Request,
        headers: Mapping[str, str],
        *,
        within: float,
        connect_within: float,
        fresh: bool = False,
        stream: bool = False,
        waits: Waits | None = None,
    ) -> Answer:
        """See ``Transport``."""
        session = (self._fresh if fresh else self._keeping) or self._open(fresh=fresh)
        self.sent += 1
        body = flat(request.body) if isinstance(request.body, BYTES) else None
        pieces = in_pieces(request.body) if body is None or len(body) >= LARGE else None
        connect_within = min(connect_within, within)
        connecting = self._usual if connect_within == self._usual.connect else _connecting(connect_within)
        progress = Progress()
        CURRENT.set(progress)
        try:
            if body is not None and self._exchange is not None and not (pieces or fresh or stream):
                return await self._exchange.send(
                    url, request, body, headers, progress, within=within, connecting=connecting, waits=waits
                )
            sending = session.request(
                request.method,
                url + request.target,
                data=pieces or body or None,
                headers=_merged(request, headers, pieces),
                allow_redirects=False,
                timeout=connecting,
            )
            return await _answer(sending, progress, within=within, stream=stream, waits=waits)
        except FAILURES as error:
            if pieces is not None and pieces.error is not None:
                raise BadInput(f"the body of {_line(request)} cannot be read: {pieces.error}") from pieces.error
            raise progress.failure(error, within=within, connect_within=connect_within) from error
        except ValueError as error:
            raise BadInput(f"{_line(request)} cannot be sent: {error}") from error

    def snapshot(self) -> dict[str, Any]:
        """See ``Transport``."""
        return {"kind": "aiohttp", "open": self._keeping is not None, "sent": self.sent}

    async def close(self) -> None:
        """See ``Transport``."""
        self._closed = True
        self._exchange = None
        sessions = (self._keeping, self._fresh)
        self._keeping = self._fresh = None
        for session in sessions:
            if session is not None:
                await session.close()

    def _open(self, *, fresh: bool) -> aiohttp.ClientSession:
        if self._closed:
            raise ClientClosed("the client was closed; make another one")
        pool = Pool(limit=0, force_close=True) if fresh else Pool(limit=0, keepalive_timeout=KEEP_IDLE)
        session = aiohttp.ClientSession(connector=pool, cookie_jar=aiohttp.DummyCookieJar())
        if fresh:
            self._fresh = session
        else:
            self._keeping = session
            self._exchange = Exchange.of(session, pool)
        return session


async def _answer(
    sending: aiohttp.client._RequestContextManager,
    progress: Progress,
    *,
    within: float,
    stream: bool,
    waits: Waits | None,
) -> Answer:
    def stop() -> None:
        if not timer.expired():
            timer.reschedule(0.0)

    async with asyncio.timeout(within) as timer:
        progress.stop = stop
        if waits is not None:
            waits(progress.give_up)
        try:
            response = await sending
            progress.phase = "answering"
            if stream:
                return Answer(response.status, response.headers, b"", BodyStream(response, progress, within=within))
            async with response:
                return Answer(response.status, response.headers, await response.read())
        finally:
            progress.stop = None


def _merged(request: Request, headers: Mapping[str, str], pieces: Pieces | None) -> CIMultiDict[str]:
    merged = CIMultiDict(request.headers)
    merged.update(headers)
    if pieces is not None and pieces.size is not None:
        merged["Content-Length"] = str(pieces.size)
    return merged


def _connecting(seconds: float) -> aiohttp.ClientTimeout:
    """Name resolution, connection and TLS together get ``seconds``; the rest has the call's deadline."""
    return aiohttp.ClientTimeout(total=None, connect=seconds)


def _line(request: Request) -> str:
    return f"{request.method} {request.target}"
