"""Bodies that aiohttp is to send in pieces: large ones, open files, and whatever an async iterable gives.

Bytes go out as slices of what they are, without a copy. A file is the caller's: it is never closed, and it is put back
where it stood after every piece, so that an attempt after this one, or beside it, begins at the same place. It is read
in the event loop's thread: a piece comes from the page cache in microseconds, and a thread left behind by a cancelled
attempt would move the one position that the file has. An async iterable can be sent once.
"""

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from typing import Self

import aiohttp

from smartclient.errors import BadInput
from smartclient.transport import Body, File

LARGE = 1 << 20  # bytes; from here on a body goes in pieces
PIECE = 1 << 18

Bytes = bytes | bytearray | memoryview
_BYTES = (bytes, bytearray, memoryview)


class Pieces:
    """A body as aiohttp takes it. ``size`` in bytes, None when unknown; ``error``: what its source raised, if it did.

    aiohttp may begin it a second time, where it repeats an idempotent request of itself.
    """

    size: int | None = None
    error: Exception | None = None

    def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        raise NotImplementedError


class _Stored(Pieces):
    """Bytes or a file: begins anew each time."""

    def __init__(self, size: int, begin: Callable[[], Iterator[bytes | memoryview]]) -> None:
        self.size = size
        self._begin = begin

    def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        return _Walk(self, self._begin())


class _Walk:
    """A plain generator as an async one, without the task that the event loop starts to end an async one left early."""

    def __init__(self, pieces: Pieces, steps: Iterator[bytes | memoryview]) -> None:
        self._pieces = pieces
        self._steps = steps

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes | memoryview:
        try:
            return next(self._steps)
        except StopIteration:
            raise StopAsyncIteration from None
        except Exception as error:
            self._pieces.error = error
            raise


class _Once(Pieces):
    """What an async iterable gives."""

    def __init__(self, source: AsyncIterable[bytes]) -> None:
        self._source = source
        self._begun: AsyncIterator[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        if self._begun is not None:
            raise aiohttp.ClientConnectionError("its body cannot be sent a second time")
        self._begun = aiter(self._source)
        return self

    async def __anext__(self) -> bytes | memoryview:
        if self._begun is None:
            raise StopAsyncIteration
        try:
            return await anext(self._begun)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.error = error
            raise


def in_one(body: Body) -> Bytes | None:
    """Return bytes that are small enough to go out in one write, else None. Their length is their size."""
    if not isinstance(body, _BYTES):
        return None
    data = _flat(body)
    return data if len(data) < LARGE else None


def in_pieces(body: Body) -> Pieces:
    """Return ``body`` in pieces. Raises ``BadInput`` for a file that cannot tell its size or be put back."""
    if isinstance(body, _BYTES):
        view = memoryview(_flat(body))
        return _Stored(view.nbytes, lambda: (view[at : at + PIECE] for at in range(0, view.nbytes, PIECE)))
    if not isinstance(body, File):
        return _Once(body)
    try:
        start = body.tell()
        end = body.seek(0, os.SEEK_END)
        body.seek(start)
    except (OSError, ValueError) as error:  # a pipe, a closed file
        raise BadInput(f"{body!r} cannot be sent: {error}; an async iterable of bytes can be sent once") from error
    return _Stored(end - start, lambda: _parts(body, start, end))


def _flat(body: Bytes) -> Bytes:
    """``body`` in units of a byte, whatever a memoryview counts in."""
    if isinstance(body, memoryview):
        return body.cast("B") if body.c_contiguous else body.tobytes()
    return body


def _parts(file: File, start: int, end: int) -> Iterator[bytes]:
    at = start
    while at < end:
        file.seek(at)
        part = file.read(min(PIECE, end - at))
        file.seek(start)
        if not isinstance(part, bytes):
            raise TypeError("it gives text; open it with mode 'rb'")
        if not part:
            raise EOFError("it has become shorter")
        at += len(part)
        yield part
