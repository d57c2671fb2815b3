"""``/admin/…``: steering a node, for whoever holds its admin token.

Draining here takes the node out of service and leaves it running: it says so on ``/readyz`` and in the registry, goes
on answering while clients hear of it, then refuses new work. ``GET /admin/state`` shows what is still inside; undrain
brings it back. Ending a node is for a signal, not for HTTP.
"""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from node.errors import BadRequest
from node.intake import Intake
from node.protocols import orders


class Drain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``/admin/drain``; why, for people who look at the registry."""

    reason: str = ""


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that moves a label; an empty version takes it away."""

    version: str = ""


class Admin:
    """The admin routes of one node. ``drain(reason)`` and ``undrain`` are the server's, ``state`` describes it."""

    def __init__(
        self,
        intake: Intake,
        *,
        drain: Callable[[str], Awaitable[None]],
        undrain: Callable[[], Awaitable[None]],
        state: Callable[[], dict[str, object]],
    ) -> None:
        self._intake = intake
        self._drain = drain
        self._undrain = undrain
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """See ``aiohttp.web``."""
        return [
            web.get("/admin/state", self._show),
            web.post("/admin/drain", self._do_drain),
            web.post("/admin/undrain", self._do_undrain),
            web.put("/admin/models/{model}/labels/{label}", self._label),
            web.delete("/admin/models/{model}/labels/{label}", self._label),
        ]

    async def _show(self, request: web.Request) -> web.Response:
        self._intake.check_admin(request)
        return self._answer()

    async def _do_drain(self, request: web.Request) -> web.Response:
        self._intake.check_admin(request)
        await self._drain((await orders.read(request, Drain)).reason)
        return self._answer()

    async def _do_undrain(self, request: web.Request) -> web.Response:
        self._intake.check_admin(request)
        await self._undrain()
        return self._answer()

    async def _label(self, request: web.Request) -> web.Response:
        self._intake.check_admin(request)
        label = request.match_info["label"]
        if not label.isascii() or not label.replace("-", "").replace("_", "").isalnum():
            raise BadRequest("a label is made of letters, digits, - and _")
        version = ""
        if request.method == "PUT":
            version = (await orders.read(request, Label)).version
            if not version:
                raise BadRequest('say which version: {"version": "2"}')
        self._intake.repository.label(request.match_info["model"], label, version)
        return self._answer()

    def _answer(self) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._state()), content_type="application/json")
