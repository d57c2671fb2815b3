"""The routes under ``/v1/kv``."""

import base64
from typing import Any

from aiohttp import web

from registry.embedded.core import Core, flag
from registry.embedded.definitions import BadRequest
from registry.embedded.kv import LARGEST_VALUE, Pair


class KvApi:
    """Handlers; ``routes`` lists them."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def routes(self) -> list[web.RouteDef]:
        """Method, path and handler of each."""
        return [
            web.get("/v1/kv/{key:.*}", self.get),
            web.put("/v1/kv/{key:.*}", self.put),
            web.delete("/v1/kv/{key:.*}", self.delete),
        ]

    async def get(self, request: web.Request) -> web.Response:
        """One pair, or with ``recurse`` or ``keys`` all under a prefix; 404 when there is none."""
        prefix, kv = request.match_info["key"], self._core.kv
        keys, recurse = flag(request, "keys"), flag(request, "recurse")
        if not prefix and not (keys or recurse):
            raise BadRequest("Missing key name")
        await self._core.block(request, lambda: kv.index_of(prefix))
        index = kv.index_of(prefix)
        pair = kv.get(prefix)
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
        key = request.match_info["key"]
        if not key:
            raise BadRequest("Missing key name")
        value = await request.read()
        if len(value) > LARGEST_VALUE:
            raise web.HTTPRequestEntityTooLarge(
                LARGEST_VALUE, len(value), text=f"Request body too large, max size: {LARGEST_VALUE} bytes"
            )
        done = self._core.kv.put(key, value, flags=_number(request, "flags") or 0, cas=_number(request, "cas"))
        return self._core.reply(request, done)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a key, or with ``recurse`` all that start with it; answers whether it was done."""
        key, recurse = request.match_info["key"], flag(request, "recurse")
        if not key and not recurse:
            raise BadRequest("Missing key name")
        done = self._core.kv.delete(key, recurse=recurse, cas=_number(request, "cas"))
        return self._core.reply(request, done)


def _number(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise BadRequest(f"Invalid value for ?{name}")
    return int(text)


def _view(pair: Pair) -> dict[str, Any]:
    return {
        "LockIndex": 0,
        "Key": pair.key,
        "Flags": pair.flags,
        "Value": base64.b64encode(pair.value).decode() if pair.value else None,
        "CreateIndex": pair.create_index,
        "ModifyIndex": pair.modify_index,
    }
