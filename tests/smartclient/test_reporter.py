"""What a client tells a dashboard, and that no dashboard, whatever it does, is ever felt by a call."""

import asyncio
import itertools
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from registry.dashboard.calls import Calls
from registry.dashboard.wire import MOST_NODES, PATH, NodeReport, Report
from registry.testing import ManualClock, ScriptedDirectory, instance
from smartclient import AsyncSmartClient, SmartClient, reporter
from smartclient.errors import BadOption, CallFailed
from smartclient.reporter import Reporter
from smartclient.testing import HUNG, Fault, Reply, ScriptedTransport
from smartclient.transport import Outcome

SECRET = "s3cret-of-the-dashboard"
ONE, TWO = "127.0.0.1:9001", "127.0.0.1:9002"
NAMES = (reporter.ADDRESS, reporter.NAME, reporter.TOKEN, reporter.TOKEN_FILE)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    # The network takes real time, of which a clock moved by hand knows nothing.
    monkeypatch.setattr(reporter, "SEND_WITHIN", 1e9)
    monkeypatch.setattr(reporter, "LAST_WITHIN", 1e9)
    return monkeypatch


class Board:
    """A dashboard: keeps what it is sent, and answers with ``status``, after ``gate`` where there is one."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.status = 204
        self.headers: dict[str, str] = {}
        self.gate: asyncio.Event | None = None
        self.asked = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        assert (request.method, request.path) == ("POST", PATH)
        self.bodies.append(await request.read())
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        return web.Response(status=self.status, headers=self.headers)

    @property
    def reports(self) -> list[Report]:
        return [msgspec.json.decode(body, type=Report) for body in self.bodies]


@pytest.fixture
async def board(fleet) -> Board:
    made = Board()
    [made.node] = await fleet(1, handler=made.answer)
    made.address = f"http://{made.node.address}"
    return made


@pytest.fixture
def transport(clock: ManualClock) -> ScriptedTransport:
    return ScriptedTransport(clock)


@pytest.fixture
async def make(clock: ManualClock, transport: ScriptedTransport):
    clients = []

    def one(address: str | None, *, nodes: int = 2, **options) -> AsyncSmartClient:
        directory = ScriptedDirectory([instance(number + 1) for number in range(nodes)])
        options = {"policy": "rotation", "reporter_name": "shop-1"} | options
        client = AsyncSmartClient(
            "digits", directory, reporter=address, transport=transport, clock=clock, rng=random.Random(1), **options
        )
        clients.append(client)
        return client

    yield one
    for client in clients:
        await client.close()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.002)


def told(client: AsyncSmartClient) -> int:
    return client.snapshot()["reporter"]["sent"] + client.snapshot()["reporter"]["dropped"]


def sending() -> bool:
    return any(task.get_coro().__name__ == "_status" for task in asyncio.all_tasks())


async def one_report(client: AsyncSmartClient, clock: ManualClock, seconds: float = 5.75) -> None:
    """Move the clock on until a report has been sent or dropped, ``seconds`` at most."""
    before, end = told(client), clock.monotonic() + seconds
    while told(client) == before and clock.monotonic() < end:
        await clock.advance(0.25)
        await until(lambda: not sending())
        await clock.settle()
    assert told(client) == before + 1


async def test_counts_are_of_each_period_alone(
    make: Callable, board: Board, clock: ManualClock, transport: ScriptedTransport
) -> None:
    client = make(board.address, throttle=False)
    transport.script(ONE, Reply(after=0.1))
    transport.script(TWO, Reply(status=500))
    for _ in range(4):
        call = asyncio.ensure_future(client.get("/"))
        await clock.advance(0.1)
        await call
    await one_report(client, clock)
    first = board.reports[0]
    assert (first.client, first.service, first.policy) == ("shop-1", "digits", "rotation")
    assert first.period == pytest.approx(clock.monotonic() - 1000.0, abs=0.25)
    assert first.period > 0.9
    assert (first.calls, first.failed, first.in_flight, first.hedges, first.throttled) == (4, 0, 0, 0, 0)
    one, two = sorted(first.nodes, key=lambda each: each.instance)
    assert (one.instance, one.ok, one.failed) == ("digits-1", 4, 0)
    assert (two.instance, two.ok, two.failed, two.latencies) == ("digits-2", 0, first.retries, [])
    assert first.retries > 0
    [(edge, count)] = one.latencies
    assert (first.latencies, count) == ([(edge, 4)], 4)
    assert 100.0 <= edge < 110.0

    for node in (ONE, TWO):
        transport.script(node, Fault(outcome=Outcome.RESET))
    with pytest.raises(CallFailed):
        await client.post("/", data=b"x")
    await one_report(client, clock)
    second = board.reports[1]
    assert (second.calls, second.failed, second.retries, second.latencies) == (1, 1, 0, [])
    assert sum(each.failed for each in second.nodes) == 1
    assert sum(each.ok for each in second.nodes) == 0
    assert client.snapshot()["reporter"] == {"sent": 2, "dropped": 0, "last_error": ""}


async def test_what_is_sent_is_what_a_dashboard_counts(make: Callable, board: Board, clock: ManualClock) -> None:
    client = make(board.address)
    for _ in range(10):
        await client.get("/")
    await one_report(client, clock)
    calls = Calls(clock)
    calls.take(board.bodies[0], "127.0.0.1")
    period = board.reports[0].period
    assert calls.service("digits").rps == pytest.approx(10 / period)
    assert calls.instance("digits", "digits-1").rps == pytest.approx(5 / period)
    assert calls.callers()[0].budget_left == client.snapshot()["calls"]["retries_left"]


async def test_attempts_under_way_and_states_are_told(
    make: Callable, board: Board, clock: ManualClock, transport: ScriptedTransport
) -> None:
    client = make(board.address, nodes=4)
    await client.ready()
    transport.script("127.0.0.1:9001", HUNG)
    transport.script("127.0.0.1:9002", Reply(status=429, headers={"Retry-After": "30"}))
    endpoints = {each.name: each for each in client.parts.balancer.endpoints}
    for _ in range(3):
        client.parts.balancer.unanswered(endpoints["digits-3"])
    hung = [asyncio.ensure_future(client.get("/")) for _ in range(4)]
    await clock.settle()
    await one_report(client, clock, 4.5)
    nodes = {each.instance: each for each in board.reports[0].nodes}
    assert nodes["digits-1"].in_flight == board.reports[0].in_flight > 0
    assert (nodes["digits-2"].state, nodes["digits-2"].overloaded) == ("cooling", 1)
    assert nodes["digits-3"] == NodeReport(instance="digits-3", state="ejected")
    for call in hung:
        call.cancel()
    await asyncio.gather(*hung, return_exceptions=True)


async def test_a_call_that_its_caller_left_is_no_failure(
    make: Callable, board: Board, clock: ManualClock, transport: ScriptedTransport
) -> None:
    client = make(board.address)
    transport.script(ONE, HUNG)
    transport.script(TWO, HUNG)
    call = asyncio.ensure_future(client.get("/"))
    await clock.settle()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await one_report(client, clock)
    report = board.reports[0]
    assert (report.calls, report.failed) == (0, 0)
    assert [(each.ok, each.failed) for each in report.nodes] == [(0, 0)]


async def test_of_a_large_fleet_only_nodes_with_something_to_say_are_told(
    make: Callable, board: Board, clock: ManualClock
) -> None:
    client = make(board.address, nodes=MOST_NODES + 500)
    for _ in range(3):
        await client.get("/")
    await one_report(client, clock)
    assert [each.ok for each in board.reports[0].nodes] == [1, 1, 1]
    for _ in range(MOST_NODES + 100):
        await client.get("/")
    for endpoint in list(client.parts.balancer.endpoints)[-7:]:
        endpoint.breaker.eject(clock.monotonic(), random.Random(1))
    await one_report(client, clock)
    nodes = board.reports[1].nodes
    assert len(nodes) == MOST_NODES
    assert sum(each.state == "ejected" for each in nodes) == 7


async def test_without_an_address_nothing_is_sent_and_nobody_looks_on(
    make: Callable, board: Board, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(reporter.TOKEN, SECRET)
    without = make(None)
    environment.setenv(reporter.ADDRESS, board.address)
    off = make("")
    for client in (without, off):
        await client.get("/")
        assert client.snapshot()["reporter"] is None
        assert client.parts.balancer.observer is None
    assert not any("reports of" in task.get_name() for task in asyncio.all_tasks())


async def test_before_the_first_call_nothing_is_started(make: Callable, board: Board, clock: ManualClock) -> None:
    client = make(board.address)
    await clock.advance(60.0)
    await client.close()
    assert board.bodies == []


async def test_the_environment_names_dashboard_and_client(
    make: Callable, board: Board, clock: ManualClock, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(reporter.ADDRESS, board.address + "/")
    environment.setenv(reporter.NAME, "from the environment")
    client = make(None, reporter_name=None)
    await client.get("/")
    await one_report(client, clock)
    assert board.reports[0].client == "from the environment"


async def test_without_a_name_clients_of_one_process_are_told_apart(
    make: Callable, board: Board, clock: ManualClock
) -> None:
    rngs = random.Random(1), random.Random(2)
    clients = [
        AsyncSmartClient("digits", ScriptedDirectory([instance(1)]), reporter=board.address, rng=rng, clock=clock)
        for rng in rngs
    ]
    names = [client._reporter._name for client in clients]
    assert names[0] != names[1]
    assert all(name.startswith(f"{socket.gethostname()}-{os.getpid()}-") for name in names)
    for client in clients:
        await client.close()


async def test_clients_that_begin_together_do_not_report_together(
    clock: ManualClock, environment: pytest.MonkeyPatch
) -> None:
    begun, sent = clock.monotonic(), []

    async def status(*_: object) -> int:
        sent.append(clock.monotonic() - begun)
        return 204

    environment.setattr(Reporter, "_status", status)
    clients = [
        AsyncSmartClient(
            "digits",
            ScriptedDirectory([instance(1)]),
            reporter="http://127.0.0.1:9",
            rng=random.Random(seed),
            clock=clock,
            transport=ScriptedTransport(clock),
        )
        for seed in range(20)
    ]
    for client in clients:
        await client.get("/")
    await clock.advance(5.0)
    assert len(sent) >= 20
    assert 1.0 <= sent[0] < 2.0
    assert max(after - before for before, after in itertools.pairwise(sent[:20])) < 1.0
    for client in clients:
        await client.close()


async def test_a_dashboard_that_hangs_costs_a_call_nothing(
    make: Callable, board: Board, clock: ManualClock, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr(reporter, "SEND_WITHIN", 2.0)
    environment.setattr(reporter, "PERIOD", 1.0)
    board.gate = asyncio.Event()
    client = make(board.address)
    await client.get("/")
    await clock.advance(1.0)
    await board.asked.wait()
    now = clock.monotonic()
    async with asyncio.timeout(5):
        for _ in range(10):
            await client.get("/")
    assert clock.monotonic() == now
    assert told(client) == 0
    await clock.advance(2.0)
    await until(lambda: told(client) == 1)
    shown = client.snapshot()["reporter"]
    assert (shown["sent"], shown["dropped"]) == (0, 1)
    assert shown["last_error"] == f"no answer from {board.address}{PATH} within 2 s"
    board.gate.set()


async def test_away_reports_are_dropped_ever_more_rarely_tried_and_told_of_once(
    make: Callable, clock: ManualClock, environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[float] = []
    away = True

    async def status(*_: object) -> int:
        tried.append(clock.monotonic())
        if away:
            raise ConnectionRefusedError("nobody there")
        return 204

    environment.setattr(Reporter, "_status", status)
    client = make("http://127.0.0.1:9")
    with caplog.at_level(logging.INFO, "smartclient.reporter"):
        await client.get("/")
        await clock.advance(600.0)
        assert client.snapshot()["reporter"] == {
            "sent": 0,
            "dropped": len(tried),
            "last_error": f"no answer from http://127.0.0.1:9{PATH}: nobody there",
        }
        pauses = [after - before for before, after in itertools.pairwise(tried)]
        for pause, expected in zip(pauses, [10.0, 20.0, 40.0, *[60.0] * len(pauses)], strict=False):
            assert 0.9 * expected <= pause <= 1.1 * expected
        assert 9 <= len(pauses) <= 13
        away = False
        await clock.advance(66.0)
        await clock.advance(60.0)
    assert client.snapshot()["reporter"]["sent"] > 10
    assert caplog.messages[0].startswith("digits: the dashboard takes no reports (no answer from")
    assert [each.levelname for each in caplog.records] == ["WARNING", "INFO"]


async def test_a_dashboard_that_is_not_there_costs_its_reports_only(
    make: Callable, board: Board, clock: ManualClock
) -> None:
    await board.node.stop()
    client = make(board.address)
    await client.get("/")
    await one_report(client, clock)
    assert "no answer from" in client.snapshot()["reporter"]["last_error"]
    assert (await client.get("/")).status == 200
    await board.node.start()
    await client.get("/")
    await one_report(client, clock, 11.0)
    assert client.snapshot()["reporter"]["sent"] == 1
    assert board.reports[0].calls == 2  # of the time since the report that was lost


async def test_what_was_counted_while_the_machine_slept_is_no_rate(
    make: Callable, board: Board, clock: ManualClock
) -> None:
    client = make(board.address)
    await client.get("/")
    await clock.settle()
    clock._now += 3600.0
    await one_report(client, clock, 0.25)
    assert (board.bodies, client.snapshot()["reporter"]["dropped"]) == ([], 1)
    await one_report(client, clock)
    assert board.reports[0].calls == 0


GARBAGE = [
    b"no http at all\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    b"HTTP/1.1 99999 ?\r\n\r\n",
    b"",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
async def test_whatever_a_hostile_dashboard_says_reports_go_on(
    make: Callable, clock: ManualClock, raw_server: Callable[..., Awaitable[int]], garbage: bytes
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(garbage)
        await writer.drain()

    client = make(f"http://127.0.0.1:{await raw_server(answer)}")
    await client.get("/")
    await one_report(client, clock)
    await one_report(client, clock, 11.0)
    shown = client.snapshot()["reporter"]
    assert (shown["sent"], shown["dropped"]) == (0, 2)
    assert len(shown["last_error"]) < 300
    assert "\n" not in shown["last_error"]


async def test_an_answer_without_end_is_not_read(
    make: Callable, clock: ManualClock, raw_server: Callable[..., Awaitable[int]], http: type
) -> None:
    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nbegun")
        await reader.read()
        gone.set()

    client = make(f"http://127.0.0.1:{await raw_server(answer)}")
    await client.get("/")
    await one_report(client, clock)
    assert client.snapshot()["reporter"]["sent"] == 1
    async with asyncio.timeout(5):
        await gone.wait()


async def test_closing_sends_what_is_left_and_ends_the_task(make: Callable, board: Board, clock: ManualClock) -> None:
    client = make(board.address)
    await client.get("/")
    await one_report(client, clock)
    await client.get("/")
    await clock.advance(1.0)
    await client.close()
    assert [each.calls for each in board.reports] == [1, 1]
    assert client._reporter._task.done()
    assert client.parts.balancer.observer is None


async def test_closing_right_after_a_report_sends_no_other(make: Callable, board: Board, clock: ManualClock) -> None:
    client = make(board.address)
    await client.get("/")
    await one_report(client, clock)
    await clock.advance(0.5)
    await client.close()
    assert len(board.bodies) == 1


async def test_who_lives_for_less_than_a_second_is_heard_of_all_the_same(
    make: Callable, board: Board, clock: ManualClock
) -> None:
    client = make(board.address)
    await client.get("/")
    await clock.advance(0.2)
    await client.close()
    assert [(each.calls, each.period) for each in board.reports] == [(1, 1.0)]


async def test_closing_waits_half_a_second_for_a_dashboard_that_hangs(
    make: Callable, board: Board, clock: ManualClock, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr(reporter, "LAST_WITHIN", 0.5)
    board.gate = asyncio.Event()
    client = make(board.address)
    await client.get("/")
    await clock.advance(1.0)
    closing = asyncio.ensure_future(client.close())
    await clock.advance(0.4)
    assert not closing.done()
    await clock.advance(0.1)
    async with asyncio.timeout(5):
        await closing
    assert client._reporter._task.done()
    board.gate.set()


async def test_closing_does_not_try_a_dashboard_that_is_away(make: Callable, board: Board, clock: ManualClock) -> None:
    board.status = 503
    client = make(board.address)
    await client.get("/")
    await one_report(client, clock)
    await clock.advance(5.0)
    await client.close()
    assert len(board.bodies) == 1


async def test_the_token_goes_to_the_dashboard_and_nowhere_else(
    make: Callable,
    board: Board,
    clock: ManualClock,
    transport: ScriptedTransport,
    fleet: Callable,
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    [elsewhere] = await fleet(1)
    board.status, board.headers = 307, {"Location": f"http://{elsewhere.address}/"}
    path = tmp_path / "token"
    path.write_text(SECRET)
    environment.setenv(reporter.TOKEN_FILE, str(path))
    environment.setenv(reporter.TOKEN, "the file goes before this")
    client = make(board.address)
    await client.get("/")
    await one_report(client, clock)
    path.write_text("another-one")
    await one_report(client, clock, 11.0)
    assert [each["Authorization"] for each in board.node.seen] == [f"Bearer {SECRET}", "Bearer another-one"]
    assert elsewhere.seen == []
    assert not any("Authorization" in each.headers for each in transport.sent)
    assert client.snapshot()["reporter"]["last_error"] == f"{board.address}{PATH} answered 307"


async def test_a_token_that_is_refused_is_told_with_the_next_step_and_not_shown(
    make: Callable, board: Board, clock: ManualClock, environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment.setenv(reporter.TOKEN, SECRET)
    board.status = 401
    client = make(board.address)
    await client.get("/")
    await one_report(client, clock)
    error = client.snapshot()["reporter"]["last_error"]
    assert error == f"{board.address}{PATH} answered 401; give a token it takes in {reporter.TOKEN_FILE}"
    assert SECRET not in caplog.text + str(client.snapshot())
    assert error in caplog.text


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8600",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:port",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://[::1",
        "http://dash board",
        "http://127.0.0.1?a=b",
        "http://127.0.0.1/#a",
        "http://127.0.0.1\r\nX: y",
    ],
)
def test_a_bad_address_is_told_at_once_with_the_next_step(
    address: str, clock: ManualClock, environment: pytest.MonkeyPatch
) -> None:
    step = "is not the address of a dashboard; give one such as http://127.0.0.1:8600"
    with pytest.raises(BadOption, match=step) as refused:
        AsyncSmartClient("digits", "static://127.0.0.1:1", reporter=address)
    assert str(refused.value).startswith("reporter=")
    assert "\n" not in str(refused.value)
    environment.setenv(reporter.ADDRESS, address)
    with pytest.raises(BadOption, match=f"^{reporter.ADDRESS}=.*{step}"):
        AsyncSmartClient("digits", "static://127.0.0.1:1")


def test_a_secret_in_the_address_or_an_unfit_token_is_refused_and_not_shown(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(BadOption, match=reporter.TOKEN_FILE) as refused:
        AsyncSmartClient("digits", "static://127.0.0.1:1", reporter=f"http://me:{SECRET}@127.0.0.1")
    assert SECRET not in str(refused.value)
    environment.setenv(reporter.TOKEN_FILE, str(tmp_path / "missing"))
    with pytest.raises(BadOption, match=f"{reporter.TOKEN_FILE}: .*missing"):
        AsyncSmartClient("digits", "static://127.0.0.1:1", reporter="http://127.0.0.1")
    with pytest.raises(BadOption, match="256"):
        AsyncSmartClient("digits", "static://127.0.0.1:1", reporter="http://127.0.0.1", reporter_name="a" * 257)
    AsyncSmartClient("digits", "static://127.0.0.1:1")  # who reports nowhere needs no token


async def test_a_blocking_client_reports_too(fleet: Callable, board: Board, environment: pytest.MonkeyPatch) -> None:
    environment.setattr(reporter, "PERIOD", 0.1)
    [node] = await fleet(1)

    def work() -> dict[str, object]:
        with SmartClient("digits", f"static://{node.address}", reporter=board.address, reporter_name="b") as client:
            client.get("/")
            while not client.snapshot()["reporter"]["sent"]:
                client.get("/")
            return client.snapshot()["reporter"]

    shown = await asyncio.wait_for(asyncio.to_thread(work), 10)
    assert shown["dropped"] == 0
    assert board.reports[0].client == "b"
    assert board.reports[0].calls > 0
