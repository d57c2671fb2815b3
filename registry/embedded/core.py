"""What the routes share: the state, the waiting of blocking queries, and the shape of an answer.

A blocking query with an index from the future (the registry was restarted without a file) is answered at once, so
that its client starts again instead of waiting for an index that may be long in coming.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from registry.embedded.catalog import Catalog, Index
from registry.embedded.definitions import BadRequest, seconds
from registry.embedded.filtering import Fields, Predicate, predicate
from registry.embedded.kv import KeyValues
from registry.embedded.views import DATACENTER, Machine
from registry.timing import Clock
from registry.waiting import within

# Consul's own: what a query waits when it does not say, and at most.
DEFAULT_WAIT = 300.0
LONGEST_WAIT = 600.0

# What counts in 64 bits, as everywhere in Consul.
_LARGEST = 2**64 - 1
_TRUE = {"", "1", "t", "true"}
_FALSE = {"0", "f", "false"}


async def _nowhere() -> None:
    """Keep nothing: there is no file."""


class Core:
    """The registry behind the routes. ``keep`` returns when what was changed is where it is to be kept."""

    def __init__(self, machine: Machine, index: Index, kv: KeyValues, *, clock: Clock, rng: random.Random) -> None:
        self.machine = machine
        self.index = index
        self.catalog = Catalog(index)
        self.kv = kv
        self.clock = clock
        self.port = 0
        self.keep: Callable[[], Awaitable[None]] = _nowhere
        self._rng = rng
        self._blocked: set[tuple[Callable[[], bool], asyncio.Future[None]]] = set()
        self._waking = False
        self._closing = False

    @property
    def waiting(self) -> int:
        """How many queries are blocking now."""
        return len(self._blocked)

    def wake(self) -> None:
        """Let blocking queries look again, once all changes of this moment are made."""
        if not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._wake)

    def close(self) -> None:
        """End all blocking queries."""
        self._closing = True
        self.wake()

    async def block(self, request: web.Request, index_now: Callable[[], int]) -> None:
        """Wait as the request asks (``index``, ``wait``) while ``index_now`` has not passed. Raises ``BadRequest``."""
        asked = whole_number(request.query.get("index") or "0", "Invalid index")
        # Index 0 does not block, and every index is above 0.
        await self.block_until(request, lambda: not index_now() <= asked <= self.index.value)

    async def block_until(self, request: web.Request, passed: Callable[[], bool]) -> None:
        """Wait as the request asks (``wait``) until something has ``passed``. Raises ``BadRequest``."""
        wait = self._wait(request)
        if passed() or self._closing:
            return
        blocked = (passed, asyncio.get_running_loop().create_future())
        self._blocked.add(blocked)
        try:
            await within(wait, blocked[1], self.clock)
        finally:
            self._blocked.discard(blocked)

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

    def _wake(self) -> None:
        self._waking = False
        for passed, future in self._blocked:
            if not future.done() and (self._closing or passed()):
                future.set_result(None)


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
    """Refuse what can only be a mistake. Raises ``BadRequest`` or an HTTP error."""
    if "stale" in request.query and "consistent" in request.query:
        raise BadRequest("Cannot specify ?stale with ?consistent, conflicting semantics.")
    if request.query.get("dc", DATACENTER) not in {"", DATACENTER}:
        raise web.HTTPInternalServerError(text="No path to datacenter")


def whole_number(text: str, complaint: str) -> int:
    """Read 64 bits without a sign. Raises ``BadRequest`` with the complaint."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) <= _LARGEST):
        raise BadRequest(complaint)
    return int(text)


def wanted(request: web.Request, fields: Fields) -> Predicate:
    """What an element must be for the request's ``filter``. Raises ``BadRequest``."""
    expression = request.query.get("filter", "")
    return predicate(expression, fields) if expression else lambda _: True


def named(request: web.Request, part: str, what: str) -> str:
    """Return a part of the path that must not be empty. Raises ``BadRequest``."""
    if not request.match_info[part]:
        raise BadRequest(f"Missing {what}")
    return request.match_info[part]
