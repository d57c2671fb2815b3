"""One connection of the node: aiohttp's own handler of one, which says when it waits, works and rests.

What to make of that is decided in ``connections``; only public names of aiohttp's handler are overridden. What it
answers by itself, to bytes that are no HTTP or to headers that do not end, has the protocol's shape and repeats nothing
that was sent, for it may have been a token.
"""

import asyncio
import re
from typing import Any, cast

import msgspec
from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from node.connections import Connections, Reason
from registry.timing import Clock

LONGEST_HEAD = 64 * 1024  # bytes of a request line and all its headers
_BUFFER = 64 * 1024  # bytes kept for a peer before its handler waits; asyncio keeps eight times as much under TLS
# Where aiohttp's messages begin to repeat what was sent.
_QUOTED = re.compile(r"\W*\b(?:when reading|bytearray\(|b['\"]).*")


class Connection(web.RequestHandler):
    """One connection; a ``Peer``. ``reserved``: it has one of the places kept for probes."""

    __slots__ = ("_clock", "_connections", "_head", "_rest", "_resting", "_wire", "node", "reserved", "task")

    def __init__(
        self, server: web.Server, connections: Connections, *, clock: Clock, node: str, reserved: bool, **options: Any
    ) -> None:
        super().__init__(server, **options)
        self.node = node
        self.reserved = reserved
        self.task: asyncio.Task[None] | None = None
        self._connections = connections
        self._clock = clock
        self._wire: asyncio.Transport | None = None
        self._resting = True  # no request is being handled
        self._rest: StreamReader | None = None  # a body that goes on after its answer
        self._head = 0  # bytes come while resting

    @property
    def made(self) -> bool:
        """Whether it was connected, its TLS handshake done."""
        return self._wire is not None

    @property
    def unsent(self) -> int:
        """See ``Peer``."""
        return 0 if self._wire is None else self._wire.get_write_buffer_size()

    def cut(self, reason: Reason) -> None:
        """See ``Peer``."""
        wire = self._wire
        if wire is None:
            if self.task is not None:
                self.task.cancel()
        elif self.unsent or wire.is_closing() or reason in {"write", "closing"}:
            wire.abort()
        else:
            if reason == "head" and self._head:
                error = f"the headers did not arrive within {self._connections.limits.header_timeout:g} s"
                wire.write(answer("408 Request Timeout", error, "bad_request", self.node))
            self.force_close()

    def begin(self) -> None:
        """The headers of a request are here."""
        self._resting = False
        self._head = 0
        self._connections.busy(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See aiohttp."""
        self._wire = cast("asyncio.Transport", transport)
        self._wire.set_write_buffer_limits(_BUFFER)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See aiohttp."""
        self._connections.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See aiohttp."""
        if self._resting and data:
            self._arriving(len(data))
        super().data_received(data)
        if self._head > LONGEST_HEAD:
            # aiohttp hears of a request among it in the loop's next turn, before this is called.
            asyncio.get_running_loop().call_soon(self._ensure_short)

    def pause_writing(self) -> None:
        """See asyncio."""
        super().pause_writing()
        self._connections.stalled(self, self._clock.monotonic())

    def resume_writing(self) -> None:
        """See asyncio."""
        super().resume_writing()
        self._connections.flowing(self)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """See aiohttp."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._resting = True
            self._rest = None if request.content.is_eof() else request.content
            self._connections.idle(self, self._clock.monotonic())

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See aiohttp, which would log a traceback for bytes that are no HTTP, and for a peer that is gone."""
        if isinstance(exc, ConnectionError) and (self._wire is None or self._wire.is_closing()):
            raise exc
        if not isinstance(exc, HttpProcessingError) or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        lines = exc.message.strip().splitlines()
        error = f"this is no HTTP: {_QUOTED.sub('', lines[0]) if lines else type(exc).__name__}"
        self.logger.info("%s: %s", request.remote, error)
        return refusal(status, error, "bad_request", self.node)

    def _arriving(self, size: int) -> None:
        if self._rest is not None:
            if not self._rest.is_eof():
                return
            self._rest = None
        if not self._head:
            self._connections.reading(self, self._clock.monotonic())
        self._head += size

    def _ensure_short(self) -> None:
        if self._head > LONGEST_HEAD and self.transport is not None:
            error = f"the headers are larger than the {LONGEST_HEAD // 1024} KiB this node takes"
            self.transport.write(answer("431 Request Header Fields Too Large", error, "bad_request", self.node))
            self.force_close()


def answer(status: str, error: str, reason: str, node: str, headers: str = "") -> bytes:
    """A whole answer in the protocol's shape, after which the connection ends."""
    body = msgspec.json.encode({"error": error, "reason": reason, "node": node})
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"{headers}Connection: close\r\n\r\n"
    )
    return head.encode() + body


def refusal(status: int, error: str, reason: str, node: str) -> web.Response:
    """The same as an answer of aiohttp's."""
    body = msgspec.json.encode({"error": error, "reason": reason, "node": node})
    response = web.Response(status=status, body=body, content_type="application/json")
    response.force_close()
    return response
