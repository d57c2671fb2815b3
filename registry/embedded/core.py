"""What the routes share: the state, the waiting of blocking queries, and the shape of an answer.

A blocking query with an index from the future (the registry was restarted without a file) is answered at once, so
that its client starts again instead of waiting for an index that may be long in coming.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from registry.embedded.catalog import Catalog, Index
from registry.embedded.definitions import BadRequest, seconds
from registry.embedded.kv import KeyValues
from registry.embedded.views import DATACENTER, Machine
from registry.timing import Clock

# Consul's own: what a query waits when it does not say, and at most.
DEFAULT_WAIT = 300.0
LONGEST_WAIT = 600.0

_TRUE = {"", "1", "t", "true"}
_FALSE = {"0", "f", "false"}


class Core:
    """The registry behind the routes."""

    def __init__(self, machine: Machine, index: Index, kv: KeyValues, *, clock: Clock, rng: random.Random) -> None:
        self.machine = machine
        self.index = index
        self.catalog = Catalog(index)
        self.kv = kv
        self.clock = clock
        self.port = 0
        self.waiting = 0
        self._rng = rng
        self._changed = asyncio.Event()
        self._closing = False

    def wake(self) -> None:
        """Let blocking queries look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """End all blocking queries."""
        self._closing = True
        self.wake()

    async def block(self, request: web.Request, index_now: Callable[[], int]) -> None:
        """Wait as the request asks (``index``, ``wait``) while ``index_now`` has not passed. Raises ``BadRequest``."""
        asked = _index(request)
        until = self.clock.monotonic() + self._wait(request)
        self.waiting += 1
        try:
            # Index 0 does not block, and every index is above 0.
            while not self._closing and index_now() <= asked <= self.index.value:
                left = until - self.clock.monotonic()
                if left <= 0:
                    return
                await self._change_within(left)
        finally:
            self.waiting -= 1

    def reply(self, request: web.Request, value: Any, *, index: int | None = None, status: int = 200) -> web.Response:
        """Answer with JSON, indented for ``?pretty``, and with Consul's headers when it has an index."""
        body = msgspec.json.encode(value)
        if "pretty" in request.query:
            body = msgspec.json.format(body, indent=4) + b"\n"
        headers = {} if index is None else self.query_headers(request, index)
        return web.Response(body=body, status=status, content_type="application/json", headers=headers)

    def query_headers(self, request: web.Request, index: int) -> dict[str, str]:
        """What a client of blocking queries reads."""
        return {
            "X-Consul-Index": str(index),
            "X-Consul-KnownLeader": "true",
            "X-Consul-LastContact": "0",
            "X-Consul-Effective-Consistency": "stale" if "stale" in request.query else "leader",
        }

    def _wait(self, request: web.Request) -> float:
        text = request.query.get("wait", "")
        try:
            asked = seconds(text)
        except BadRequest:
            raise BadRequest("Invalid wait time") from None
        wait = min(LONGEST_WAIT, asked or DEFAULT_WAIT)
        return wait + self._rng.random() * wait / 16

    async def _change_within(self, left: float) -> None:
        change = asyncio.ensure_future(self._changed.wait())
        timer = asyncio.ensure_future(self.clock.sleep(left))
        try:
            await asyncio.wait({change, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()
            timer.cancel()


def flag(request: web.Request, name: str) -> bool:
    """Whether a query parameter is set; ``?passing`` alone is. Raises ``BadRequest``."""
    if name not in request.query:
        return False
    text = request.query[name].lower()
    if text not in _TRUE | _FALSE:
        raise BadRequest(f"Invalid value for ?{name}")
    return text in _TRUE


def required_flag(request: web.Request, name: str) -> bool:
    """A query parameter that must be true or false. Raises ``BadRequest``."""
    text = request.query.get(name, "")
    if not text:
        raise BadRequest(f"Missing value for {name}")
    if text.lower() not in _TRUE | _FALSE:
        raise BadRequest(f'Invalid value for {name}: "{text}"')
    return text.lower() in _TRUE


def check_query(request: web.Request) -> None:
    """Refuse what this registry would otherwise ignore at a price. Raises ``BadRequest`` or an HTTP error."""
    if request.query.get("filter"):
        raise BadRequest("the embedded registry has no ?filter; filter the answer yourself, or run Consul")
    if request.query.get("dc", DATACENTER) != DATACENTER:
        raise web.HTTPInternalServerError(text="No path to datacenter")


def _index(request: web.Request) -> int:
    text = request.query.get("index", "0")
    if not text.isdecimal():
        raise BadRequest("Invalid index")
    return int(text)
