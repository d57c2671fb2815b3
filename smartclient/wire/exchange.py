"""The short way over aiohttp: a small request and its whole answer, straight over a connection of aiohttp's pool.

``ClientSession`` spends two thirds of a small request's time on what a call inside a fleet does not have: cookies,
redirects, middleware, traces, a task that writes the body, a response to be released. Here pool, DNS, TLS, the writing
and parsing of HTTP stay aiohttp's; only the way between is shorter. Those parts are not all documented, so ``of`` looks
at them first: where aiohttp is made otherwise there is no short way, and everything goes through the session.
"""

import asyncio
import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Self

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.http import StreamWriter
from yarl import URL

from smartclient.transport import Answer, Request
from smartclient.wire.bodies import Bytes
from smartclient.wire.deadlines import Deadlines
from smartclient.wire.head import fields, quoted
from smartclient.wire.progress import Pool, Progress, Waits

OLDEST = (3, 11)  # before, the pool did not keep to the time for making a connection
ORIGINS = 4096  # nodes whose first half of a request is kept, about 1.3 kB each


class Exchange:
    """Sends over the connections of ``session``."""

    def __init__(self, session: aiohttp.ClientSession, pool: Pool) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop)

        def origin(url: str) -> ClientRequest:
            try:
                return ClientRequest("GET", URL(url), loop=self._loop, session=session)
            except ValueError as error:
                raise aiohttp.InvalidURL(url) from error

        self._origin = lru_cache(maxsize=ORIGINS)(origin)

    @classmethod
    def of(cls, session: aiohttp.ClientSession, pool: Pool) -> Self | None:
        """Return the short way, None where this aiohttp has none."""
        try:
            major, minor = map(int, aiohttp.__version__.split(".")[:2])
            known = inspect.signature(ResponseHandler.set_response_params).parameters
            made = cls(session, pool)
            named = "Host" in made._origin("http://127.0.0.1").headers
        except (AttributeError, TypeError, ValueError):
            return None
        fits = (major, minor) >= OLDEST and {"skip_payload", "read_until_eof"} <= set(known)
        return made if fits and named else None

    async def send(
        self,
        url: str,
        request: Request,
        body: Bytes,
        headers: Mapping[str, str],
        *,
        progress: Progress,
        within: float,
        connecting: aiohttp.ClientTimeout,
        waits: Waits | None,
    ) -> Answer:
        """Send ``request`` and return the whole answer. Raises one of ``FAILURES``, or ``ValueError``."""
        until = self._loop.time() + within
        origin = self._origin(url)
        connection = await self._pool.connect(origin, [], connecting)
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            connection.close()
            raise aiohttp.ServerDisconnectedError
        progress.stop = transport.abort  # whoever waits then finds the connection lost
        self._deadlines.add(progress, until)
        try:
            protocol.set_response_params(skip_payload=request.method == "HEAD", read_until_eof=True)
            writer = StreamWriter(protocol, self._loop)
            await writer.write_headers(
                f"{request.method} {quoted(request.target)} HTTP/1.1",
                fields(origin.headers.copy(), request, headers, len(body)),
            )
            await (writer.write(body, drain=False) if body else writer.write_eof())
            if waits is not None:
                waits(progress.give_up)
            message, payload = await protocol.read()
            while message.code < 200 and message.code != 101:  # 103 Early Hints and the like
                message, payload = await protocol.read()
            progress.phase = "answering"
            whole = payload.read_nowait() if payload.is_eof() else await payload.read()
            answer = Answer(message.code, message.headers, whole)
        except BaseException:
            connection.close()
            raise
        finally:
            progress.stop = None
            self._deadlines.remove(progress)
        if transport.get_write_buffer_size():  # answered before it had all: the rest would be in the next one's way
            connection.close()
        else:
            connection.release()
        return answer

    def close(self) -> None:
        """Stop what was started for it; the connections are the session's to close."""
        self._deadlines.close()
