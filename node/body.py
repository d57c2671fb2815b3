"""The bytes of one request, counted against the node's bounds as they come in.

Bounded in bytes, decompressed bytes and a form's own lines included, and in time: a body that is not here after
``body_timeout`` seconds is given up, however steadily it drips. Only what has arrived is counted: announcing much and
sending little keeps nobody out. aiohttp undoes gzip and deflate; anything else is refused before it is read.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from aiohttp.http_exceptions import BadHttpMessage

from node.admission import Admission
from node.errors import BadRequest, BodyTooLarge, MalformedBody, SlowBody, Unsupported

_CHUNK = 256 * 1024
_MOST_LINES = 10_000  # of a form's own: boundaries and headers, half a dozen a part
_ENCODINGS = ("", "identity", "gzip", "deflate")


def abandoned(request: web.Request) -> bool:
    """Whether the rest of a packed body is given up now that its answer is known; the connection has to end then.

    aiohttp reads on for some seconds, so that a client that sends everything first gets its answer. With a packed body
    that would mean unpacking gigabytes for nobody, whoever is allowed to send them.
    """
    if "Content-Encoding" not in request.headers or request.content.is_eof():
        return False
    request.content.feed_eof()
    if request.transport is not None:
        request.transport.pause_reading()
    return True


class Body:
    """The body of ``request``: at most ``most`` bytes, within ``seconds``."""

    def __init__(self, request: web.Request, admission: Admission, *, most: int, seconds: float) -> None:
        self._request = request
        self._admission = admission
        self._most = most
        self._seconds = seconds
        self._held = 0

    def announce(self) -> None:
        """Look at the headers only. Raises ``TooLarge``, ``Unsupported`` or ``Overloaded`` before a byte is read."""
        length = self._request.content_length
        if length is not None and length > self._most:
            raise self._too_large()
        encoding = self._request.headers.get("Content-Encoding", "").lower()
        if encoding not in _ENCODINGS:
            raise Unsupported(f"Content-Encoding {encoding!r} is not read here; send the body as it is, or gzip")
        self._admission.check_bytes(length or 0, of=length or 0)

    async def whole(self) -> bytearray:
        """Read it to its end, into memory of its own."""
        data = await self.file()
        return data if isinstance(data, bytearray) else bytearray(data)

    async def file(self) -> bytes | bytearray:
        """Read it to its end, to be looked at only."""
        content = self._request.content
        data = bytearray()
        async with self.in_time():
            try:
                while chunk := await content.readany():
                    self._count()
                    if not data and content.at_eof():  # all of it at once: spared a copy
                        return chunk
                    data += chunk
            except web.RequestPayloadError as error:
                raise self._malformed(error) from error
        return data

    async def files(self) -> AsyncIterator[tuple[str, bytearray]]:
        """Read the files of a form one by one, with their names; plain form fields are left out."""
        try:
            lines = cast("StreamReader", _Lines(self._request.content))
            reader = MultipartReader(self._request.headers, lines)
            while (part := await reader.next()) is not None:
                self._count()
                if not isinstance(part, BodyPartReader):
                    raise BadRequest("a form inside a form is not read here; send the files side by side")
                data = bytearray()
                while chunk := await part.read_chunk(_CHUNK):
                    self._count()
                    data += chunk
                if part.filename is not None or not part.headers.get("Content-Type", "text/").startswith("text/"):
                    yield part.filename or "", data
        except web.RequestPayloadError as error:
            raise self._malformed(error) from error
        except (ValueError, RuntimeError, AssertionError, BadHttpMessage) as error:  # aiohttp's reader raises any
            raise BadRequest(f"the form is malformed: {error}") from error

    def spent(self) -> None:
        """Give back what was counted: the bytes are wanted no more, though the request goes on."""
        self._admission.release(self._held)
        self._held = 0

    def release(self) -> None:
        """Give back what was counted, and let go of the request: it knows of this, and they would keep each other."""
        self.spent()
        del self._request

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Bound the reading that is done inside. Raises ``SlowBody``."""
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError as error:
            raise SlowBody(f"the body did not arrive within {self._seconds:g} s") from error

    def _count(self) -> None:
        """Count what has arrived since the last time."""
        arrived = self._request.content.total_bytes
        if arrived > self._most:
            raise self._too_large()
        self._admission.hold(arrived - self._held, of=arrived)
        self._held = arrived

    def _malformed(self, error: web.RequestPayloadError) -> MalformedBody:
        self._request.content.feed_eof()  # aiohttp would go on reading after the answer, and log what it meets
        return MalformedBody(f"the body is malformed: {str(error).splitlines()[-1].strip()}")

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body is larger than the {self._most / 2**20:g} MiB this node takes")


class _Lines:
    """A stream for aiohttp's reader of forms, which would look for a boundary through millions of empty lines."""

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self._left = _MOST_LINES

    async def readline(self, **options: Any) -> bytes:
        """See ``StreamReader``. Raises ``BadRequest`` for too many."""
        self._left -= 1
        if self._left < 0:
            raise BadRequest(f"the form has more than {_MOST_LINES:,} lines besides its files")
        return await self._content.readline(**options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)
