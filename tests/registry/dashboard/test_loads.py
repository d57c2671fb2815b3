"""Asking nodes for their load: when, where, and what of an answer is believed."""

import asyncio
import gzip

import msgspec
import pytest
from aiohttp import web

from registry.dashboard.asking import Answer
from registry.dashboard.loads import Loads, heard, number
from registry.dashboard.model import Fleet, Member, NodeLoad, Registry, Service
from registry.testing import ManualClock, instance

SAID = {"wait_ms": 1.5, "inflight": 2, "queue": 3, "capacity_rps": None, "utilization": 0.5, "rps": 7.25}


class Nodes:
    """Many nodes on one port, told apart by their paths; ``quiet`` paths get no answer."""

    def __init__(self):
        self.asked = []
        self.encodings = []
        self.said = dict(SAID)
        self.answer = None
        self.quiet = set()
        self.loud = asyncio.Event()
        self.inside = self.most_inside = 0

    async def start(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self):
        self.loud.set()
        await self._runner.cleanup()

    async def _handle(self, request):
        self.asked.append((request.method, request.path_qs))
        self.encodings.append(request.headers.get("Accept-Encoding"))
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            if request.path in self.quiet:
                await self.loud.wait()
        finally:
            self.inside -= 1
        if self.answer is not None:
            status, body, headers = self.answer
            return web.Response(status=status, body=body, headers=headers)
        return web.json_response(self.said)


@pytest.fixture
async def nodes():
    nodes = Nodes()
    await nodes.start()
    yield nodes
    await nodes.stop()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def changes():
    return []


@pytest.fixture
async def loads(clock, changes):
    loads = Loads(clock=clock, on_change=changes.append)
    running = asyncio.ensure_future(loads.run())
    yield loads
    await loads.close()
    await clock.advance(1)
    assert running.done()
    running.result()


def fleet(nodes, count=1, version=1, **changes):
    members = []
    for each in range(count):
        fields = {"meta": {"load": f"/load/{each}"}, "port": nodes.port} | changes
        members.append(Member(instance=instance(each, **fields), since=0.0, joined=0.0))
    services = {"digits": Service(name="digits", members=tuple(members))}
    return Fleet(registry=Registry(source="x"), services=services, version=version)


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it has not come")


async def rounds(loads, clock, seconds):
    """Let time go by, in portions, each with all its answers."""
    for _ in range(round(seconds * 10)):
        await clock.advance(0.1)
        await until(lambda: not loads._asked)


async def test_a_node_is_asked_every_five_seconds_where_it_says(nodes, loads, clock, changes):
    loads.update(fleet(nodes))
    assert loads.get("digits", "digits-0") is None
    await rounds(loads, clock, 5.1)
    assert nodes.asked == [("GET", "/load/0")]
    assert loads.get("digits", "digits-0") == NodeLoad(at=loads.get("digits", "digits-0").at, **SAID)
    assert 1_700_000_000 < loads.get("digits", "digits-0").at <= 1_700_000_005.1
    assert changes == [{("digits", "digits-0")}]
    await rounds(loads, clock, 5)
    assert len(nodes.asked) == 2
    await rounds(loads, clock, 5)
    assert len(nodes.asked) == 3


async def test_figures_that_stay_are_no_change_but_are_newer(nodes, loads, clock, changes):
    loads.update(fleet(nodes))
    await rounds(loads, clock, 5.1)
    first = loads.get("digits", "digits-0")
    await rounds(loads, clock, 5)
    assert loads.get("digits", "digits-0").at == pytest.approx(first.at + 5)
    assert len(changes) == 1
    nodes.said["queue"] = 9
    await rounds(loads, clock, 5)
    assert loads.get("digits", "digits-0").queue == 9
    assert len(changes) == 2


async def test_a_round_is_spread_evenly_over_its_period(nodes, loads, clock):
    loads.update(fleet(nodes, 100))
    counts = []
    for _ in range(50):
        before = len(nodes.asked)
        await rounds(loads, clock, 0.1)
        counts.append(len(nodes.asked) - before)
    assert set(counts[1:]) == {2}
    assert len({path for _, path in nodes.asked}) >= 98


async def test_an_empty_path_is_the_usual_one_and_a_question_may_be_part_of_it(nodes, loads, clock):
    loads.update(fleet(nodes, meta={"load": ""}))
    await rounds(loads, clock, 5.1)
    loads.update(fleet(nodes, version=2, meta={"load": "/load?model=cats"}))
    await rounds(loads, clock, 5)
    assert nodes.asked == [("GET", "/load"), ("GET", "/load?model=cats")]


@pytest.mark.parametrize(
    "path", ["load", "@evil.example/", ".evil.example/", "http://evil.example/", "/a b", "/\\x", "/é"]
)
async def test_a_path_that_leads_elsewhere_is_not_asked(nodes, loads, clock, path):
    loads.update(fleet(nodes, meta={"load": path}))
    await rounds(loads, clock, 5.1)
    assert loads.get("digits", "digits-0").error.startswith("its registration names no path on it")
    assert nodes.asked == []


async def test_who_names_no_load_is_not_asked(nodes, loads, clock):
    loads.update(fleet(nodes, meta={}))
    await rounds(loads, clock, 5.1)
    assert nodes.asked == []
    assert loads.get("digits", "digits-0") is None


async def test_a_silent_node_keeps_its_last_figures_beside_the_reason(nodes, loads, clock, changes):
    loads.update(fleet(nodes))
    await rounds(loads, clock, 5.1)
    known = loads.get("digits", "digits-0")
    nodes.quiet.add("/load/0")
    for _ in range(50):
        await clock.advance(0.1)
        if loads._asked:
            await until(lambda: nodes.inside)
            break
    await clock.advance(2)
    await until(lambda: not loads._asked)
    await clock.advance(0.1)
    assert loads.get("digits", "digits-0") == msgspec.structs.replace(known, error="no answer within 2 s")
    assert len(changes) == 2


async def test_a_node_that_is_not_there_has_an_error_and_no_figures(nodes, loads, clock):
    loads.update(fleet(nodes, address="127.0.0.1"))
    await nodes.stop()
    await rounds(loads, clock, 5.1)
    found = loads.get("digits", "digits-0")
    assert found == NodeLoad(at=found.at, error="no connection: connection refused")


async def test_no_redirect_is_followed(nodes, loads, clock):
    nodes.answer = (302, b"", {"Location": "/elsewhere"})
    loads.update(fleet(nodes))
    await rounds(loads, clock, 5.1)
    assert nodes.asked == [("GET", "/load/0")]
    assert loads.get("digits", "digits-0").error == "it answers 302 at /load/0"


async def test_an_answer_is_bounded(nodes, loads, clock):
    nodes.answer = (200, msgspec.json.encode(SAID | {"more": "x" * 16_384}), {})
    loads.update(fleet(nodes))
    await rounds(loads, clock, 5.1)
    assert loads.get("digits", "digits-0").error == "its answer is longer than 16 KiB"


async def test_what_is_packed_is_not_unpacked(nodes, loads, clock):
    nodes.answer = (200, gzip.compress(msgspec.json.encode(SAID) + b" " * 100_000), {"Content-Encoding": "gzip"})
    loads.update(fleet(nodes))
    await rounds(loads, clock, 5.1)
    assert nodes.encodings == ["identity"]
    assert loads.get("digits", "digits-0").error == "what it answers at /load/0 cannot be understood"


async def test_at_most_32_are_asked_at_a_time_and_silent_ones_leave_room(nodes, loads, clock):
    nodes.quiet = {f"/load/{each}" for each in range(100)}
    loads.update(fleet(nodes, 100))
    for _ in range(51):
        await clock.advance(0.1)
        await asyncio.sleep(0.002)
    assert nodes.most_inside <= 32
    for _ in range(100):  # until each of them is known to be silent
        await clock.advance(0.5)
        await asyncio.sleep(0.002)
    assert all(loads.get("digits", f"digits-{each}") for each in range(100))
    nodes.quiet -= {"/load/50"}
    new = fleet(nodes, 101, version=2)
    loads.update(new)
    await until(lambda: loads._asked)
    for _ in range(51):
        await clock.advance(0.1)
        await asyncio.sleep(0.002)
    found = loads.get("digits", "digits-100")
    assert found is not None
    assert found.error == ""
    assert found.at > clock.time() - 5.2
    assert nodes.most_inside <= 32


async def test_who_has_gone_is_forgotten_and_told(nodes, loads, clock, changes):
    loads.update(fleet(nodes, 2))
    await rounds(loads, clock, 5.1)
    loads.update(fleet(nodes, 1, version=2))
    assert loads.get("digits", "digits-1") is None
    assert loads.get("digits", "digits-0") is not None
    await rounds(loads, clock, 0.1)
    assert changes[-1] == {("digits", "digits-1")}


async def test_an_answer_that_comes_after_its_node_has_gone_is_dropped(nodes, loads, clock):
    nodes.quiet.add("/load/0")
    loads.update(fleet(nodes))
    for _ in range(51):
        await clock.advance(0.1)
        if loads._asked:
            break
    await until(lambda: nodes.inside)
    loads.update(fleet(nodes, 0, version=2))
    nodes.loud.set()
    await until(lambda: not loads._asked)
    assert loads.get("digits", "digits-0") is None


async def test_the_same_version_of_the_fleet_costs_nothing(nodes, loads):
    loads.update(fleet(nodes, 2))
    before = loads._targets
    loads.update(fleet(nodes, 2))
    assert loads._targets is before


async def test_closing_ends_the_questions_that_are_open(nodes, clock):
    loads = Loads(clock=clock, on_change=lambda _: None)
    nodes.quiet.add("/load/0")
    loads.update(fleet(nodes))
    running = asyncio.ensure_future(loads.run())
    for _ in range(51):
        await clock.advance(0.1)
        if loads._asked:
            break
    await until(lambda: nodes.inside)
    await loads.close()
    assert not loads._asked
    await clock.advance(0.1)
    await running
    await until(lambda: not nodes.inside)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (
            503,
            b'{"error": "digits-1 is draining; ask another node", "reason": "draining"}',
            "it takes no work: draining",
        ),
        (
            503,
            b'{"error": "digits-1 is still loading", "reason": "overloaded"}',
            "it takes no work: digits-1 is still loading",
        ),
        (503, b"\xff", "it takes no work (503)"),
        (503, b'{"error": ["\\u001b"], "reason": {}}', "it takes no work: ['\\x1b']"),
        (404, b"{}", "it answers 404 at /load"),
        (200, b"[1]", "what it answers at /load cannot be understood"),
        (200, b'{"rps": NaN}', "what it answers at /load cannot be understood"),
        (200, b'{"a":' * 8000, "what it answers at /load cannot be understood"),
    ],
)
def test_what_is_no_load_is_an_error_and_keeps_what_was_known(status, body, error):
    before = NodeLoad(at=5.0, queue=3.0, error="old")
    assert heard(Answer(status, body), "/load", before, 9.0) == NodeLoad(at=5.0, queue=3.0, error=error)
    assert heard(Answer(status, body), "/load", None, 9.0) == NodeLoad(at=9.0, error=error)


def test_an_answer_ends_the_error_and_what_it_does_not_say_is_not_known():
    before = NodeLoad(at=5.0, queue=3.0, rps=1.0, error="old")
    assert heard(Answer(200, b'{"queue": 0, "x": []}'), "/load", before, 9.0) == NodeLoad(at=9.0, queue=0.0)


@pytest.mark.parametrize("value", [None, True, "1", [], -1, -0.5, float("inf"), float("nan"), 10**400, {"a": 1}])
def test_a_hostile_figure_is_none(value):
    assert number(value) is None


def test_a_figure_is_a_figure():
    assert number(0) == 0.0
    assert number(12.5) == 12.5
