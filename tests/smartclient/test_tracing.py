"""Spans of calls and attempts, by OpenTelemetry's own SDK; and that a client without them adds nothing."""

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from registry.testing import ManualClock, ScriptedDirectory, instance
from smartclient import AsyncSmartClient, SmartClient, spans
from smartclient.call import Caller
from smartclient.errors import BadOption, CallFailed, NoEndpoints
from smartclient.hedge import HedgeRule
from smartclient.testing import DEAD, HUNG, Reply, ScriptedTransport

ROOT = Path(__file__).parents[2]
GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Traces:
    """What was exported so far."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def called(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """A program that has configured OpenTelemetry."""
    made = Traces()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", made.provider)
    monkeypatch.setattr(spans, "_tracer", made.provider.get_tracer("smartclient"))
    yield made
    made.provider.shutdown()


class World:
    def __init__(self, clock: ManualClock, **options: object) -> None:
        self.transport = ScriptedTransport(clock)
        self.directory = ScriptedDirectory([instance(1), instance(2)])
        self.client = AsyncSmartClient(
            "digits",
            self.directory,
            policy="rotation",
            transport=self.transport,
            clock=clock,
            rng=random.Random(1),
            **options,
        )

    def both(self, *steps: object) -> None:
        for node in ("127.0.0.1:9001", "127.0.0.1:9002"):
            self.transport.script(node, *steps)


@pytest.fixture
async def world(clock: ManualClock, traces: Traces) -> AsyncIterator[World]:
    made = World(clock)
    yield made
    await made.client.close()


def parent_id(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def traceparent(span: ReadableSpan) -> str:
    context = span.context
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


async def test_a_call_is_a_span_and_its_attempt_one_below(world: World, traces: Traces) -> None:
    answer = await world.client.post("/x?token=secret")
    [attempt], [call] = traces.called("POST"), traces.called("POST digits")
    assert call.parent is None
    assert parent_id(attempt) == call.context.span_id
    assert {attempt.kind, call.kind} == {SpanKind.CLIENT}
    port = 9000 + int(answer.node[-1])
    assert dict(attempt.attributes) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": port,
        "twostep.node": answer.node,
        "twostep.outcome": "ok",
        "twostep.policy": "rotation",
    }
    assert dict(call.attributes) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "twostep.attempts": 1,
        "twostep.node": answer.node,
        "twostep.policy": "rotation",
        "twostep.service": "digits",
    }
    assert not any("secret" in span.to_json() for span in traces.all)


async def test_the_node_is_sent_the_context_of_its_attempt(world: World, traces: Traces) -> None:
    await world.client.get("/", headers={"X-Mine": "1"})
    [attempt] = traces.called("GET")
    assert world.transport.sent[0].headers["traceparent"] == traceparent(attempt)
    assert world.transport.sent[0].headers["X-Mine"] == "1"


async def test_the_programs_span_is_the_parent_whatever_the_headers_say(world: World, traces: Traces) -> None:
    with traces.provider.get_tracer("program").start_as_current_span("work") as work:
        await world.client.get("/", headers={"Traceparent": GIVEN})
    [call], [attempt] = traces.called("GET digits"), traces.called("GET")
    assert parent_id(call) == work.get_span_context().span_id
    [sent] = [value for name, value in world.transport.sent[0].headers.items() if name.lower() == "traceparent"]
    assert sent == traceparent(attempt)


async def test_without_a_span_of_its_own_the_given_traceparent_is_the_parent(world: World, traces: Traces) -> None:
    await world.client.get("/", headers={"Traceparent": GIVEN})
    [call] = traces.called("GET digits")
    assert f"{call.context.trace_id:032x}" == GIVEN.split("-")[1]
    assert f"{parent_id(call):016x}" == GIVEN.split("-")[2]


async def test_a_retry_is_a_second_attempt_with_its_number_and_the_first_tells_its_error(
    world: World, traces: Traces
) -> None:
    world.transport.script("127.0.0.1:9001", DEAD)
    while (await world.client.get("/")).attempts == 1:
        traces.exporter.clear()
    [call], (first, second) = traces.called("GET digits"), traces.called("GET")
    assert {parent_id(first), parent_id(second)} == {call.context.span_id}
    assert "http.request.resend_count" not in first.attributes
    assert second.attributes["http.request.resend_count"] == 1
    assert first.status.status_code is StatusCode.ERROR
    assert first.attributes["error.type"] == first.attributes["twostep.outcome"] == "connect_error"
    assert first.events[0].attributes["exception.message"] == "scripted connect_error"
    assert call.status.status_code is StatusCode.UNSET
    assert call.attributes["twostep.attempts"] == 2


async def test_a_bad_answer_is_an_error_by_its_status(world: World, traces: Traces) -> None:
    world.both(Reply(status=404))
    await world.client.get("/")
    for span in traces.all:
        assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "404")


async def test_a_call_that_fails_records_why(world: World, traces: Traces, clock: ManualClock) -> None:
    world.both(HUNG)
    late = asyncio.ensure_future(world.client.post("/", timeout=1.0))
    await clock.advance(2.0)
    with pytest.raises(CallFailed):
        await late
    world.directory.set([])
    await clock.settle()
    with pytest.raises(NoEndpoints):
        await world.client.post("/")
    slow, none = traces.called("POST digits")
    assert (slow.attributes["error.type"], none.attributes["error.type"]) == ("DeadlineExceeded", "ServiceUnknown")
    assert "no answer within 1 s" in slow.events[0].attributes["exception.message"]
    assert {slow.status.status_code, none.status.status_code} == {StatusCode.ERROR}


async def test_a_hedge_that_loses_is_cancelled_and_no_error(clock: ManualClock, traces: Traces) -> None:
    world = World(clock, hedge=HedgeRule(least=1, budget=1.0))
    world.both(Reply(after=0.1))
    call = asyncio.ensure_future(world.client.get("/"))
    await clock.advance(0.2)
    await call
    traces.exporter.clear()
    await clock.advance(1.0)
    world.transport.script("127.0.0.1:9001", HUNG)
    world.transport.script("127.0.0.1:9002", HUNG, Reply())
    call = asyncio.ensure_future(world.client.get("/"))
    await clock.settle()
    slow = world.transport.sent[-1].endpoint
    world.both(Reply())
    await clock.advance(0.5)
    assert (await call).ok
    [outer], attempts = traces.called("GET digits"), traces.called("GET")
    by_port = {f"127.0.0.1:{span.attributes['server.port']}": span for span in attempts}
    assert len(by_port) == 2
    assert by_port[slow].attributes["twostep.outcome"] == "cancelled"
    assert by_port[slow].status.status_code is StatusCode.UNSET
    assert {parent_id(span) for span in attempts} == {outer.context.span_id}
    await world.client.close()


async def test_cancelling_a_traced_call_leaves_nothing_in_flight(world: World, clock: ManualClock) -> None:
    world.both(HUNG)
    call = asyncio.ensure_future(world.client.get("/"))
    await clock.settle()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert [each["in_flight"] for each in world.client.snapshot()["balancer"]["endpoints"]] == [0, 0]


def test_the_blocking_client_goes_on_with_the_span_of_the_thread_that_calls(served, traces: Traces) -> None:
    parents: dict[str, int] = {}

    def work(name: str) -> None:
        with traces.provider.get_tracer("program").start_as_current_span(name) as span:
            parents[name] = span.get_span_context().span_id
            client.get(f"/{name}")

    with SmartClient("digits", served.registry) as client:
        threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(parent_id(span) for span in traces.called("GET digits")) == sorted(parents.values())


@pytest.mark.parametrize("tracing", [None, False])
async def test_without_spans_nothing_is_added_and_a_given_traceparent_goes_untouched(
    clock: ManualClock, tracing: bool | None
) -> None:
    world = World(clock, tracing=tracing)
    await world.client.get("/")
    await world.client.get("/", headers={"traceparent": GIVEN})
    bare, given = (each.headers for each in world.transport.sent)
    assert set(bare) == {"x-envoy-expected-rq-timeout-ms", "x-envoy-attempt-count"}
    assert given["traceparent"] == GIVEN
    assert type(world.client.parts.caller) is Caller
    await world.client.close()


async def test_asked_for_before_the_program_configures_opentelemetry_it_adds_nothing_yet(clock: ManualClock) -> None:
    world = World(clock, tracing=True)
    await world.client.get("/")
    await world.client.get("/", headers={"traceparent": GIVEN})
    assert "traceparent" not in world.transport.sent[0].headers
    assert world.transport.sent[1].headers["traceparent"] == GIVEN
    await world.client.close()


def test_asking_for_spans_without_opentelemetry_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "smartclient.spans")
    monkeypatch.delattr("smartclient.spans")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(BadOption, match=r'pip install "twostep\[otel\]"'):
        AsyncSmartClient("digits", "static://127.0.0.1:1", tracing=True)


def test_a_client_does_not_import_opentelemetry_by_itself() -> None:
    code = (
        "import sys, smartclient; smartclient.SmartClient('digits', 'static://127.0.0.1:1');"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
