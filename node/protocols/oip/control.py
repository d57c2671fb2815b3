"""``/v2/repository/…``: Triton's extension that lists the models and loads and unloads them.

Listing is for whoever may use the node, the rest for whoever may steer it. Models come from where the node was told to
look, never out of a request: a configuration or files in one are refused. Loading brings a model to what is wanted of
it, new versions included; what cannot be loaded is told, and what served before goes on.
"""

import asyncio
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from node.errors import BadRequest, NodeError, RequestError, SlowBody
from node.intake import Intake
from node.protocols.oip import describe
from node.protocols.oip.handlers import answer_json

T = TypeVar("T")

# Bytes of a body, and seconds for it to come in.
_MOST = 64 * 1024
_TIME = 10.0


class _Index(msgspec.Struct):
    ready: bool = False


class _Load(msgspec.Struct):
    parameters: dict[str, Any] | None = None


class Control:
    """The routes under ``/v2/repository`` of one node."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def routes(self) -> list[web.RouteDef]:
        """See ``aiohttp.web``."""
        return [
            web.post("/v2/repository/index", self._index),
            web.post("/v2/repository/models/{model}/load", self._load),
            web.post("/v2/repository/models/{model}/unload", self._unload),
        ]

    async def _index(self, request: web.Request) -> web.Response:
        self._intake.check_reader(request)
        asked = await _read(request, _Index)
        return answer_json(describe.index(self._intake.repository.entries(), ready=asked.ready))

    async def _load(self, request: web.Request) -> web.Response:
        self._intake.check_admin(request)
        asked = await _read(request, _Load)
        if given := [each[:40] for each in asked.parameters or () if each == "config" or each.startswith("file:")]:
            raise BadRequest(f"{given[0]!r} in the request: models come from the node's own folders, put it there")
        try:
            await self._intake.repository.load(request.match_info["model"])
        except RequestError:
            raise
        except NodeError as error:
            raise BadRequest(f"{request.match_info['model']} is not loaded: {error}") from error
        return answer_json({})

    async def _unload(self, request: web.Request) -> web.Response:
        self._intake.check_admin(request)
        await _read(request, _Load)
        await self._intake.repository.unload(request.match_info["model"])
        return answer_json({})


async def _read(request: web.Request, form: type[T]) -> T:
    """Read a small JSON body, or none."""
    data = bytearray()
    try:
        async with asyncio.timeout(_TIME):
            while chunk := await request.content.readany():
                data += chunk
                if len(data) > _MOST:
                    raise BadRequest(f"the body is longer than the {_MOST // 1024} KiB this takes")
    except TimeoutError as error:
        raise SlowBody(f"the body did not arrive within {_TIME:g} s") from error
    except web.RequestPayloadError as error:
        raise BadRequest("the body is malformed") from error
    try:
        return msgspec.json.decode(data or b"{}", type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body cannot be read: {str(error).splitlines()[0]}") from error
