"""Many stream readers of the look-up service in one process, which only note when a piece of text has come.

``python -m infra.bench.readers HOST:PORT SERVICE COUNT TEXT`` connects them, a few at a time, each until it has seen
``TEXT`` (the last instance's id: then it has the whole list), and prints how many there are. Each line on standard
input is another text to wait for, answered when every reader has seen it with a JSON line: ``first`` and ``last``, when
it came to the first and to the last of them, in seconds of the machine's monotonic clock.
"""

import asyncio
import json
import resource
import sys
import time

JOINING = 32


class Reader(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._wanted = b""
        self._before = b""
        self._seen: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def want(self, text: bytes) -> asyncio.Future[float]:
        """Look for ``text`` from now on; gives the time it came."""
        self._wanted, self._before = text, b""
        self._seen = asyncio.get_running_loop().create_future()
        return self._seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Look, also across the border of two pieces."""
        if not self._seen.done():
            if self._wanted in self._before + data:
                self._seen.set_result(time.monotonic())
            self._before = data[-len(self._wanted) :]

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail: a reader that was cut off would spoil the measurement."""
        if not self._seen.done():
            self._seen.set_exception(exc or ConnectionError("the look-up service ended a stream"))


async def main(address: str, service: str, count: int, text: str) -> None:
    """Connect, then wait for what standard input names."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    loop = asyncio.get_running_loop()
    host, _, port = address.rpartition(":")
    request = f"GET /v1/lookup/{service}/stream?passing=0 HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
    turn = asyncio.Semaphore(JOINING)

    async def join() -> Reader:
        async with turn:
            reader = Reader(request)
            whole = reader.want(text.encode())
            await loop.create_connection(lambda: reader, host, int(port))
            await whole
            return reader

    readers = await asyncio.gather(*(join() for _ in range(count)))
    print(json.dumps({"readers": len(readers)}), flush=True)
    asking = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asking), sys.stdin)
    while line := await asking.readline():
        times = await asyncio.gather(*(reader.want(line.strip()) for reader in readers))
        print(json.dumps({"first": min(times), "last": max(times)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
