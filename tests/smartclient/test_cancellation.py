"""A call cancelled at each of its await points in turn: in flight goes back to zero, no task and no connection is left.

Each scenario is run again and again, cancelled at its first suspension, its second, and so on, until it comes to its
end. So every point is met: looking up, asking for the load, connecting, sending, reading, pausing between attempts,
waiting for a hedge.
"""

import asyncio
import random
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
from aiohttp import web

from registry.model import Instance
from registry.testing import ScriptedDirectory
from smartclient import AsyncSmartClient
from smartclient.errors import CallFailed
from smartclient.hedge import HedgeRule

SERVICE = "digits"
MANY = 500


@types.coroutine
def cancelled_at(coroutine: Coroutine[Any, Any, Any], at: int):
    """Run ``coroutine``, cancelling its task when it is suspended for the ``at``-th time."""
    steps, go_on, value = 0, coroutine.send, None
    while True:
        try:
            waited_for = go_on(value)
        except StopIteration as end:
            return end.value
        steps += 1
        if steps == at:
            asyncio.current_task().cancel()
        try:
            go_on, value = coroutine.send, (yield waited_for)
        except BaseException as error:
            go_on, value = coroutine.throw, error


class Node:
    """Answers after a moment; ``connections`` are those that are open."""

    def __init__(self, status: int) -> None:
        self._status = status

    async def start(self) -> Instance:
        application = web.Application()
        application.router.add_get("/load", self._load)
        application.router.add_route("*", "/{tail:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        return Instance(id=f"node-{port}", service=SERVICE, address="127.0.0.1", port=port, meta={"load": "/load"})

    @property
    def connections(self) -> int:
        return len(self._runner.server.connections)

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _load(self, _: web.Request) -> web.Response:
        return web.json_response({"wait_ms": 7.0, "inflight": 1})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        await asyncio.sleep(0.003)
        reply = web.StreamResponse(status=self._status)
        await reply.prepare(request)
        for _ in range(2):
            await reply.write(bytes(1000))
            await asyncio.sleep(0.001)
        return reply


@pytest.fixture
async def nodes() -> AsyncIterator[Callable[..., Awaitable[tuple[list[Node], list[Instance]]]]]:
    started: list[Node] = []

    async def start(count: int = 3, status: int = 200) -> tuple[list[Node], list[Instance]]:
        made = [Node(status) for _ in range(count)]
        instances = [await node.start() for node in made]
        started.extend(made)
        return made, instances

    yield start
    for node in started:
        await node.stop()


async def get(client: AsyncSmartClient) -> None:
    await client.get("/")


async def post(client: AsyncSmartClient) -> None:
    await client.post("/", data=bytes(10_000), idempotent=True)


async def stream(client: AsyncSmartClient) -> None:
    async with client.stream("GET", "/") as reply:
        assert len(await reply.read()) == 2000


async def give_up(client: AsyncSmartClient) -> None:
    with pytest.raises(CallFailed):
        await client.classify(b"image")


HEDGED = {"policy": "rotation", "hedge": HedgeRule(least=1, quantile=0.01, budget=100.0)}


@pytest.mark.parametrize(
    ("call", "options", "dead", "status", "least"),
    [
        pytest.param(get, {"policy": "rotation"}, 0, 200, 4, id="plain"),
        pytest.param(post, {"policy": "rotation"}, 0, 200, 4, id="body"),
        pytest.param(get, {"policy": "probed"}, 0, 200, 5, id="asking"),
        pytest.param(get, {"policy": "rotation"}, 2, 200, 5, id="retried"),
        pytest.param(give_up, {"policy": "rotation", "throttle": False}, 0, 500, 8, id="pausing"),
        pytest.param(get, HEDGED, 0, 200, 5, id="hedged"),
        pytest.param(stream, {"policy": "rotation"}, 0, 200, 5, id="streamed"),
    ],
)
async def test_a_call_cancelled_anywhere_leaves_nothing(nodes, call, options, dead, status, least) -> None:
    started, instances = await nodes(3, status)
    for node in started[:dead]:
        await node.stop()
    points = 0
    for at in range(1, MANY):
        before = asyncio.all_tasks()
        client = AsyncSmartClient(SERVICE, ScriptedDirectory(instances), rng=random.Random(at), **options)
        if call is get and options is HEDGED:
            for _ in range(2):
                await get(client)  # so that it knows how long an answer takes
        task = asyncio.ensure_future(_run(call(client), at))
        await asyncio.wait({task})
        shown = client.snapshot()
        assert shown["calls"]["in_flight"] == 0
        await asyncio.sleep(0)  # a task that never began gives its lease back in the loop's next turn
        assert {each["in_flight"] for each in client.snapshot()["balancer"]["endpoints"]} <= {0}
        await client.close()
        await _until(lambda before=before: asyncio.all_tasks() - before == _handlers(), "no task is left")
        if not task.cancelled():
            task.result()
            break
        points += 1
    else:
        pytest.fail("it never came to its end")
    assert points >= least
    await _until(lambda: not any(node.connections for node in started[dead:]), "no connection is left")


async def test_a_client_goes_on_as_before_after_calls_cancelled_anywhere(nodes) -> None:
    started, instances = await nodes(3)
    async with AsyncSmartClient(SERVICE, ScriptedDirectory(instances), policy="rotation") as client:
        for at in range(1, 30):
            await asyncio.wait({asyncio.ensure_future(_run(get(client), at))})
        for _ in range(30):
            assert (await client.get("/")).status == 200
        shown = client.snapshot()["balancer"]["endpoints"]
        assert {each["in_flight"] for each in shown} == {0}
        assert {each["failed"] for each in shown} == {0}, "who leaves says nothing of the node"
        await _until(lambda: sum(node.connections for node in started) <= 6, "a connection or two for each node")


async def _run(coroutine: Coroutine[Any, Any, Any], at: int) -> Any:
    return await cancelled_at(coroutine, at)


def _handlers() -> set[asyncio.Task[Any]]:
    """Tasks of the nodes, which run in this loop too."""
    return {task for task in asyncio.all_tasks() if "web_protocol" in repr(task.get_coro())}


async def _until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"not within 5 s: {what}")
