"""The threads that turn image files into arrays, shared by all models of a node.

As many threads as cores, for Pillow lets go of the interpreter while it decodes. What decoding holds at once is bounded
in bytes, by what a file's structure promises: large pictures take turns, one after the other as they came, and wait
outside the threads, so that small ones go on beside them. A picture that would need more than all of it alone is
refused. Tiny files are decoded in place, because handing over to a thread takes longer than they do.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from node.errors import ClientGone, DeadlineExceeded, Draining, TooLarge
from node.images import MAX_PIXELS, Picture
from node.machine import cores
from node.preprocessing import Preprocessing
from node.tensors import Array
from node.ticket import Ticket
from registry.timing import Clock

T = TypeVar("T")

# Up to this size decoding takes less than handing over to a thread does (measured: a third more digits a second). The
# bound on bytes is for the header: nothing hidden in 4 KiB takes long to parse.
_TINY_BYTES = 4096
_TINY_PIXELS = 64 * 64
# What large pictures may hold together: the largest that is let in, at Pillow's four bytes a pixel, and a bit.
MEMORY = 4 * MAX_PIXELS + 8 * 1024 * 1024
# Up to so many bytes a picture counts as small; each thread holds one of them besides, but not more than a quarter in
# all. A phone's photo, a JPEG, is one of them: it is decoded at a fraction of its size.
_SMALL = 4 * 1024 * 1024
_PART = 4
# A file may be held so many times over while it is opened: as it is, and as the texts or the frames in it.
_COPIES = 3
# Weight of the newest decode in the running mean that predicts the wait.
_NEWEST = 0.1


class Decoders:
    """A pool of decoding threads. Belongs to one event loop."""

    def __init__(self, clock: Clock, *, threads: int | None = None, memory: int = MEMORY) -> None:
        self.threads = threads or cores()
        self.pending = 0
        self.mean = 0.0
        self._clock = clock
        self._memory = memory
        self._small = min(_SMALL, memory // (_PART * self.threads))
        self._turns = _Turns(memory)
        self._closed = False
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")

    @property
    def wait(self) -> float:
        """Seconds until an image that came now would be decoded by a thread of its own."""
        return max(0, self.pending - self.threads) * self.mean / self.threads

    async def decode(
        self, data: bytes | bytearray, wanted: Preprocessing, ticket: Ticket | None = None
    ) -> tuple[Array, float]:
        """Return the array and the seconds decoding took. Raises ``BadImage`` and ``TooLarge``.

        With a ``ticket`` also ``ClientGone`` and ``DeadlineExceeded``, when its turn comes too late.
        """
        if len(data) <= _TINY_BYTES:
            started = self._clock.monotonic()
            picture = Picture(data)
            if picture.pixels <= _TINY_PIXELS:  # a small file can be a large picture
                return picture.decode(wanted), self._clock.monotonic() - started
        found, seconds = await self._completed(
            self._submit(lambda: self._begun(data, wanted), ticket)
            if len(data) <= _SMALL  # by far the most: no turn to wait for, and so no task
            else asyncio.ensure_future(self._large_file(data, wanted, ticket))
        )
        if isinstance(found, int):
            array, more = await self._completed(asyncio.ensure_future(self._large_picture(data, wanted, ticket, found)))
            return array, seconds + more
        return found, seconds

    async def warm(self, data: bytes, wanted: Preprocessing) -> None:
        """Decode ``data`` once in every thread."""
        await asyncio.gather(
            *(self._completed(self._submit(lambda: self._begun(data, wanted), None)) for _ in range(self.threads))
        )

    def close(self) -> None:
        """Let what is being decoded end, refuse the rest."""
        self._closed = True
        self._pool.shutdown(wait=False)

    def snapshot(self) -> dict[str, object]:
        """What is under way, and how long one takes."""
        return {
            "decoding": self.pending,
            "decode_ms": round(self.mean * 1e3, 3),
            "decode_wait_ms": round(self.wait * 1e3),
        }

    async def _completed(self, work: "asyncio.Future[tuple[T, float]]") -> tuple[T, float]:
        """Wait for work in a thread.

        It cannot be called back, so it counts until it is through, also when nobody waits for its picture any more.
        """
        self.pending += 1
        work.add_done_callback(self._ended)
        try:
            return await asyncio.shield(work)
        finally:
            del work  # see ``together``: its error would keep this frame, this frame its error, and both the file

    def _ended(self, work: "asyncio.Future[tuple[T, float]]") -> None:
        self.pending -= 1
        if not work.cancelled() and work.exception() is None:  # asked for, so it is no error that nobody has heard of
            found, seconds = work.result()
            if not isinstance(found, int):
                self.mean = seconds if self.mean == 0 else self.mean + _NEWEST * (seconds - self.mean)

    async def _large_file(
        self, data: bytes | bytearray, wanted: Preprocessing, ticket: Ticket | None
    ) -> tuple[Array | int, float]:
        """Begin with a file in its turn: libraries copy what they find in it."""
        async with self._turns.hold(min(_COPIES * len(data), self._memory)):
            return await self._submit(lambda: self._begun(data, wanted), ticket)

    async def _large_picture(
        self, data: bytes | bytearray, wanted: Preprocessing, ticket: Ticket | None, memory: int
    ) -> tuple[Array, float]:
        """Decode a picture in its turn; it is opened again, for who waits holds nothing."""
        async with self._turns.hold(memory):
            return await self._submit(lambda: Picture(data).decode(wanted), ticket)

    def _begun(self, data: bytes | bytearray, wanted: Preprocessing) -> Array | int:
        """Decode a small picture; of a large one return the bytes it is to wait for."""
        picture = Picture(data)
        memory = picture.memory(wanted)
        if memory > self._memory:
            raise TooLarge(
                f"decoding the image takes {memory // 2**20} MiB of memory, this node has {self._memory // 2**20}; "
                "send it smaller, or as an ordinary JPEG"
            )
        return picture.decode(wanted) if memory <= self._small else memory

    def _submit(self, work: Callable[[], T], ticket: Ticket | None) -> "asyncio.Future[tuple[T, float]]":
        """Do something in a thread, unless it comes too late; it ends with what that gives, and the seconds it took."""

        def timed() -> tuple[T, float]:
            started = self._clock.monotonic()
            self._check_open()
            if ticket is not None and ticket.gone():
                raise ClientGone("the client has left")
            if ticket is not None and started > ticket.deadline:
                raise DeadlineExceeded("the deadline passed before the image could be decoded")
            result = work()
            return result, self._clock.monotonic() - started

        self._check_open()
        return asyncio.get_running_loop().run_in_executor(self._pool, timed)

    def _check_open(self) -> None:
        if self._closed:
            raise Draining("this node is stopping; ask another")


class _Turns:
    """A semaphore in bytes. Who waits is not overtaken, so that smaller ones cannot keep a large one waiting."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._move_on()
        await turn
        try:
            yield
        finally:
            self._free += size
            self._move_on()

    def _move_on(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            if not turn.done():  # cancelled, as the loop ended
                self._free -= size
                turn.set_result(None)
