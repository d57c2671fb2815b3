"""The routes under ``/v1/kv``."""

import base64
from functools import partial
from typing import Any

from aiohttp import web

from registry.embedded.core import Core, check_query, flag, whole_number
from registry.embedded.definitions import BadRequest
from registry.embedded.kv import LARGEST_VALUE, Pair

_NO_SESSIONS = "the embedded registry has no sessions and no locks; use ?cas, or run Consul"


class KvApi:
    """Handlers; ``routes`` lists them."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def routes(self) -> list[web.RouteDef]:
        """Method, path and handler of each."""
        return [
            web.get("/v1/kv/{key:.*}", self.get, allow_head=False),
            web.put("/v1/kv/{key:.*}", self.put),
            web.delete("/v1/kv/{key:.*}", self.delete),
            web.route("*", "/v1/session/{what:.*}", self.session),
        ]

    async def get(self, request: web.Request) -> web.Response:
        """One pair, or with ``recurse`` or ``keys`` all under a prefix; 404 when there is none."""
        keys, recurse = flag(request, "keys"), flag(request, "recurse")
        prefix, kv = _key(request, empty=keys or recurse), self._core.kv
        index_now = partial(kv.index_under if keys or recurse else kv.index_of, prefix)
        await self._core.block(request, index_now)
        index, pair = index_now(), kv.get(prefix)
        found = kv.under(prefix) if keys or recurse else [pair] if pair else []
        if not found:
            return web.Response(status=404, headers=self._core.query_headers(request, index))
        if keys:
            return self._core.reply(request, kv.keys(prefix, request.query.get("separator", "")), index=index)
        if flag(request, "raw"):
            headers = self._core.query_headers(request, index) | {"X-Content-Type-Options": "nosniff"}
            return web.Response(body=found[0].value, headers=headers)
        return self._core.reply(request, [_view(each) for each in found], index=index)

    async def put(self, request: web.Request) -> web.Response:
        """Set a value; answers whether it was done."""
        key = _key(request)
        value = await request.read()
        if len(value) > LARGEST_VALUE:
            raise web.HTTPRequestEntityTooLarge(
                LARGEST_VALUE, len(value), text=f"Request body too large, max size: {LARGEST_VALUE} bytes"
            )
        done = self._core.kv.put(key, value, flags=_number(request, "flags") or 0, cas=_number(request, "cas"))
        return self._core.reply(request, done)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a key, or with ``recurse`` all that start with it; answers whether it was done."""
        recurse = flag(request, "recurse")
        key = _key(request, empty=recurse)
        done = self._core.kv.delete(key, recurse=recurse, cas=_number(request, "cas"))
        return self._core.reply(request, done)

    async def session(self, request: web.Request) -> web.Response:  # noqa: ARG002 - a handler's signature
        """Refuse: to clients a 404 would be an empty answer, and a lock that locks nothing is worse than none."""
        raise BadRequest(_NO_SESSIONS)


def _key(request: web.Request, *, empty: bool = False) -> str:
    check_query(request)
    for name in ("acquire", "release"):
        if name in request.query:
            raise BadRequest(_NO_SESSIONS)
    key = request.match_info["key"]
    if not key and not empty:
        raise BadRequest("Missing key name")
    return key


def _number(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    return None if text is None else whole_number(text, f"Invalid value for ?{name}")


def _view(pair: Pair) -> dict[str, Any]:
    return {
        "LockIndex": 0,
        "Key": pair.key,
        "Flags": pair.flags,
        "Value": base64.b64encode(pair.value).decode() if pair.value else None,
        "CreateIndex": pair.create_index,
        "ModifyIndex": pair.modify_index,
    }
