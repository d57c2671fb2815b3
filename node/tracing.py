"""One OpenTelemetry span for each request for work, as a child of the caller's.

Only where the program has set a tracer provider when the node starts, as ``opentelemetry-instrument twostep node …``
does; otherwise nothing is imported and nothing is paid. Attributes are those of OpenTelemetry's conventions for HTTP,
plus the model and where the time went. Queries, bodies and headers are in no attribute.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from node.intake import VISIT

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def spans() -> list[Any]:
    """Return the middleware that makes spans, for ``aiohttp.web``; an empty list where nobody would see them."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return []
    return [_middleware()]


def trace_id(request: web.Request) -> str:
    """Return the trace that a request's ``traceparent`` names, for a log; ``-`` for none."""
    parts = request.headers.get("traceparent", "").split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 and parts[1].isalnum() else "-"


def _middleware() -> Any:
    from opentelemetry import propagate, trace  # noqa: PLC0415 - imported by the program already

    tracer = trace.get_tracer("node")

    @web.middleware
    async def traced(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = "" if resource is None else resource.canonical
        context = propagate.extract({name.lower(): value for name, value in request.headers.items()})
        attributes = {"http.request.method": request.method, "http.route": route}
        # Probes ask all the time and say nothing: a span is kept only for what turned out to be work.
        span = tracer.start_span(f"{request.method} {route}", context, trace.SpanKind.SERVER, attributes)
        with trace.use_span(span):
            response = await handler(request)
        visit = request.get(VISIT)
        if visit is None:
            return response
        span.set_attribute("http.response.status_code", response.status)
        span.set_attribute("twostep.model", visit.model)
        span.set_attribute("twostep.version", visit.version)
        span.set_attribute("twostep.queue_ms", round(visit.ticket.queued * 1e3, 3))
        span.set_attribute("twostep.decode_ms", round(visit.ticket.decoding * 1e3, 3))
        span.set_attribute("twostep.inference_ms", round(visit.ticket.inference * 1e3, 3))
        if response.status >= 500:
            span.set_attribute("error.type", str(response.status))
            span.set_status(trace.StatusCode.ERROR)
        span.end()
        return response

    return traced
