"""Calls and attempts that leave OpenTelemetry spans.

One for the call (``POST digits``) in the caller's own trace, and one below it for each attempt, hedges included, with
the attributes of OpenTelemetry's conventions for HTTP. A node is sent its attempt's context, by whatever propagator the
program has set (``traceparent`` as a rule). A span ends with the head of an answer; a streamed body is its reader's.
Queries and bodies are nobody's business: no attribute holds them.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode

from smartclient.attempt import Sender, Terms, Tried
from smartclient.call import Caller, Done
from smartclient.endpoint import Lease
from smartclient.stats import Outcome
from smartclient.transport import Request

_tracer = trace.get_tracer("smartclient")


class TracedCaller(Caller):
    """A ``Caller`` that makes a span of each call."""

    async def call(self, request: Request, **options: Any) -> Done:
        """See ``Caller``."""
        attributes = {
            "http.request.method": request.method,
            "twostep.service": self._service,
            "twostep.policy": self._balancer.policy.name,
        }
        with _tracer.start_as_current_span(
            f"{request.method} {self._service}", _parent(request.headers), SpanKind.CLIENT, attributes
        ) as span:
            try:
                done = await super().call(request, **options)
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                raise
            span.set_attribute("http.response.status_code", done.answer.status)
            span.set_attribute("twostep.node", done.endpoint.name)
            span.set_attribute("twostep.attempts", done.attempts)
            if done.answer.status >= 400:
                span.set_attribute("error.type", str(done.answer.status))
                span.set_status(StatusCode.ERROR)
            return done


class TracedSender(Sender):
    """A ``Sender`` that makes a span of each attempt and sends its context along."""

    async def send(self, lease: Lease, terms: Terms, *, number: int, remaining: float, fresh: bool = False) -> Tried:
        """See ``Sender``."""
        instance, request = lease.endpoint.instance, terms.request
        attributes: dict[str, str | int] = {
            "http.request.method": request.method,
            "server.address": instance.address,
            "server.port": instance.port,
            "twostep.node": instance.id,
            "twostep.policy": self._balancer.policy.name,
        }
        if number > 1:
            attributes["http.request.resend_count"] = number - 1
        with lease, _tracer.start_as_current_span(request.method, None, SpanKind.CLIENT, attributes) as span:
            sent = msgspec.structs.replace(request, headers=_with_context(request.headers))
            terms = msgspec.structs.replace(terms, request=sent)
            try:
                tried = await super().send(lease, terms, number=number, remaining=remaining, fresh=fresh)
            except asyncio.CancelledError:
                span.set_attribute("twostep.outcome", Outcome.CANCELLED.value)
                raise
            span.set_attribute("twostep.outcome", tried.outcome.value)
            if tried.failure is not None:
                span.record_exception(tried.failure)
                span.set_attribute("error.type", tried.outcome.value)
                span.set_status(StatusCode.ERROR, str(tried.failure))
            elif tried.answer is not None:
                span.set_attribute("http.response.status_code", tried.answer.status)
                if tried.answer.status >= 400:
                    span.set_attribute("error.type", str(tried.answer.status))
                    span.set_status(StatusCode.ERROR)
            return tried


def _parent(headers: Mapping[str, str]) -> Context | None:
    """Return the context that the caller's own headers name; None, which is the current one, when there is a span."""
    if not headers or trace.get_current_span().get_span_context().is_valid:
        return None
    return propagate.extract({name.lower(): value for name, value in headers.items()})


def _with_context(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return ``headers`` with the current context, in place of what the caller said of his."""
    context: dict[str, str] = {}
    propagate.inject(context)
    return {name: value for name, value in headers.items() if name.lower() not in context} | context
