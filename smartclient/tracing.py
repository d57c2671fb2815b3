"""Whether a client makes OpenTelemetry spans: decided once, when it is made, by the classes it is made of.

So a client without spans pays nothing, and OpenTelemetry is imported only where it is used. What a program's own
``traceparent`` header says is passed on either way: untouched without spans, as their parent with them.
"""

import sys

from smartclient.attempt import Sender
from smartclient.call import Caller
from smartclient.errors import BadOption


def makers(wanted: bool | None) -> tuple[type[Sender], type[Caller]]:
    """Return the classes that make a client's attempts and calls: the plain ones, or those that make spans as well.

    ``wanted`` None: with spans where the program has set a tracer provider already. Raises ``BadOption`` for True
    without OpenTelemetry.
    """
    if not (configured() if wanted is None else wanted):
        return Sender, Caller
    try:
        from smartclient.spans import TracedCaller, TracedSender  # noqa: PLC0415 - comes with an extra
    except ImportError as error:
        raise BadOption('tracing=True needs OpenTelemetry; install it with `pip install "twostep[otel]"`') from error
    return TracedSender, TracedCaller


def configured() -> bool:
    """Whether this program has set an OpenTelemetry tracer provider; one that did has imported its API."""
    trace = sys.modules.get("opentelemetry.trace")
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
