"""The token of a client: where it is taken from, which requests carry it, and that nothing ever shows it."""

import asyncio
import logging
import random
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from registry.testing import ManualClock, ScriptedDirectory, instance
from smartclient import AccessDenied, AsyncSmartClient, SmartClient, spans
from smartclient.bearer import Bearer
from smartclient.errors import BadOption, CallFailed, ClientError, HttpError
from smartclient.stats import Outcome
from smartclient.testing import Reply, ScriptedTransport, classified
from smartclient.transport import Answer, TransportFailure

SECRET = "s3cret-of-the-fleet"
ONE, TWO = "127.0.0.1:9001", "127.0.0.1:9002"
DENIED = Reply(status=401, body=b'{"error": "this node asks for a token", "reason": "unauthorized", "node": "n1"}')


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("TWOSTEP_NODE_TOKEN", "TWOSTEP_NODE_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def transport(clock: ManualClock) -> ScriptedTransport:
    return ScriptedTransport(clock, otherwise=classified())


@pytest.fixture
async def made(clock: ManualClock, transport: ScriptedTransport) -> AsyncIterator[Callable[..., AsyncSmartClient]]:
    """Make clients of two nodes that can be asked how busy they are."""
    clients = []

    def make(**options: object) -> AsyncSmartClient:
        directory = ScriptedDirectory([instance(number, meta={"load": "/load"}) for number in (1, 2)])
        settings = {"transport": transport, "clock": clock, "rng": random.Random(1)} | options
        clients.append(AsyncSmartClient("digits", directory, **settings))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


def given(transport: ScriptedTransport) -> list[str | None]:
    return [each.headers.get("Authorization") for each in transport.sent if each.request.target != "/load"]


async def test_every_request_carries_it_and_no_probe_does(fleet) -> None:
    asked: list[tuple[str, str | None]] = []
    output = {"name": "y", "datatype": "INT8", "shape": [1], "data": [7]}
    answers = {"/load": {"wait_ms": 1.0, "inflight": 1}, "/v2/models/digits": {"name": "digits", "inputs": []}}

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.headers.get("Authorization")))
        result = {"predictions": [{"label": "7", "score": 0.9}]}
        return web.json_response(answers.get(request.path, {"results": [result], "outputs": [output]}))

    nodes = await fleet(2, handler=answer)
    listed = [instance(number, port=node.port, meta={"load": "/load"}) for number, node in enumerate(nodes)]
    async with AsyncSmartClient("digits", ScriptedDirectory(listed), token=SECRET) as client:
        await client.classify(b"png")
        assert [each.result.label async for each in client.classify_many([b"a", b"b"])] == ["7", "7"]
        await client.predict(np.zeros(1))
        await client.request("PUT", "/put")
        await client.get("/get")
        await client.post("/post", json={})
        async with client.stream("POST", "/stream", data=iter([b"piece"])) as reply:
            await reply.read()
    shown = {path: {token for each, token in asked if each == path} for path, _ in asked}
    assert shown.pop("/load") == {None}
    everything = ["/classify", "/v2/models/digits", "/v2/models/digits/infer", "/put", "/get", "/post", "/stream"]
    assert shown == {path: {f"Bearer {SECRET}"} for path in everything}


async def test_it_goes_along_when_a_call_is_tried_again(made, transport) -> None:
    client = made(token=SECRET, policy="rotation", attempts=2)
    for node in (ONE, TWO):
        transport.script(node, Reply(status=500))
    await client.get("/")
    assert given(transport) == [f"Bearer {SECRET}"] * 2


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
async def test_a_request_that_says_itself_who_asks_is_left_alone(made, transport, name: str) -> None:
    await made(token=SECRET, policy="rotation").get("/", headers={name: "Basic eDp5"})
    [sent] = transport.sent
    assert [value for key, value in sent.headers.items() if key.lower() == "authorization"] == ["Basic eDp5"]


async def test_without_a_token_there_is_no_header(made, transport) -> None:
    await made().classify(b"png")
    assert given(transport) == [None]


async def test_the_environments_is_taken_and_its_file_goes_before_its_text(
    made, transport, environment, tmp_path: Path
) -> None:
    environment.setenv("TWOSTEP_NODE_TOKEN", "from-text")
    await made().get("/")
    file = tmp_path / "token"
    file.write_text("from-file\n")
    environment.setenv("TWOSTEP_NODE_TOKEN_FILE", str(file))
    await made().get("/")
    await made(token="from-program").get("/")
    await made(token="").get("/")
    assert given(transport) == ["Bearer from-text", "Bearer from-file", "Bearer from-program", None]


async def test_a_file_is_read_again_so_that_it_may_be_replaced(made, transport, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    client = made(token=file)
    await client.get("/")
    file.write_text("new\n")
    await client.get("/")
    file.unlink()
    await client.get("/")
    assert given(transport) == ["Bearer old", "Bearer new", "Bearer new"]


def test_the_blocking_client_has_it_too(transport, clock) -> None:
    directory = ScriptedDirectory([instance(1)])
    with SmartClient("digits", directory, token=SECRET, transport=transport) as client:
        client.classify(b"png")
        client.get("/")
    assert given(transport) == [f"Bearer {SECRET}"] * 2


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read: No such file or directory"), ("", "is empty"), ("two words", "no spaces")],
)
def test_a_file_that_holds_no_token_is_one_line_at_once(made, environment, tmp_path: Path, content, words) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    environment.setenv("TWOSTEP_NODE_TOKEN_FILE", str(file))
    with pytest.raises(BadOption, match=rf"^TWOSTEP_NODE_TOKEN_FILE: .*{words}") as caught:
        made()
    assert "\n" not in str(caught.value)
    with pytest.raises(BadOption, match=rf"^token: .*{words}"):
        made(token=file)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_node_that_lets_nobody_in_is_told_plainly_asked_once_and_kept(made, transport, status: int) -> None:
    for node in (ONE, TWO):
        transport.script(node, Reply(status=status, body=DENIED.body))
    client = made(policy="rotation")
    for call in range(1, 31):
        with pytest.raises(AccessDenied) as caught:
            await client.classify(b"png")
        assert len(transport.sent) == call
    error = caught.value
    assert str(error) == (
        "n1 refuses access: this node asks for a token; set TWOSTEP_NODE_TOKEN_FILE to a file with a token it takes"
    )
    assert (error.status, error.reason, error.node, error.retryable) == (status, "unauthorized", "n1", False)
    with pytest.raises(AccessDenied):
        await client.predict({"x": np.zeros(1)})
    assert [each["state"] for each in client.snapshot()["balancer"]["endpoints"]] == ["closed", "closed"]


async def test_who_sends_requests_of_his_own_gets_the_refusal_as_it_is(made, transport) -> None:
    for node in (ONE, TWO):
        transport.script(node, DENIED)
    assert (await made(policy="rotation").get("/")).status == 401


# What shows a token: every kind of answer, by a server that repeats what it was sent.


def echoing(status: int) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        said = f"you sent {request.headers['Authorization']}" + "!" * 600
        refusal = {"error": said, "reason": said, "node": said}
        return web.json_response(refusal if status >= 400 else {"results": [{"error": said}]}, status=status)

    return answer


def shown(error: BaseException) -> str:
    """All that a log, a person or a program may see of an error."""
    chain, each = [error], error
    while each := each.__cause__:
        chain.append(each)
    fields = [f"{one!s} {one!r} {vars(one)}" for one in chain if isinstance(one, ClientError)]
    return "\n".join(["".join(traceback.format_exception(error)), *fields])


@pytest.mark.parametrize("status", [200, 400, 401, 404, 422, 500, 503, 504])
async def test_what_a_node_repeats_of_it_is_in_no_error(fleet, status: int) -> None:
    [node] = await fleet(1, handler=echoing(status))
    async with AsyncSmartClient("digits", f"static://{node.address}", token=SECRET, timeout=5.0) as client:
        for call in (client.predict(np.zeros(1)), client.predict({"x": [1]}), client.classify(b"png", model="a")):
            with pytest.raises(ClientError) as caught:
                await call
            assert SECRET not in shown(caught.value)
        assert "you sent Bearer (token)!" in str(caught.value)
        reply = await client.get("/")
        assert SECRET in reply.text(), "what was answered is the caller's"
        if status >= 400:
            with pytest.raises(HttpError, match=r"you sent Bearer \(token\)!") as refusal:
                reply.raise_for_status()
            assert SECRET not in shown(refusal.value)


async def test_a_token_cut_off_at_the_end_of_a_message_is_hidden_as_well(fleet) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"error": "-" * 495 + request.headers["Authorization"][7:]}, status=422)

    [node] = await fleet(1, handler=answer)
    async with AsyncSmartClient("digits", f"static://{node.address}", token=SECRET) as client:
        with pytest.raises(ClientError) as caught:
            await client.classify(b"png")
    assert SECRET[:4] not in str(caught.value)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer("smartclient"))
    return exporter


@pytest.mark.parametrize("answer", [b"%s\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n"])
async def test_nor_is_it_in_spans_and_logs_when_what_comes_back_is_no_http(
    raw_server, http, exported: InMemorySpanExporter, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await http.read_request(reader)
        [line] = [line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization")]
        writer.write(answer % line)
        await writer.drain()

    caplog.set_level(logging.DEBUG)
    port = await raw_server(repeat)
    registry = f"static://127.0.0.1:{port}"
    async with AsyncSmartClient("digits", registry, token=SECRET, tracing=True, timeout=5.0) as client:
        for call in (client.classify(b"png"), client.get("/"), client.post("/", data=iter([b"piece"]))):
            with pytest.raises(CallFailed) as caught:
                await call
            assert "(token)" in str(caught.value), "it was there to be hidden"
            assert SECRET not in shown(caught.value)
        assert SECRET not in f"{client.snapshot()} {client!r} {client.parts!r} {vars(client)}"
    spoken = "".join(span.to_json() for span in exported.get_finished_spans())
    assert "not an HTTP answer" in spoken
    assert SECRET not in spoken
    assert caplog.records
    assert SECRET not in caplog.text


class Broken:
    """A body that breaks off, as a transport might tell it."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"piece"
        raise TransportFailure(Outcome.RESET, f"not an HTTP answer: {SECRET}")

    async def close(self) -> None:
        pass


async def test_nor_where_a_streamed_answer_breaks_off(made, transport, monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(*_: object, **__: object) -> Answer:
        return Answer(200, {}, b"", Broken())

    monkeypatch.setattr(transport, "send", send)
    async with made(token=SECRET, policy="rotation").stream("GET", "/") as reply:
        with pytest.raises(CallFailed, match=r"broke off: not an HTTP answer: \(token\)") as caught:
            await reply.read()
    assert SECRET not in shown(caught.value)


def test_it_has_no_repr_of_its_own(environment) -> None:
    bearer = Bearer.of(SECRET, {})
    assert SECRET not in repr(bearer)
    assert Bearer.of(None, {}) is None
