"""The node as HTTP clients see it: its own routes, the shape of errors, request ids, what every answer says.

``docs/protocol.md`` describes it. Every answer that is no success is JSON with ``error``, ``reason`` and ``node``;
input never causes a 500, and a traceback goes to the log only. Probes and metrics are answered from memory, never
queued behind work, and not counted as traffic.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from node.body import abandoned
from node.errors import Draining, InternalError, Overloaded, RequestError
from node.intake import VISIT, Intake, Visit
from node.lifecycle import Lifecycle
from node.load import HEADER, PATH, Load, Rate
from node.metrics import Metrics
from node.served import Served
from node.tracing import spans, trace_id
from registry.timing import Clock

log = logging.getLogger(__name__)

# aiohttp's own refusals, in the protocol's words.
_REASONS = {404: "not_found", 413: "too_large", 415: "unsupported"}


class ClientFaults(logging.Filter):
    """Says in one quiet line what aiohttp logs with a traceback: bytes that are no HTTP, or no body of one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See ``logging.Filter``."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            log.info("a client sent what is no HTTP: %s", str(error.message).splitlines()[0])
            return False
        if isinstance(error, web.RequestPayloadError):  # met when it skips the rest of what was answered already
            log.info("a client sent a malformed body with a request that was not taken")
            return False
        return True


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Spoken(Protocol):
    """What clients speak: routes whose handlers do their work inside ``Intake.admit``."""

    def routes(self) -> list[web.RouteDef]:
        """The routes, see ``aiohttp.web``."""
        ...


class Surface:
    """Everything one node answers: its own routes, and those of the ``protocols`` it speaks."""

    def __init__(
        self,
        node: str,
        lifecycle: Lifecycle,
        intake: Intake,
        metrics: Metrics,
        protocols: Sequence[Spoken],
        *,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._node = node
        self._lifecycle = lifecycle
        self._intake = intake
        self._metrics = metrics
        self._protocols = protocols
        self._clock = clock
        self._rng = rng
        self._answered = Rate()

    def application(self) -> web.Application:
        """Return the aiohttp application with every route."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[*spans(), guard], client_max_size=self._intake.max_body)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get(PATH, self._load)
        app.router.add_get("/metrics", self._prometheus)
        for protocol in self._protocols:
            for route in protocol.routes():
                options = {**route.kwargs, "expect_handler": self._expect}
                app.add_routes([web.RouteDef(route.method, route.path, route.handler, options)])
        return app

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn whatever happens into an answer of the protocol, and finish its headers."""
        started = self._clock.monotonic()
        request_id = self._request_id(request)
        try:
            response = await handler(request)
        except RequestError as error:
            response = self._refusal(error)
            if VISIT in request:
                self._metrics.rejected(error.reason)
        except web.HTTPException as error:
            response = self._json(
                error.status,
                {"error": _explain(error, request), "reason": _REASONS.get(error.status, "bad_request")},
                {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {},
            )
        except (asyncio.CancelledError, ConnectionError):  # the client has left, or the server is closing
            raise
        except Exception:
            words = "%s %s failed, request %s, trace %s"
            log.exception(words, request.method, request.path, request_id, trace_id(request))
            response = self._refusal(InternalError("the node failed; its log says why"))
        response.headers["X-Request-ID"] = request_id
        if self._lifecycle.leaving or abandoned(request):
            response.force_close()
        visit: Visit | None = request.get(VISIT)
        if visit is not None:  # probes are not traffic
            self._account(visit, response, started)
            if log.isEnabledFor(logging.DEBUG):
                took = (self._clock.monotonic() - started) * 1e3
                words = "%s %s %d in %.1f ms, request %s, trace %s"
                log.debug(words, request.method, request.path, response.status, took, request_id, trace_id(request))
        return response

    def _account(self, visit: Visit, response: web.StreamResponse, started: float) -> None:
        """Count an answer to work, and say on it where its time went and how busy the node is."""
        now = self._clock.monotonic()
        self._metrics.answered(visit.model, visit.version, response.status, now - started)
        if response.status < 500:  # what refuses or fails at once must not look quick
            self._answered.count(now)
        if response.status == 200:
            response.headers["Server-Timing"] = visit.ticket.timing
        if (report := self._report(visit.model, visit.version, now)) is not None:
            response.headers[HEADER] = report.orca

    def _report(self, model: str, version: str, now: float) -> Load | None:
        repository = self._intake.repository
        if not self._intake.open:
            return None
        served: Served | None
        try:
            served = repository.find(model, version=version)
        except RequestError:  # swapped out meanwhile
            served = repository.first
        return None if served is None else served.load(self._answered.at(now))

    async def _healthz(self, _: web.Request) -> web.Response:
        """Alive: the loop answers."""
        return self._json(200, {"status": "alive", "node": self._node, **self._lifecycle.snapshot()})

    async def _readyz(self, _: web.Request) -> web.Response:
        """Ready: loaded, warm, not draining. How much is queued is no part of it."""
        if self._lifecycle.leaving:
            raise Draining(f"{self._node} is {self._lifecycle.state}")
        if not self._lifecycle.ready:
            raise Overloaded(f"{self._node} is {self._lifecycle.state}")
        if not self._intake.repository.serving():  # unloaded by an operator
            raise Overloaded(f"{self._node} has no model loaded")
        return self._json(200, {"status": "ready", "node": self._node})

    async def _load(self, request: web.Request) -> web.Response:
        """How busy it is; refused where work would be."""
        self._intake.check_serving()
        served = self._intake.repository.find(request.query.get("model", ""))
        return self._json(200, served.load(self._answered.at(self._clock.monotonic())))

    async def _prometheus(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": self._metrics.content_type})

    async def _expect(self, request: web.Request) -> None:
        """Ask for a body (``Expect: 100-continue``) only where it will be read; a refusal then costs nobody a byte."""
        if self._intake.refusing or (request.content_length or 0) > self._intake.max_body:
            return
        try:
            self._intake.check_reader(request)
        except RequestError:  # the handler will say so
            return
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0

    def _refusal(self, error: RequestError) -> web.Response:
        response = self._json(
            error.status, {"error": str(error), "reason": error.reason, **error.details}, error.headers
        )
        if error.closes:
            response.force_close()
        return response

    def _json(self, status: int, body: object, headers: dict[str, str] | None = None) -> web.Response:
        if status >= 300 and isinstance(body, dict):
            # What was sent may be repeated in it, and be no text.
            error = str(body.get("error", "")).encode(errors="replace").decode()
            body = {**body, "error": error, "node": self._node}
        return web.Response(
            status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers
        )

    def _request_id(self, request: web.Request) -> str:
        given = request.headers.get("X-Request-ID", "")
        if 0 < len(given) <= 128 and given.isascii() and given.isprintable():
            return given
        return f"{self._rng.getrandbits(64):016x}"


def _explain(error: web.HTTPException, request: web.Request) -> str:
    if error.status == 404:
        return f"there is nothing at {request.path}; what there is: GET /openapi.json"
    if error.status == 405:
        return f"{request.path} takes {error.headers.get('Allow', 'another method')}, not {request.method}"
    return error.reason
