"""The short way over aiohttp: a small request and its whole answer, straight over a connection of aiohttp's pool.

``ClientSession`` spends two thirds of a small request's time on what a call inside a fleet does not have: cookies,
redirects, middleware, traces, a task that writes the body, a response to be released. Here pool, DNS, TLS, the writing
and parsing of HTTP stay aiohttp's; only the way between is shorter. Those parts are not all documented, so ``of`` looks
at them first: where aiohttp is made otherwise there is no short way, and everything goes through the session.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Self

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.http import StreamWriter
from multidict import CIMultiDict
from yarl import URL

from smartclient.transport import Answer, Request
from smartclient.wire.progress import Pool, Progress

ORIGINS = 4096  # nodes whose first half of a request is kept, about 1.3 kB each
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})  # say the length of their body even when there is none


class Exchange:
    """Sends over the connections of ``session``."""

    def __init__(self, session: aiohttp.ClientSession, pool: Pool) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()

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
            known = inspect.signature(ResponseHandler.set_response_params).parameters
            made = cls(session, pool)
            origin = made._origin("http://127.0.0.1")
            fits = {"skip_payload", "read_until_eof"} <= set(known) and "Host" in origin.headers
        except (AttributeError, TypeError, ValueError):
            return None
        return made if fits else None

    async def send(
        self,
        url: str,
        request: Request,
        body: bytes | bytearray | memoryview,
        headers: Mapping[str, str],
        progress: Progress,
        *,
        within: float,
        connecting: aiohttp.ClientTimeout,
        waits: Callable[[Callable[[], None]], None] | None,
    ) -> Answer:
        """Send ``request`` and return the whole answer. Raises one of ``FAILURES``, or ``ValueError``."""
        origin = self._origin(url)
        connection = await self._pool.connect(origin, [], connecting)
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            connection.close()
            raise aiohttp.ServerDisconnectedError
        progress.stop = transport.abort  # whoever waits then finds the connection lost
        timer = self._loop.call_later(within, progress.end)
        try:
            protocol.set_response_params(skip_payload=request.method == "HEAD", read_until_eof=True)
            await self._write(protocol, request, body, _headers(origin, request, headers, len(body)))
            if waits is not None:
                waits(progress.give_up)
            message, payload = await protocol.read()
            while message.code < 200 and message.code != 101:  # 103 Early Hints and the like
                message, payload = await protocol.read()
            progress.phase = "answering"
            answer = Answer(message.code, message.headers, await payload.read())
        except BaseException:
            connection.close()
            raise
        finally:
            progress.stop = None
            timer.cancel()
        if (
            transport.get_write_buffer_size()
        ):  # answered before it had all: the next request would queue behind the rest
            connection.close()
        else:
            connection.release()
        return answer

    async def _write(
        self,
        protocol: ResponseHandler,
        request: Request,
        body: bytes | bytearray | memoryview,
        headers: CIMultiDict[str],
    ) -> None:
        writer = StreamWriter(protocol, self._loop)
        await writer.write_headers(f"{request.method} {_encoded(request.target)} HTTP/1.1", headers)
        if body:
            await writer.write(body, drain=False)
        else:
            await writer.write_eof()


def _headers(origin: ClientRequest, request: Request, headers: Mapping[str, str], length: int) -> CIMultiDict[str]:
    merged = origin.headers.copy()  # Host and aiohttp's own defaults
    if request.headers:
        merged.update(request.headers)
        merged.popall("Transfer-Encoding", None)  # it is the length that is told
    merged.update(headers)
    if length or request.method in WITH_BODY:
        merged["Content-Length"] = str(length)
        merged.setdefault("Content-Type", "application/octet-stream")
    return merged


@lru_cache(maxsize=1024)
def _encoded(target: str) -> str:
    """``target`` as it stands in a request line, quoted as aiohttp would quote it."""
    return URL(f"http://node{target}").raw_path_qs
