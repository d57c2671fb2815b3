"""How far one sending over aiohttp has come, and what an exception of aiohttp's means there.

The same broken connection means different things: none was made (nothing was sent: always safe to repeat), one kept
alive was closed just as it was used again (says nothing of the node), or the node broke it. ``Pool`` tells the sending
which connection it got. aiohttp's own tracing could tell that too, for a sixth of the client's rate (measured).
"""

import asyncio
import ssl
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Literal

import aiohttp
from aiohttp.client import ClientTimeout
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from aiohttp.tracing import Trace

from smartclient.stats import Outcome
from smartclient.transport import TransportFailure

Waits = Callable[[Callable[[], None]], None]
# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_MISMATCHES = (62, 64)
FAILURES = (aiohttp.ClientError, HttpProcessingError, OSError)  # TimeoutError is an OSError


class Progress:
    """Where one sending is. ``stop``, while there is something to wait for, ends the wait."""

    __slots__ = ("_ended", "_given_up", "phase", "stop")

    def __init__(self) -> None:
        self.phase: Literal["connecting", "fresh", "reused", "answering"] = "connecting"
        self.stop: Callable[[], object] | None = None
        self._ended = False
        self._given_up = False

    def end(self) -> None:
        """Its time is up."""
        if self.stop is not None:
            self._ended = True
            self.stop()

    def give_up(self) -> None:
        """Somebody who knows better says that there is nothing to wait for."""
        self._given_up = True
        self.end()

    def failure(self, error: Exception, *, within: float, connect_within: float) -> TransportFailure:
        """Return what ``error``, one of ``FAILURES``, means now."""
        late = self._ended or isinstance(error, TimeoutError)
        if self.phase == "connecting":
            return TransportFailure(Outcome.CONNECT_ERROR, self._unconnected(error, late, connect_within))
        if late:
            said = "given up: the node is left out by now" if self._given_up else f"no answer within {within:.3g} s"
            return TransportFailure(Outcome.TIMEOUT, said)
        if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
            return TransportFailure(Outcome.RESET, f"not an HTTP answer: {error.message}")
        if self.phase == "reused":
            return TransportFailure(Outcome.STALE, "kept-alive connection closed by the node before it answered")
        if self.phase == "answering":
            return TransportFailure(Outcome.RESET, "connection lost in the middle of the answer")
        return TransportFailure(Outcome.RESET, f"connection lost before the answer: {_said(error)}")

    def _unconnected(self, error: Exception, late: bool, seconds: float) -> str:
        if late:
            return "no connection: given up" if self._given_up else f"no connection within {seconds:.3g} s"
        if isinstance(error, aiohttp.ClientConnectorCertificateError):  # an older aiohttp's has no ``os_error``
            return _distrust(error.certificate_error)
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        return "connection refused" if isinstance(cause, ConnectionRefusedError) else f"no connection: {_said(error)}"


@asynccontextmanager
async def bounded(progress: Progress, within: float, waits: Waits | None) -> AsyncGenerator[None, None]:
    """Give the block ``within`` seconds, or as long as nobody gives it up. Raises ``TimeoutError``."""

    def stop() -> None:
        if not timer.expired():
            timer.reschedule(0.0)

    try:
        async with asyncio.timeout(within) as timer:
            progress.stop = stop
            if waits is not None:
                waits(progress.give_up)
            yield
    finally:
        progress.stop = None


CURRENT: ContextVar[Progress] = ContextVar("smartclient_progress")
"""The sending that the running task is about."""


class Pool(aiohttp.TCPConnector):
    """aiohttp's connection pool, that tells the sending it serves whether its connection is new or was kept alive."""

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
            CURRENT.get().phase = "reused"
        elif protocol is not None:
            CURRENT.get().phase = "fresh"
            self._used.add(protocol)
        return connection


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _distrust(error: Exception) -> str:
    mismatch = isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _MISMATCHES
    remedy = "it must hold the registered address" if mismatch else "give its authority in TWOSTEP_CACERT"
    return f"its certificate is refused: {getattr(error, 'verify_message', error)}; {remedy}"
