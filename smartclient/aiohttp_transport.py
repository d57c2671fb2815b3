"""The transport on aiohttp: one connection pool for one client, apart from the registry's.

The pool has no limit of its own: how much may be in flight is the caller's decision, and a hidden queue in front of
the network would spoil both the deadline and the balancing. Idle connections are kept 15 s; a server that keeps them
for less closes first, and where that happens just as one is used again ``Outcome.STALE`` says so. aiohttp itself sends
an idempotent request (GET, PUT, …) a second time when its connection breaks; other methods it leaves to us.
"""

import asyncio
import io
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Literal

import aiohttp
from aiohttp.client import ClientTimeout
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from smartclient.errors import BadInput, ClientClosed
from smartclient.stats import Outcome
from smartclient.transport import Answer, Request, TransportFailure

KEEP_IDLE = 15.0  # seconds
LARGE_BODY = 1 << 20  # bytes; above this aiohttp wants a file, to send it in pieces

Phase = Literal["connecting", "fresh", "reused", "answering"]

_phase: ContextVar[Phase] = ContextVar("smartclient_connection_phase", default="connecting")


class _Connector(aiohttp.TCPConnector):
    """Tells the sending task whether its connection is new or was kept alive.

    aiohttp's own tracing tells that too, for a sixth of the client's rate (measured).
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._used: weakref.WeakSet[ResponseHandler] = weakref.WeakSet()

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        """See aiohttp."""
        connection = await super().connect(req, traces, timeout)
        protocol = connection.protocol
        if protocol in self._used:
            _phase.set("reused")
        elif protocol is not None:
            _phase.set("fresh")
            self._used.add(protocol)
        return connection


class AiohttpTransport:
    """See ``Transport``. A session is made at its first request, in that request's event loop."""

    def __init__(self, *, connect_within: float) -> None:
        self._keeping: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None  # aiohttp cannot be asked for a new connection otherwise
        self._usual = ClientTimeout(total=None, sock_connect=connect_within)
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
    ) -> Answer:
        """See ``Transport``."""
        session = (self._fresh if fresh else self._keeping) or self._open(fresh=fresh)
        body: bytes | io.BytesIO = request.body if len(request.body) <= LARGE_BODY else io.BytesIO(request.body)
        _phase.set("connecting")
        self.sent += 1
        begun = False
        try:
            async with (
                asyncio.timeout(within),
                session.request(
                    request.method,
                    url + request.target,
                    data=body or None,
                    headers={**request.headers, **headers} if request.headers else headers,
                    allow_redirects=False,
                    timeout=self._timeout(connect_within),
                ) as response,
            ):
                begun = True
                return Answer(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            phase = "answering" if begun else _phase.get()
            seconds = connect_within if isinstance(error, aiohttp.ConnectionTimeoutError) else within
            raise TransportFailure(*_classify(error, phase, seconds)) from error
        except ValueError as error:
            raise BadInput(f"{request.method} {request.target} cannot be sent: {error}") from error

    def snapshot(self) -> dict[str, Any]:
        """See ``Transport``."""
        return {"kind": "aiohttp", "open": self._keeping is not None, "sent": self.sent}

    async def close(self) -> None:
        """See ``Transport``."""
        self._closed = True
        sessions = (self._keeping, self._fresh)
        self._keeping = self._fresh = None
        for session in sessions:
            if session is not None:
                await session.close()

    def _open(self, *, fresh: bool) -> aiohttp.ClientSession:
        if self._closed:
            raise ClientClosed("the client was closed; make another one")
        connector = _Connector(limit=0, force_close=True) if fresh else _Connector(limit=0, keepalive_timeout=KEEP_IDLE)
        session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        if fresh:
            self._fresh = session
        else:
            self._keeping = session
        return session

    def _timeout(self, connect_within: float) -> ClientTimeout:
        if connect_within != self._usual.sock_connect:
            return ClientTimeout(total=None, sock_connect=connect_within)
        return self._usual


def _classify(error: Exception, phase: Phase, seconds: float) -> tuple[Outcome, str]:
    """Return the outcome and its words for an exception of aiohttp's in ``phase``."""
    said = str(error) or type(error).__name__
    if phase == "connecting":
        late = isinstance(error, TimeoutError)
        return Outcome.CONNECT_ERROR, f"no connection within {seconds:.3g} s" if late else _connect_words(error, said)
    if isinstance(error, TimeoutError):
        return Outcome.TIMEOUT, f"no answer within {seconds:.3g} s"
    if isinstance(error, aiohttp.ClientResponseError):
        return Outcome.RESET, f"not an HTTP answer: {error.message}"
    if phase == "reused":
        return Outcome.STALE, "kept-alive connection closed by the node before it answered"
    if phase == "answering":
        return Outcome.RESET, "connection lost in the middle of the answer"
    return Outcome.RESET, f"connection lost before the answer: {said}"


def _connect_words(error: Exception, said: str) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    return f"no connection: {said}"
