"""Many browsers that look at a dashboard and never click, in a process of their own: they read, and count bytes.

``python -m infra.bench.dashboard_viewers HOST:PORT`` takes the addresses to look at on one line of standard input, with
spaces between them and one view for each, and prints a JSON line when all have heard something. Each line after that is
answered with the bytes that each has received so far, as they came off the wire, and with what went wrong: a stream
that is refused, is not gzip, ends, or says nothing for a while.
"""

import asyncio
import json
import sys
import time
from urllib.parse import quote

# Five beats of the dashboard.
SILENCE = 10.0
_PATIENCE = 60.0


class View(asyncio.Protocol):
    """One stream."""

    def __init__(self, address: str, path: str) -> None:
        self.received = 0
        self.failure = ""
        self.heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = b""
        self._open = False
        self._heard_at = time.monotonic()
        self._request = (
            f"GET /stream?at={quote(path, safe='')} HTTP/1.1\r\nHost: {address}\r\n"
            "Accept: text/event-stream\r\nAccept-Encoding: gzip\r\n\r\n"
        ).encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Count; the head is looked at."""
        self.received += len(data)
        self._heard_at = time.monotonic()
        if self._open:
            return
        self._head += data
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            self._fail(f"answered {head[9:12].decode(errors='replace')}")
        elif b"content-encoding: gzip" not in head.lower():
            self._fail("not gzip")
        elif body:
            self._open, self._head = True, b""
            self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """A view that was cut off has failed."""
        self._fail(str(exc) if exc else "ended")

    def silent(self) -> str:
        """What is wrong with it now."""
        if not self.failure and time.monotonic() - self._heard_at > SILENCE:
            self._fail(f"said nothing for {SILENCE:g} s")
        return self.failure

    def _fail(self, why: str) -> None:
        self.failure = self.failure or why
        self._settle()

    def _settle(self) -> None:
        if not self.heard.done():
            self.heard.set_result(None)


async def main(address: str) -> None:
    """Look until standard input ends."""
    loop = asyncio.get_running_loop()
    asking = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asking), sys.stdin)
    host, _, port = address.rpartition(":")
    views = [View(address, path) for path in (await asking.readline()).decode().split()]
    for view in views:
        await loop.create_connection(lambda view=view: view, host, int(port))  # type: ignore[misc]
    async with asyncio.timeout(_PATIENCE):
        await asyncio.gather(*(view.heard for view in views))
    while True:
        failures = [view.silent() for view in views]
        report = {"received": [view.received for view in views], "failures": [each for each in failures if each]}
        print(json.dumps(report | {"at": time.monotonic()}), flush=True)
        if not await asking.readline():
            return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
