"""``/v2/repository/…``: Triton's extension that lists the models and loads and unloads them.

Listing is for whoever may use the node, the rest for whoever may steer it. Models come from where the node was told to
look, never out of a request: a configuration or files in one are refused. Loading brings a model to what is wanted of
it, new versions included; what cannot be loaded is told, and what served before goes on.
"""

from typing import Any

import msgspec
from aiohttp import web

from node.errors import BadRequest, NodeError, RequestError
from node.intake import Intake
from node.protocols import orders
from node.protocols.oip import describe
from node.protocols.oip.handlers import answer_json


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
        asked = await orders.read(request, _Index)
        return answer_json(describe.index(self._intake.repository.entries(), ready=asked.ready))

    async def _load(self, request: web.Request) -> web.Response:
        self._intake.check_admin(request)
        asked = await orders.read(request, _Load)
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
        await orders.read(request, _Load)
        await self._intake.repository.unload(request.match_info["model"])
        return answer_json({})
