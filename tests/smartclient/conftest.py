"""What the client's tests share: a clock by hand, seeded chance, and small real servers."""

import asyncio
import json
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from registry.testing import ManualClock

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def rng() -> random.Random:
    return random.Random(7)


@dataclass
class StubNode:
    """A real HTTP server that classifies everything as 7; ``seen`` holds the requests' headers."""

    name: str
    handler: Handler | None = None
    port: int = 0
    seen: list[dict[str, str]] = field(default_factory=list)
    runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        application = web.Application(client_max_size=1 << 26)
        application.router.add_route("*", "/{tail:.*}", self._answer)
        self.runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self.runner is not None:
            runner, self.runner = self.runner, None
            await runner.cleanup()

    async def kill(self) -> None:
        """Stop listening and cut every connection, as SIGKILL would."""
        for connection in list(self.runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await self.stop()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(dict(request.headers))
        if self.handler is not None:
            return await self.handler(request)
        await request.read()
        return web.json_response(reply(self.name))


def reply(node: str) -> dict[str, object]:
    result = {"name": "", "predictions": [{"label": "7", "index": 7, "score": 0.9}]}
    return {"model": "digits", "version": "1", "node": node, "results": [result]}


@pytest.fixture
async def fleet() -> AsyncIterator[Callable[..., Awaitable[list[StubNode]]]]:
    """Start stub nodes: ``await fleet(3)`` or ``await fleet(1, handler=…)``."""
    started: list[StubNode] = []

    async def start(count: int = 3, handler: Handler | None = None) -> list[StubNode]:
        nodes = [StubNode(f"digits-{len(started) + number + 1}", handler) for number in range(count)]
        for node in nodes:
            await node.start()
            started.append(node)
        return nodes

    yield start
    for node in started:
        await node.stop()


@pytest.fixture
async def raw_server() -> AsyncIterator[Callable[..., Awaitable[int]]]:
    """Start a TCP server with a handler of (reader, writer); gives its port."""
    servers: list[asyncio.Server] = []

    async def start(handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> int:
        async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handler(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(closing, "127.0.0.1", 0)
        servers.append(server)
        return server.sockets[0].getsockname()[1]

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one HTTP request with a Content-Length; its head."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.split(b":")[1]))
    return head


def raw_answer(body: bytes | None = None) -> bytes:
    body = json.dumps(reply("raw")).encode() if body is None else body
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.fixture
def http() -> type:
    """The two helpers for ``raw_server`` handlers (test folders are no packages, so they travel as a fixture)."""
    return type("http", (), {"read_request": staticmethod(read_request), "raw_answer": staticmethod(raw_answer)})


class Served:
    """Stub nodes in a thread with a loop of its own, for clients that block."""

    def __init__(self, count: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.ports: list[int] = []
        self.runners: list[web.AppRunner] = []
        for number in range(count):
            self.do(self._start(f"digits-{number + 1}"))

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    async def _start(self, name: str) -> None:
        async def answer(request: web.Request) -> web.Response:
            body = await request.read()
            if body.startswith(b"bad"):
                refusal = {"error": "not an image", "reason": "bad_image", "node": name}
                return web.json_response(refusal, status=422)
            await asyncio.sleep(float(request.query.get("sleep", "0")))
            prediction = {"label": "7", "score": 0.9, "index": 7}
            return web.json_response({"node": name, "results": [{"predictions": [prediction]}]})

        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.runners.append(runner)
        self.ports.append(site._server.sockets[0].getsockname()[1])

    @property
    def registry(self) -> str:
        return "static://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def stop(self) -> None:
        for runner in self.runners:
            self.do(runner.cleanup())
        self.do(self._end_handlers())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _end_handlers(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """Three nodes for clients in other threads and processes; a body that starts with ``bad`` is no image to them."""
    made = Served(3)
    yield made
    made.stop()
