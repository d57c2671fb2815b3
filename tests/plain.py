"""A plain HTTP/1.1 client that costs little: for loads that must not be slowed down by whoever makes them.

One request at a time on a connection, kept alive unless the answer says ``Connection: close``; nothing is tried again.
A request may also begin on a schedule of its own (``Poisson``), whatever has become of those before: an open loop.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Self

DEADLINE = "x-envoy-expected-rq-timeout-ms"


class Answer(NamedTuple):
    """What came back, and the seconds from the sending of the request to its last byte; status 0: nothing came."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float
    trouble: str = ""


def post(path: str, body: bytes, **headers: str) -> bytes:
    """A whole request as bytes; underscores in the names of headers become hyphens."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\nHost: node\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """One connection; ``usable``: it may carry another request."""

    def __init__(self) -> None:
        self.usable = True
        self._transport: asyncio.Transport | None = None
        self._came = bytearray()
        self._answer: asyncio.Future[Answer] | None = None
        self._sent = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, request: bytes) -> "asyncio.Future[Answer]":
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._sent = time.monotonic()
        if self._transport.is_closing():
            self._over("the connection was closed")
        else:
            self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, found, rest = bytes(self._came).partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self._came.clear()
        if headers.get("connection") == "close":
            self.close()
        self._over("", int(first.split()[1]), headers, rest[:length])

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._over(f"the connection was lost: {exc}")

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    def _over(self, trouble: str, status: int = 0, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(status, headers or {}, body, time.monotonic() - self._sent, trouble))


class Plain:
    """Asks one node at 127.0.0.1; a context manager."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: deque[_Connection] = deque()  # in turn, so that each hears soon that it should close
        self._all: set[_Connection] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        for each in self._all:
            each.close()
        await asyncio.sleep(0)  # transports close in the loop's next turn

    async def ask(self, request: bytes) -> Answer:
        """Send a request on an idle connection, or on a new one."""
        connection = await self._free()
        answer = await connection.ask(request)
        if connection.usable:
            self._idle.append(connection)
        else:
            self._all.discard(connection)
        return answer

    async def _free(self) -> _Connection:
        while self._idle:
            if (connection := self._idle.popleft()).usable:
                return connection
            self._all.discard(connection)
        _, made = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", self.port)
        self._all.add(made)
        return made


async def poisson(
    ask: Callable[[float], Coroutine[Any, Any, None]], *, rate: float, seconds: float, rng: random.Random
) -> None:
    """Call ``ask`` with the moment since the start, ``rate`` times a second for ``seconds``; wait for all to end."""
    began, at = time.monotonic(), 0.0
    async with asyncio.TaskGroup() as under_way:
        while (at := at + rng.expovariate(rate)) < seconds:
            if (early := began + at - time.monotonic()) > 0:
                await asyncio.sleep(early)
            under_way.create_task(ask(at))
