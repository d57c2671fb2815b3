"""Writing to one client with back-pressure, and giving up on one that takes nothing."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp.abc import AbstractStreamWriter

from registry.lookup.journal import PIECE

# Seconds in which a client must have taken what was written to it.
PATIENCE = 30.0


class Patience:
    """Who is being waited for, and since when."""

    def __init__(self) -> None:
        self._since: dict[asyncio.Transport, float] = {}

    @contextmanager
    def waiting(self, transport: asyncio.Transport, now: float) -> Iterator[None]:
        """Wait for a client inside this block, for ``PATIENCE`` at most."""
        self._since[transport] = now
        try:
            yield
        finally:
            self._since.pop(transport, None)

    def cut_off(self, now: float) -> int:
        """Drop the connections of those waited for too long; how many."""
        late = [transport for transport, since in self._since.items() if now - since > PATIENCE]
        for transport in late:
            transport.abort()
        return len(late)


class Outlet:
    """The body of a chunked response, past aiohttp's own writer: what many are sent is put together once.

    What a client has not taken is seen at once (the transport's mark is 0) and the kernel keeps little of it.
    """

    __slots__ = ("_transport", "_writer")

    def __init__(self, transport: asyncio.Transport, writer: AbstractStreamWriter) -> None:
        self._transport = transport
        self._writer = writer
        transport.set_write_buffer_limits(high=0)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            connection: socket.socket | None = transport.get_extra_info("socket")
            if connection is not None:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, PIECE)

    @property
    def transport(self) -> asyncio.Transport:
        """The connection."""
        return self._transport

    @property
    def backlog(self) -> int:
        """Bytes not taken yet."""
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Write one chunk; nothing happens when the client is gone."""
        if data and not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def drained(self) -> None:
        """Wait until everything is taken. Raises ``ConnectionError`` when the client is gone."""
        await self._writer.drain()
