"""The transport on aiohttp: one connection pool for one client, apart from the registry's.

The pool has no limit of its own: how much may be in flight is the caller's decision, and a hidden queue in front of
the network would spoil both the deadline and the balancing. Idle connections are kept 15 s; a server that keeps them
for less closes first, and where that happens just as one is used again ``Outcome.STALE`` says so. A small request with
a whole answer goes the short way (``wire.exchange``), all else through aiohttp's session (``wire.session``).
"""

import os
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp

from smartclient.errors import BadInput, ClientClosed
from smartclient.tls import from_environment
from smartclient.transport import Answer, Request
from smartclient.wire.bodies import in_one
from smartclient.wire.exchange import Exchange
from smartclient.wire.progress import CURRENT, FAILURES, Pool, Progress, Waits
from smartclient.wire.session import through_session

KEEP_IDLE = 15.0  # seconds


class AiohttpTransport:
    """See ``Transport``. A session is made at its first request, in that request's event loop.

    ``tls``: whom to trust, and what to show, at https nodes; None takes the environment's, else the machine's own
    authorities. Raises ``BadOption``.
    """

    def __init__(self, *, connect_within: float, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls or from_environment(os.environ) or True
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
        connect_within = min(connect_within, within)
        connecting = self._usual if connect_within == self._usual.connect else _connecting(connect_within)
        progress = Progress()
        CURRENT.set(progress)
        body = in_one(request.body)
        try:
            if self._exchange is not None and body is not None and not (fresh or stream):
                return await self._exchange.send(
                    url, request, body, headers, progress=progress, within=within, connecting=connecting, waits=waits
                )
            return await through_session(
                session,
                url,
                request,
                headers,
                progress=progress,
                within=within,
                connecting=connecting,
                stream=stream,
                waits=waits,
            )
        except FAILURES as error:
            raise progress.failure(error, within=within, connect_within=connect_within) from error
        except ValueError as error:
            raise BadInput(f"{request.method} {request.target} cannot be sent: {error}") from error

    def snapshot(self) -> dict[str, Any]:
        """See ``Transport``."""
        return {"kind": "aiohttp", "open": self._keeping is not None, "sent": self.sent}

    async def close(self) -> None:
        """See ``Transport``."""
        self._closed = True
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None
        sessions = (self._keeping, self._fresh)
        self._keeping = self._fresh = None
        for session in sessions:
            if session is not None:
                await session.close()

    def _open(self, *, fresh: bool) -> aiohttp.ClientSession:
        if self._closed:
            raise ClientClosed("the client was closed; make another one")
        keeping = {"force_close": True} if fresh else {"keepalive_timeout": KEEP_IDLE}
        pool = Pool(limit=0, ssl=self._tls, **keeping)
        session = aiohttp.ClientSession(
            connector=pool, cookie_jar=aiohttp.DummyCookieJar(), skip_auto_headers=("Content-Type",)
        )
        if fresh:
            self._fresh = session
        else:
            self._keeping = session
            self._exchange = Exchange.of(session, pool)
        return session


def _connecting(seconds: float) -> aiohttp.ClientTimeout:
    """Name resolution, connection and TLS together get ``seconds``; the rest has the call's deadline."""
    return aiohttp.ClientTimeout(total=None, connect=seconds)
