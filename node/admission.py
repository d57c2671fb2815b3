"""Whether a request may come in: bounded by predicted time first, by count and bytes as a backstop.

Asked twice. Before the body is read, ``enter`` looks at how many requests and how many bytes the node holds already;
after decoding, ``check_wait`` compares the predicted wait with the limit and with the request's own deadline. What is
refused here costs nothing and is answered at once, so that the client can try another node. ``RequestError`` says what
to do. Numbers: 64 MiB of bodies at once are one of the largest size the node takes by default, or 200 photos that wait
to be decoded; with the 200 MB that ``decoding`` may hold they keep a node within 300 MB of its idle memory, whatever is
sent. Small bodies find a little room besides, so that a few large ones, slow to arrive, cannot keep everybody out.
"""

import asyncio
import math

from node.errors import DeadlineExceeded, Overloaded

MAX_REQUESTS = 512
MAX_BYTES = 64 * 1024 * 1024
_SMALL = 256 * 1024
_RESERVE = 8 * 1024 * 1024


def retry_after(wait: float, limit: float) -> int:
    """Whole seconds, at least 1, until a queue of ``wait`` seconds will have fallen to ``limit``."""
    return max(1, math.ceil(wait - limit))


class Admission:
    """What the node holds now, and its bounds. ``limit`` is the longest wait it lets a request in for, in seconds."""

    def __init__(self, *, limit: float, max_requests: int = MAX_REQUESTS, max_bytes: int = MAX_BYTES) -> None:
        self.limit = limit
        self.requests = 0
        self.bytes = 0
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """Count a request in. Raises ``Overloaded``; otherwise ``leave`` must follow."""
        if self.requests >= self._max_requests:
            raise Overloaded(f"this node holds {self.requests} requests already; try another or come back")
        self.requests += 1
        self._idle.clear()

    def check_bytes(self, size: int, *, of: int) -> None:
        """Raise ``Overloaded`` where there is no room for ``size`` more bytes of a body of (so far) ``of`` in all."""
        room = self._max_bytes + (_RESERVE if of <= _SMALL else 0)
        if self.bytes + size > room:
            mebibytes = self.bytes / 2**20
            raise Overloaded(f"this node holds {mebibytes:.0f} MiB of requests already; try another or come back")

    def hold(self, size: int, *, of: int) -> None:
        """Count in ``size`` bytes of a body that have arrived, see ``check_bytes``. Raises ``Overloaded``."""
        self.check_bytes(size, of=of)
        self.bytes += size

    def release(self, size: int) -> None:
        """Count ``size`` bytes out."""
        self.bytes -= size

    def leave(self) -> None:
        """Count a request out."""
        self.requests -= 1
        if self.requests == 0:
            self._idle.set()

    def check_wait(self, wait: float, remaining: float) -> None:
        """Refuse what would wait too long: more than ``limit``, or than ``remaining`` until its deadline (seconds)."""
        if remaining <= 0:
            raise DeadlineExceeded("the deadline has passed")
        if wait > min(self.limit, remaining):
            raise Overloaded(
                f"this node would keep the request waiting for {wait:.1f} s; try another or come back",
                retry_after=retry_after(wait, self.limit),
                wait=wait,
            )

    async def idle(self) -> None:
        """Wait until no request is inside."""
        await self._idle.wait()

    def snapshot(self) -> dict[str, float]:
        """What is held now, and the bound in time."""
        return {"requests": self.requests, "bytes": self.bytes, "queue_limit_ms": round(self.limit * 1e3)}
