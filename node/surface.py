"""The node as HTTP clients see it: routes, the shape of errors, request ids, deadlines.

``docs/protocol.md`` describes it. Every answer that is no success is JSON with ``error``, ``reason`` and ``node``;
input never causes a 500, and a traceback goes to the log only. Probes and metrics are answered from memory, never
queued behind work, and not counted as traffic.
"""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from node.admission import Admission
from node.errors import BadRequest, DeadlineExceeded, Draining, InternalError, Overloaded, RequestError
from node.lifecycle import Lifecycle
from node.load import HEADER, PATH, Rate
from node.metrics import Metrics
from node.pipeline import Pipeline, Ticket
from node.protocols.image import Body, classify
from registry.timing import Clock

log = logging.getLogger(__name__)

# A request that names no deadline gets the smart client's default, seconds.
DEFAULT_DEADLINE = 30.0
DEADLINE_HEADER = "x-envoy-expected-rq-timeout-ms"
# aiohttp's own refusals, in the protocol's words.
_REASONS = {404: "not_found", 413: "too_large", 415: "unsupported"}
_CLASSIFY = "/classify"


class ClientFaults(logging.Filter):
    """Says in one quiet line what aiohttp logs with a traceback: bytes that are no HTTP."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See ``logging.Filter``."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            log.info("a client sent what is no HTTP: %s", str(error.message).splitlines()[0])
            return False
        return True


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Surface:
    """The routes of one node. ``pipeline`` is set once the model is warm, ``refusing`` late in draining."""

    def __init__(
        self,
        node: str,
        lifecycle: Lifecycle,
        admission: Admission,
        metrics: Metrics,
        *,
        clock: Clock,
        rng: random.Random,
        max_body: int,
        body_timeout: float,
    ) -> None:
        self.pipeline: Pipeline | None = None
        self.refusing = False
        self._node = node
        self._lifecycle = lifecycle
        self._admission = admission
        self._metrics = metrics
        self._clock = clock
        self._rng = rng
        self._max_body = max_body
        self._body_timeout = body_timeout
        self._answered = Rate()

    def application(self) -> web.Application:
        """Return the aiohttp application with every route."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard], client_max_size=self._max_body)
        app.router.add_post(_CLASSIFY, self._classify, expect_handler=self._expect)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get(PATH, self._load)
        app.router.add_get("/metrics", self._prometheus)
        return app

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn whatever happens into an answer of the protocol, and finish its headers."""
        started = self._clock.monotonic()
        request_id = self._request_id(request)
        try:
            response = await handler(request)
        except RequestError as error:
            response = self._refusal(error)
            if request.path == _CLASSIFY:
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
            log.exception("%s %s failed, request %s", request.method, request.path, request_id)
            response = self._refusal(InternalError("the node failed; its log says why"))
        response.headers["X-Request-ID"] = request_id
        if self._lifecycle.leaving:
            response.force_close()
        if request.path == _CLASSIFY:  # probes are not traffic
            now = self._clock.monotonic()
            self._metrics.answered(response.status, now - started)
            self._say_load(response, now)
        return response

    def _say_load(self, response: web.StreamResponse, now: float) -> None:
        if response.status < 500:  # what refuses or fails at once must not look quick
            self._answered.count(now)
        if self.pipeline is not None:
            response.headers[HEADER] = self.pipeline.load(self._answered.at(now)).orca

    async def _classify(self, request: web.Request) -> web.Response:
        pipeline = self._serving()
        now = self._clock.monotonic()
        ticket = Ticket(now + _remaining(request), _gone(request))
        self._admission.enter()
        body = Body(request, self._admission, self._max_body)
        try:
            body.announce()
            self._admission.check_wait(pipeline.predicted_wait(), ticket.deadline - now)
            answer = await classify(request, pipeline, body, ticket, node=self._node, body_timeout=self._body_timeout)
        finally:
            body.release()
            self._admission.leave()
        for result in answer.results:
            if result.reason is not None:
                self._metrics.rejected(result.reason)
        timing = (
            f"queue;dur={ticket.queued * 1e3:.2f}, decode;dur={ticket.decoding * 1e3:.2f}, "
            f"infer;dur={ticket.inference * 1e3:.2f}"
        )
        return self._json(200, answer, {"Server-Timing": timing})

    async def _healthz(self, _: web.Request) -> web.Response:
        """Alive: the loop answers."""
        return self._json(200, {"status": "alive", "node": self._node, **self._lifecycle.snapshot()})

    async def _readyz(self, _: web.Request) -> web.Response:
        """Ready: loaded, warm, not draining. How much is queued is no part of it."""
        if self._lifecycle.leaving:
            raise Draining(f"{self._node} is {self._lifecycle.state}")
        if not self._lifecycle.ready:
            raise Overloaded(f"{self._node} is {self._lifecycle.state}")
        return self._json(200, {"status": "ready", "node": self._node})

    async def _load(self, _: web.Request) -> web.Response:
        """How busy it is; refused where work would be."""
        return self._json(200, self._serving().load(self._answered.at(self._clock.monotonic())))

    async def _prometheus(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": self._metrics.content_type})

    async def _expect(self, request: web.Request) -> None:
        """Ask for a body (``Expect: 100-continue``) only where it will be read; a refusal then costs nobody a byte."""
        if not self.refusing and (request.content_length or 0) <= self._max_body:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0

    def _serving(self) -> Pipeline:
        if self.refusing:
            raise Draining(f"{self._node} is draining; ask another node")
        if self.pipeline is None:
            raise Overloaded(f"{self._node} is still {self._lifecycle.state}; ask another node or come back")
        return self.pipeline

    def _refusal(self, error: RequestError) -> web.Response:
        response = self._json(
            error.status, {"error": str(error), "reason": error.reason, **error.details}, error.headers
        )
        if error.closes:
            response.force_close()
        return response

    def _json(self, status: int, body: object, headers: dict[str, str] | None = None) -> web.Response:
        if status >= 300 and isinstance(body, dict):
            body = {**body, "node": self._node}
        return web.Response(
            status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers
        )

    def _request_id(self, request: web.Request) -> str:
        given = request.headers.get("X-Request-ID", "")
        if 0 < len(given) <= 128 and given.isascii() and given.isprintable():
            return given
        return f"{self._rng.getrandbits(64):016x}"


def _remaining(request: web.Request) -> float:
    """Seconds the request's own deadline leaves it."""
    text = request.headers.get(DEADLINE_HEADER)
    if text is None:
        return DEFAULT_DEADLINE
    try:
        seconds = float(text) / 1e3
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise BadRequest(f"{DEADLINE_HEADER} is not a number of milliseconds: {text[:40]}")
    if seconds <= 0:
        raise DeadlineExceeded("the deadline had passed when the request came in")
    return seconds


def _gone(request: web.Request) -> Callable[[], bool]:
    """Return a check whether the client's connection is still there: aiohttp lets a handler run on without it."""
    protocol = request.protocol

    def gone() -> bool:
        transport = protocol.transport
        return transport is None or transport.is_closing()

    return gone


def _explain(error: web.HTTPException, request: web.Request) -> str:
    if error.status == 404:
        return f"there is nothing at {request.path}; POST an image to {_CLASSIFY}"
    if error.status == 405:
        return f"{request.path} takes {error.headers.get('Allow', 'another method')}, not {request.method}"
    return error.reason
