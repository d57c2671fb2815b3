"""Spans of a node: one for each request for work, below the caller's, and none where nobody set a provider."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(monkeypatch):
    """What is recorded; the provider is this test's only."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


async def test_a_request_for_work_is_a_span_below_the_callers(spans, make_node, session, png):
    node = make_node()
    await node.start()
    async with session.post(f"{node.url}/classify?top=1", data=png(), headers={"traceparent": PARENT}) as reply:
        assert reply.status == 200
    (span,) = spans.get_finished_spans()
    assert span.name == "POST /classify"
    assert span.kind is trace.SpanKind.SERVER
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    said = dict(span.attributes)
    assert (said["http.response.status_code"], said["twostep.model"], said["twostep.version"]) == (200, "digits", "1")
    assert said["twostep.inference_ms"] >= 0


async def test_a_refusal_for_load_is_an_error_and_bad_input_is_none(spans, make_node, session, png):
    node = make_node()
    await node.start()
    async with session.post(f"{node.url}/classify", data=b"no image") as reply:
        assert reply.status == 422
    node.intake.refusing = True
    async with session.post(f"{node.url}/classify", data=png()) as reply:
        assert reply.status == 503
    bad, refused = spans.get_finished_spans()
    assert bad.status.is_unset
    assert refused.status.status_code is trace.StatusCode.ERROR
    assert refused.attributes["error.type"] == "503"


async def test_probes_leave_no_spans(spans, make_node, session):
    node = make_node()
    await node.start()
    for path in ("/readyz", "/healthz", "/load", "/metrics", "/nothing"):
        async with session.get(node.url + path):
            pass
    assert spans.get_finished_spans() == ()


async def test_without_a_provider_nothing_is_made(make_node, session, png):
    node = make_node()
    await node.start()
    assert len(node._runner.app.middlewares) == 1
    async with session.post(f"{node.url}/classify", data=png(), headers={"traceparent": "garbage"}) as reply:
        assert reply.status == 200


async def test_the_log_names_request_and_trace(node, session, png, caplog):
    caplog.set_level("DEBUG", "node.surface")
    headers = {"traceparent": PARENT, "X-Request-ID": "mine-7"}
    async with session.post(f"{node.url}/classify", data=png(), headers=headers) as reply:
        assert reply.status == 200
    (line,) = [record.getMessage() for record in caplog.records if record.name == "node.surface"]
    assert line.startswith("POST /classify 200 in ")
    assert f"request mine-7, trace {PARENT.split('-')[1]}" in line
