"""What the adapters' tests share: nodes that stream, nodes that fail, and how much memory a piece of work takes."""

import asyncio
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web

MEGABYTE = 1 << 20
SIZE = 48 * MEGABYTE
LEAST_HELD = 24 * MEGABYTE  # a body held whole would take twice that


async def streaming(request: web.Request) -> web.StreamResponse:
    """Count what is sent, and send as much back as ``?send=`` asks for, neither held whole."""
    got = 0
    async for piece in request.content.iter_chunked(1 << 16):
        got += len(piece)
    response = web.StreamResponse(headers={"X-Got": str(got)})
    await response.prepare(request)
    left = int(request.query.get("send", "0"))
    while left > 0:
        await response.write(b"x" * min(left, 1 << 16))
        left -= 1 << 16
    return response


def pieces(size: int = SIZE) -> Iterator[bytes]:
    """Give ``size`` bytes, 64 KiB at a time."""
    for _ in range(size // (1 << 16)):
        yield b"y" * (1 << 16)


@contextmanager
def memory_bound(most: int = LEAST_HELD) -> Iterator[None]:
    """Fail when Python allocates more than ``most`` bytes at once meanwhile."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most, f"{peak / MEGABYTE:.0f} MiB at once"


@pytest.fixture
def big() -> type:
    """Large bodies (test folders are no packages, so they travel as a fixture)."""
    return type(
        "big",
        (),
        {
            "SIZE": SIZE,
            "streaming": staticmethod(streaming),
            "pieces": staticmethod(pieces),
            "memory_bound": staticmethod(memory_bound),
        },
    )


@pytest.fixture
def at() -> Callable[..., str]:
    """The registry's address for nodes (with a ``port``) or ports."""

    def address(*nodes: object) -> str:
        return "static://" + ",".join(f"127.0.0.1:{getattr(node, 'port', node)}" for node in nodes)

    return address


class Cutting:
    """A TCP server's handler that reads a request and hangs up; ``heads`` are what it read."""

    def __init__(self, read_request: Callable[..., object]) -> None:
        self.heads: list[bytes] = []
        self._read_request = read_request

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await self._read_request(reader))


@pytest.fixture
def cutting(http) -> Cutting:
    return Cutting(http.read_request)
