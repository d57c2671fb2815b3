"""A server that takes any request in and answers ``{}``, with as little work as a server can do.

Then the client is what is measured: a framework takes as long as the client does, and on two cores would be measured
with it. Bodies with a ``Content-Length`` only. ``python -m infra.bench.sink`` prints its URL, on loopback.
"""

import asyncio
import re
from typing import cast

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Sink(asyncio.Protocol):
    """One connection: requests one after another."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._missing = 0  # bytes of the body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._missing:
            self._missing -= len(data)
        else:
            head, end, body = (self._head + data).partition(b"\r\n\r\n")
            if not end:
                self._head = head
                return
            self._head = b""
            length = _LENGTH.search(head)
            self._missing = (int(length[1]) if length else 0) - len(body)
        if self._missing <= 0 and self._transport is not None:
            self._missing = 0
            self._transport.write(ANSWER)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
