"""The look-up service over HTTP: routes, the token, refusals as JSON. ``docs/protocol.md`` is the text of it."""

import hmac
import random

import msgspec
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.typedefs import Handler

from registry.lookup import question as questions
from registry.lookup.hub import Hub
from registry.lookup.journal import PIECE
from registry.lookup.metrics import Metrics
from registry.lookup.outlet import Outlet
from registry.lookup.reader import Reader
from registry.lookup.refused import Refused, bad_request, unauthorized, unavailable
from registry.lookup.view import View
from registry.lookup.wire import STALE_FOR, Refusal
from registry.timing import Clock
from registry.token import Token
from registry.waiting import within

NAME = "Twostep's look-up service: GET /v1/lookup/SERVICE lists instances, /v1/lookup/SERVICE/stream follows them"
# An index this process cannot have given: from before a restart. Its client is not left waiting for long.
_FUTURE = 2.0
_OPEN = {"health", "ready"}


class Surface:
    """Handlers over a ``Hub``."""

    def __init__(self, hub: Hub, token: Token, *, clock: Clock, rng: random.Random) -> None:
        self._hub = hub
        self._token = token
        self._clock = clock
        self._rng = rng
        self._metrics = Metrics(hub)

    def application(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._guard])
        for path, handler, name in (
            ("/", self.root, "root"),
            ("/healthz", self.healthy, "health"),
            ("/readyz", self.ready, "ready"),
            ("/metrics", self.metrics, "metrics"),
            ("/v1/lookup/{service}", self.listing, "listing"),
            ("/v1/lookup/{service}/stream", self.stream, "stream"),
        ):
            app.router.add_get(path, handler, name=name, allow_head=False)
        return app

    async def root(self, request: web.Request) -> web.Response:  # noqa: ARG002 - a handler's signature
        """What this is."""
        return web.Response(text=f"{NAME}\n")

    async def healthy(self, request: web.Request) -> web.Response:  # noqa: ARG002 - as above
        """Whether this process answers."""
        return web.Response(text="ok\n")

    async def ready(self, request: web.Request) -> web.Response:  # noqa: ARG002 - as above
        """Whether clients may come."""
        if self._hub.stopping:
            raise unavailable("this look-up service is stopping")
        return web.Response(text="ready\n")

    async def metrics(self, request: web.Request) -> web.Response:  # noqa: ARG002 - as above
        """Everything counted."""
        return web.Response(body=self._metrics.text(), headers={hdrs.CONTENT_TYPE: self._metrics.content_type})

    async def listing(self, request: web.Request) -> web.StreamResponse:
        """The list, at once or when it has changed."""
        question = questions.read(request.match_info["service"], request.query, questions.LISTING)
        async with self._hub.view(question, waits=question.index is not None) as view:
            if question.index is not None:
                await self._until_newer(view, question.index, question.wait)
            whole = await view.whole(newest=True)
            stale_for = view.stale_for()
        headers = {
            hdrs.ETAG: f'"{whole.index}"',
            hdrs.CACHE_CONTROL: "private, max-age=1" if self._token.read() else "max-age=1",
            hdrs.VARY: hdrs.ACCEPT_ENCODING,
            STALE_FOR: f"{stale_for:.3f}",
        }
        if any(tag.value in {"*", str(whole.index)} for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        headers[hdrs.CONTENT_TYPE] = "application/json"
        pieces = whole.listing(question.query.service, stale_for)
        size = sum(map(len, pieces))
        if size <= PIECE:
            return web.Response(body=b"".join(pieces), headers=headers)
        response = web.StreamResponse(headers=headers)
        response.content_length = size
        if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
            response.enable_compression(web.ContentCoding.gzip)  # then the length is left out
        return await self._send(request, response, pieces)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The list and every change of it."""
        question = questions.read(request.match_info["service"], request.query, questions.STREAM)
        if request.version < HttpVersion11:
            raise bad_request("a stream needs HTTP/1.1")
        async with self._hub.view(question, waits=True) as view:
            response = web.StreamResponse(
                headers={
                    hdrs.CONTENT_TYPE: "application/x-ndjson",
                    hdrs.CACHE_CONTROL: "no-store",
                    STALE_FOR: f"{view.stale_for():.3f}",
                }
            )
            response.enable_chunked_encoding()
            place = None if question.index is None else view.journal.place_of(question.index)
            await self._follow(request, response, view, place)
        return response

    async def _until_newer(self, view: View, index: int, wait: float) -> None:
        wait += wait / 16 * self._rng.random()
        if index > view.index:
            wait = min(wait, _FUTURE)
        until = self._clock.monotonic() + wait
        while view.index <= index and not view.closed:
            left = until - self._clock.monotonic()
            if left <= 0:
                return
            await within(left, view.changed(), self._clock)

    async def _send(
        self, request: web.Request, response: web.StreamResponse, pieces: list[bytes]
    ) -> web.StreamResponse:
        await response.prepare(request)
        if request.transport is None:
            return response
        for piece in pieces:
            with self._hub.patience.waiting(request.transport, self._clock.monotonic()):
                await response.write(piece)
        await response.write_eof()
        return response

    async def _follow(self, request: web.Request, response: web.StreamResponse, view: View, place: int | None) -> None:
        writer = await response.prepare(request)
        if writer is None or request.transport is None:
            return
        reader = Reader(
            view,
            Outlet(request.transport, writer),
            place,
            clock=self._clock,
            patience=self._hub.patience,
            tally=self._hub.tally,
        )
        await reader.run()
        await response.write_eof()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        kind = request.match_info.route.name or "other"
        try:
            if kind not in _OPEN:
                self._ensure_token(request)
            answer = await handler(request)
        except Refused as error:
            answer = _refusal(error.status, error.reason, str(error), error.headers)
        except web.HTTPMethodNotAllowed:
            answer = _refusal(405, "bad_request", "everything here is asked for with GET", {hdrs.ALLOW: hdrs.METH_GET})
        except web.HTTPNotFound:
            answer = _refusal(404, "not_found", f"{request.path[:100]} is not served here: this is {NAME}", {})
        self._metrics.answered(kind, answer.status)
        return answer

    def _ensure_token(self, request: web.Request) -> None:
        token = self._token.read()
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        given = given.strip()
        if token and not (
            scheme.lower() == "bearer" and hmac.compare_digest(given.encode(errors="replace"), token.encode())
        ):
            raise unauthorized()


def _refusal(status: int, reason: str, sentence: str, headers: dict[str, str]) -> web.Response:
    body = msgspec.json.encode(Refusal(error=sentence, reason=reason))
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
