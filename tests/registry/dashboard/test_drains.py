"""Orders carried out against nodes on real sockets, by a clock that is moved by hand."""

import asyncio

import aiohttp
import msgspec
import pytest
from aiohttp import web

from node.config import NodeConfig
from node.repository import Model
from node.server import NodeServer
from node.testing import ScriptedRuntime, write_model
from registry.dashboard.drains import Drains
from registry.dashboard.loads import Loads
from registry.dashboard.model import Fleet, Kind, Member, Registry, Service
from registry.dashboard.orders import Stage
from registry.testing import ManualClock, ScriptedDirectory, instance
from registry.token import Token

TOKEN = "c0ffee-token"  # no secret of anything


class Node:
    """The admin routes of a node; ``answers`` (status, body, headers) come first, one for each request."""

    def __init__(self):
        self.asked = []
        self.marks = []
        self.requests = 0
        self.refusing = True
        self.state = "ready"
        self.answers = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.inside = self.most_inside = 0

    async def start(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self):
        self.hold.set()
        await self._runner.cleanup()

    async def _handle(self, request):
        body = await request.read()
        self.marks.append(request.headers.get("X-Mark"))
        self.asked.append((request.method, request.path, request.headers.get("Authorization"), body))
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await self.hold.wait()
        finally:
            self.inside -= 1
        if self.answers:
            status, text, headers = self.answers.pop(0)
            return web.Response(status=status, body=text, headers=headers)
        if request.method == "POST":
            self.state = "draining" if request.path == "/admin/drain" else "ready"
        held = {"requests": self.requests, "bytes": 0, "queue_limit_ms": 1000}
        return web.json_response({"node": "x", "state": self.state, "refusing": self.refusing, "held": held})


@pytest.fixture
async def node():
    node = Node()
    await node.start()
    yield node
    await node.stop()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def events():
    return []


@pytest.fixture
async def drains(clock, events):
    drains = Drains(Token(TOKEN), clock=clock, on_event=events.append)
    yield drains
    await drains.close()


def service(*ports, **changes):
    fields = {"meta": {"load": "/load"}} | changes
    members = (Member(instance=instance(at, port=port, **fields), since=0, joined=0) for at, port in enumerate(ports))
    return Service(name="digits", members=tuple(members))


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it has not come")


def start(drains, given, *ids, kind="drain"):
    return drains.start(kind, given, ids or [each.id for each in given.members], reason="kernel update", who="ada")


async def ending(drains, order):
    """The steps at the end, which has to come without the clock."""
    await until(lambda: drains.order(order.id).ended)
    return drains.order(order.id).steps


async def draining(drains, order):
    """Wait until the node has agreed, and the next look at it is due by the clock."""
    await until(lambda: drains.order(order.id).steps["digits-0"].stage is Stage.DRAINING)


async def looked(drains, node, clock):
    """Let one look at the node happen, and be answered."""
    before = len(node.asked)
    await until(lambda: clock.sleepers == 1)
    await clock.advance(0.5)
    await until(lambda: len(node.asked) > before and drains._looking._value == 10)
    await clock.settle()


async def test_a_node_is_asked_with_token_and_reason_and_is_done_when_it_is_empty(node, drains, events):
    order = start(drains, service(node.port))
    assert order.steps["digits-0"].stage is Stage.WAITING
    steps = await ending(drains, order)
    assert steps["digits-0"].stage is Stage.DONE
    method, path, authorization, body = node.asked[0]
    assert (method, path, authorization) == ("POST", "/admin/drain", f"Bearer {TOKEN}")
    assert msgspec.json.decode(body) == {"reason": "kernel update"}
    assert [(each.kind, each.words) for each in events] == [
        (Kind.ACTION, "ada drains digits-0: kernel update"),
        (Kind.DRAINED, "digits-0 is drained"),
    ]
    assert {(each.who, each.why, each.service, each.instance) for each in events} == {
        ("ada", "kernel update", "digits", "digits-0")
    }


async def test_it_drains_until_nothing_is_inside(node, drains, clock):
    node.requests = 3
    order = start(drains, service(node.port))
    await until(lambda: drains.order(order.id).steps["digits-0"].inflight == 3)
    step = drains.order(order.id).steps["digits-0"]
    assert step.words == "draining, 3 requests are still inside"
    node.requests = 1
    await looked(drains, node, clock)
    await until(lambda: drains.order(order.id).steps["digits-0"].inflight == 1)
    assert node.asked[-1][:3] == ("GET", "/admin/state", f"Bearer {TOKEN}")
    assert not drains.order(order.id).ended
    node.requests = 0
    await looked(drains, node, clock)
    assert (await ending(drains, order))["digits-0"].stage is Stage.DONE


async def test_a_lull_before_clients_have_heard_is_no_end(node, drains, clock):
    node.refusing = False
    order = start(drains, service(node.port))
    await draining(drains, order)
    await looked(drains, node, clock)
    assert not drains.order(order.id).ended
    node.refusing = True
    await looked(drains, node, clock)
    assert (await ending(drains, order))["digits-0"].stage is Stage.DONE


async def test_after_two_minutes_it_is_overdue_with_what_is_inside(node, drains, clock, events):
    node.requests = 3
    order = start(drains, service(node.port))
    await draining(drains, order)
    clock._now += 120  # a jump: not two hundred looks
    await clock.advance(0)
    step = (await ending(drains, order))["digits-0"]
    assert step.words == "overdue: 3 requests are still inside"
    assert events[-1].words == "ada drains digits-0, overdue: 3 requests are still inside"
    assert events[-1].kind is Kind.ACTION


async def test_calling_back_is_done_when_the_node_agrees(node, drains, events):
    node.requests = 7
    steps = await ending(drains, start(drains, service(node.port), kind="undrain"))
    assert steps["digits-0"].stage is Stage.DONE
    assert [each[:2] for each in node.asked] == [("POST", "/admin/undrain")]
    assert [each.kind for each in events] == [Kind.ACTION, Kind.UNDRAINED]


async def test_a_node_that_is_called_back_meanwhile_is_waited_for_no_longer(node, drains, clock):
    node.requests = 3
    order = start(drains, service(node.port))
    await draining(drains, order)
    node.state = "ready"
    await looked(drains, node, clock)
    assert (await ending(drains, order))["digits-0"].words == "refused: it was called back meanwhile"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            (401, b"{}", {}),
            "refused: it refused the dashboard's token (401): start the dashboard with the nodes' admin token",
        ),
        (
            (403, b'{"error": "steering is off on this node"}', {}),
            "refused: it refused (403): steering is off on this node",
        ),
        ((503, b'{"error": "a\\u001b[2Jb\\nc"}', {}), "refused: it refused (503): a\\x1b[2Jb"),
        ((500, b"<html>", {}), "refused: it refused (500): it does not say why; look at its log"),
        ((404, b"", {}), "refused: it has no /admin/drain (404): is it a Twostep node?"),
        (
            (200, b'{"held": {"requests": -1}}', {}),
            "refused: what it answered cannot be understood: is it a Twostep node?",
        ),
        (
            (200, b'{"held": {"requests": 1e999}}', {}),
            "refused: what it answered cannot be understood: is it a Twostep node?",
        ),
        ((200, b"[" * 60_000, {}), "refused: what it answered cannot be understood: is it a Twostep node?"),
        ((200, b" " * 70_000, {}), "refused: its answer is longer than 64 KiB"),
    ],
)
async def test_a_refusal_is_one_line_that_says_why(node, drains, events, answer, words):
    node.answers.append(answer)
    steps = await ending(drains, start(drains, service(node.port)))
    assert steps["digits-0"].words == words
    assert events[-1].words == f"ada drains digits-0, {words}"


async def test_a_token_that_a_node_repeats_is_hidden(node, drains, events):
    node.answers.append((400, msgspec.json.encode({"error": f"what is {TOKEN} ?"}), {}))
    steps = await ending(drains, start(drains, service(node.port)))
    assert steps["digits-0"].words == "refused: it refused (400): what is (token) ?"
    assert TOKEN not in repr(events)


async def test_the_token_follows_no_redirect(node, drains):
    other = Node()
    await other.start()
    try:
        for status in (302, 307, 308):
            node.answers.append((status, b"", {"Location": f"http://127.0.0.1:{other.port}/admin/drain"}))
            steps = await ending(drains, start(drains, service(node.port)))
            assert steps["digits-0"].words == (
                f"refused: it points elsewhere ({status}), where the dashboard does not follow"
            )
        assert other.asked == []
    finally:
        await other.stop()


@pytest.mark.parametrize("where", ["scheme", "address", "user", "port"])
async def test_a_registration_cannot_lead_the_token_elsewhere(node, drains, where):
    other = f"127.0.0.1:{node.port}"
    changes = {
        "scheme": {"meta": {"load": "/load", "scheme": f"http://{other}/?"}},
        "address": {"address": f"{other}/"},
        "user": {"address": "x@127.0.0.1"},
        "port": {},
    }[where]
    steps = await ending(drains, start(drains, service(70_000 if where == "port" else node.port, **changes)))
    assert steps["digits-0"].reason.startswith("its registration" if where == "scheme" else "its registered address")
    assert node.asked == []


async def test_a_rotated_token_is_used_at_once(node, clock, tmp_path):
    path = tmp_path / "token"
    path.write_text("old")
    drains = Drains(Token(path=path), clock=clock, on_event=lambda _: None)
    await ending(drains, start(drains, service(node.port)))
    path.write_text("new")
    await ending(drains, start(drains, service(node.port)))
    await drains.close()
    assert [each[2] for each in node.asked] == ["Bearer old", "Bearer new"]


async def test_no_token_is_no_header_and_the_refusal_says_so(node, clock):
    drains = Drains(Token(), clock=clock, on_event=lambda _: None)
    node.answers.append((401, b"", {}))
    steps = await ending(drains, start(drains, service(node.port)))
    await drains.close()
    assert node.asked[0][2] is None
    assert steps["digits-0"].reason.startswith("it asks for a token (401): start the dashboard with")


async def test_a_node_that_says_nothing_is_refused_after_five_seconds(node, drains, clock):
    node.hold.clear()
    order = start(drains, service(node.port))
    await until(lambda: node.inside)
    assert drains.order(order.id).steps["digits-0"].stage is Stage.ASKED
    await clock.advance(4.9)
    assert not drains.order(order.id).ended
    await clock.advance(0.1)
    assert (await ending(drains, order))["digits-0"].words == "refused: no answer within 5 s"


async def test_a_node_that_is_not_there_is_refused_with_the_cause(node, drains):
    given = service(node.port)
    await node.stop()
    assert (await ending(drains, start(drains, given)))[
        "digits-0"
    ].words == "refused: no connection: connection refused"


async def test_a_node_that_ends_while_it_drains_is_gone(node, drains, clock):
    node.requests = 3
    order = start(drains, service(node.port))
    await draining(drains, order)
    await node.stop()
    for _ in range(2):
        await clock.advance(0.5)
        await until(lambda: drains._looking._value == 10)
        await clock.settle()
        assert not drains.order(order.id).ended
    await clock.advance(0.5)
    step = (await ending(drains, order))["digits-0"]
    assert step.words == "gone: it answers no more: no connection: connection refused"


async def test_a_node_that_misses_a_look_now_and_then_is_not_gone(node, drains, clock):
    node.requests = 3
    order = start(drains, service(node.port))
    await draining(drains, order)
    for _ in range(2):
        node.answers = [(200, b" " * 70_000, {})] * 2
        for _ in range(3):
            await looked(drains, node, clock)
            assert not drains.order(order.id).ended
    node.requests = 0
    await looked(drains, node, clock)
    assert (await ending(drains, order))["digits-0"].stage is Stage.DONE


async def test_what_is_not_registered_any_more_or_no_node_is_not_asked(node, drains):
    given = service(node.port, meta={})
    steps = await ending(drains, start(drains, given, "digits-0", "digits-9"))
    assert steps["digits-0"].words == "refused: it takes no orders: it is no Twostep node"
    assert steps["digits-9"].words == "gone: it is not registered any more"
    assert node.asked == []


async def test_ten_nodes_at_most_are_asked_at_a_time(node, drains, events):
    node.hold.clear()
    order = start(drains, service(*[node.port] * 25))
    assert events[0].words == "ada drains 25 of digits: kernel update"
    await until(lambda: node.inside == 10)
    await asyncio.sleep(0.05)
    stages = [each.stage for each in drains.order(order.id).steps.values()]
    assert (stages.count(Stage.ASKED), stages.count(Stage.WAITING)) == (10, 15)
    node.hold.set()
    steps = await ending(drains, order)
    assert {each.stage for each in steps.values()} == {Stage.DONE}
    assert node.most_inside == 10


async def test_orders_are_listed_newest_first_and_found_by_instance(node, drains):
    given = service(node.port, node.port)
    first = start(drains, given, "digits-0", "digits-1")
    second = start(drains, given, "digits-1")
    await ending(drains, first)
    await ending(drains, second)
    assert [each.id for each in drains.orders()] == [second.id, first.id]
    assert drains.of("digits", "digits-0").id == first.id
    assert drains.of("digits", "digits-1").id == second.id
    assert drains.of("other", "digits-1") is None
    assert drains.order("none") is None


async def test_a_hundred_orders_are_kept_and_the_one_under_way_is_not_forgotten(node, drains):
    node.hold.clear()
    under_way = start(drains, service(node.port))
    for _ in range(120):
        start(drains, service(), "digits-9")
    assert len(drains.orders()) == 100
    assert drains.order(under_way.id) is not None
    assert drains.orders()[0].id == "121"


async def test_closing_ends_what_is_under_way(node, drains, events, clock):
    node.requests = 3
    order = start(drains, service(node.port))
    await draining(drains, order)
    await drains.close()
    assert drains.order(order.id).steps["digits-0"].reason == "the dashboard ended before it was done"
    asked = len(node.asked)
    await clock.advance(5)
    assert len(node.asked) == asked


async def test_a_session_that_was_handed_in_is_used_and_stays_open(node, clock):
    async with aiohttp.ClientSession(headers={"X-Mark": "lent"}) as session:
        drains = Drains(Token(TOKEN), clock=clock, on_event=lambda _: None, session=session)
        await ending(drains, start(drains, service(node.port)))
        await drains.close()
        assert not session.closed
    assert node.marks == ["lent"]


async def test_a_real_node_is_drained_and_called_back_and_says_so_where_its_load_is(drains, clock, tmp_path):
    token = tmp_path / "admin"
    token.write_text(TOKEN)
    config = NodeConfig(
        models=(Model(path=write_model(tmp_path / "digits")),), port=0, drain_grace=0.01, admin_token_file=token
    )
    server = NodeServer(config, open=lambda _: ScriptedRuntime(), directory=(directory := ScriptedDirectory()))
    loads = Loads(clock=clock, on_change=lambda _: None)
    asking = asyncio.ensure_future(loads.run())

    async def load():
        for _ in range(51):
            await clock.advance(0.1)
            await until(lambda: not loads._asked)
        return loads.get("digits", server.id)

    try:
        await server.start()
        found = (await directory.lookup("digits", passing_only=False)).instances
        given = Service(name="digits", members=tuple(Member(instance=each, since=0, joined=0) for each in found))
        loads.update(Fleet(registry=Registry(source="x"), services={"digits": given}, version=1))
        well = await load()
        assert (well.inflight, well.queue, well.error) == (0, 0, "")

        order = start(drains, given)
        await until(lambda: server.intake.refusing)
        await until(lambda: drains.order(order.id).steps[server.id].stage in {Stage.DRAINING, Stage.DONE})
        await clock.advance(0.5)
        assert (await ending(drains, order))[server.id].words == "done"
        assert (await load()).error == "it takes no work: draining"

        assert (await ending(drains, start(drains, given, kind="undrain")))[server.id].words == "done"
        assert (await load()).error == ""
    finally:
        await loads.close()
        asking.cancel()
        await server.stop()
