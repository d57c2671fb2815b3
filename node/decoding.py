"""The threads that turn image files into arrays, shared by all models of a node.

As many threads as cores, for Pillow lets go of the interpreter while it decodes. What decoding holds at once is bounded
in bytes, by what the headers promise: large pictures take turns, small ones go on beside them. Tiny files are decoded
in place, because handing over to a thread takes longer than they do.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from node.images import MAX_PIXELS, Picture, Preprocessing
from node.machine import cores
from node.tensors import Array
from registry.timing import Clock

# Up to this size decoding takes less than handing over to a thread does (measured: a third more digits a second). The
# bound on bytes is for the header: nothing hidden in 4 KiB takes long to parse.
_TINY_BYTES = 4096
_TINY_PIXELS = 64 * 64
# The largest picture that is let in, at Pillow's four bytes a pixel.
MEMORY = 4 * MAX_PIXELS
# All threads together may hold a quarter of it besides, in pictures too small to count.
_PART = 4
# Weight of the newest decode in the running mean that predicts the wait.
_NEWEST = 0.1


class Decoders:
    """A pool of decoding threads. Belongs to one event loop."""

    def __init__(self, clock: Clock, *, threads: int | None = None, memory: int = MEMORY) -> None:
        self.threads = threads or cores()
        self.pending = 0
        self.mean = 0.0
        self._clock = clock
        self._memory = _Memory(memory, small=memory // (_PART * self.threads))
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")

    @property
    def wait(self) -> float:
        """Seconds until an image that came now would be decoded by a thread of its own."""
        return max(0, self.pending - self.threads) * self.mean / self.threads

    async def decode(self, data: bytes | bytearray, wanted: Preprocessing) -> tuple[Array, float]:
        """Return the array and the seconds decoding took. Raises ``BadImage`` and ``TooLarge``."""
        if len(data) > _TINY_BYTES:
            return await self._in_thread(lambda: Picture(data), wanted)
        started = self._clock.monotonic()
        picture = Picture(data)
        if picture.pixels > _TINY_PIXELS:  # a small file can be a large picture
            return await self._in_thread(lambda: picture, wanted)
        return picture.decode(wanted), self._clock.monotonic() - started

    async def warm(self, data: bytes, wanted: Preprocessing) -> None:
        """Decode ``data`` once in every thread."""
        await asyncio.gather(*(self._in_thread(lambda: Picture(data), wanted) for _ in range(self.threads)))

    def close(self) -> None:
        """Let what is being decoded end, forget the rest."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def snapshot(self) -> dict[str, object]:
        """What is under way, and how long one takes."""
        return {
            "decoding": self.pending,
            "decode_ms": round(self.mean * 1e3, 3),
            "decode_wait_ms": round(self.wait * 1e3),
        }

    async def _in_thread(self, parse: Callable[[], Picture], wanted: Preprocessing) -> tuple[Array, float]:
        def work() -> tuple[Array, float]:
            started = self._clock.monotonic()
            picture = parse()
            with self._memory.hold(picture.memory(wanted)):
                return picture.decode(wanted), self._clock.monotonic() - started

        self.pending += 1
        try:
            array, seconds = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self.pending -= 1
        self.mean = seconds if self.mean == 0 else self.mean + _NEWEST * (seconds - self.mean)
        return array, seconds


class _Memory:
    """A semaphore in bytes; what is larger than all of it is let in alone, what is ``small`` at once and uncounted.

    Who waits is not overtaken, so that a stream of smaller pictures cannot keep a large one waiting for ever.
    """

    def __init__(self, total: int, *, small: int) -> None:
        self._total = total
        self._small = small
        self._free = total
        self._changed = threading.Condition()
        self._next = threading.Lock()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        if size <= self._small:
            yield
            return
        size = min(size, self._total)
        with self._next, self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()
