"""A second node is asked when the first is slow for once; one answer wins, and nothing of the other is left."""

import asyncio
import random

import pytest

from registry.testing import ManualClock, ScriptedDirectory, instance
from smartclient import AsyncSmartClient
from smartclient.errors import CallFailed
from smartclient.hedge import HedgeRule
from smartclient.testing import DEAD, HUNG, Reply, ScriptedTransport

NODES = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]


class World:
    """Nodes that have answered 200 calls after 0.1 s each, one after the other."""

    def __init__(self, clock: ManualClock, nodes: int = 3, **options: object) -> None:
        self.clock = clock
        self.transport = ScriptedTransport(clock, otherwise=Reply(after=0.1))
        directory = ScriptedDirectory([instance(number + 1) for number in range(nodes)])
        options = {"hedge": True, "policy": "rotation", **options}
        self.client = AsyncSmartClient(
            "digits", directory, transport=self.transport, clock=clock, rng=random.Random(5), **options
        )

    async def warm(self, calls: int = 200) -> "World":
        for _ in range(calls):
            await self.do(self.client.get("/"))
        return self

    async def do(self, call: object, seconds: float = 5.0) -> object:
        task = asyncio.ensure_future(call)
        await self.clock.settle()
        for _ in range(round(seconds / 0.01)):
            if task.done():
                break
            await self.clock.advance(0.01)
        return await task

    def next_is(self, *steps: object) -> None:
        """Let whoever is asked next go through ``steps``; afterwards it is as before."""
        self.transport.script(self.transport.sent[-3].endpoint, *steps, Reply(after=0.1))

    @property
    def calls(self) -> dict[str, object]:
        return self.client.snapshot()["calls"]

    @property
    def in_flight(self) -> set[int]:
        return {each["in_flight"] for each in self.client.snapshot()["balancer"]["endpoints"]}


@pytest.fixture
async def world(clock: ManualClock):
    made = await World(clock).warm()
    yield made
    await made.client.close()


async def test_a_slow_answer_is_overtaken_by_another_node(world: World) -> None:
    world.next_is(HUNG)
    before, sent = world.clock.monotonic(), len(world.transport.sent)
    reply = await world.do(world.client.get("/"))
    assert world.clock.monotonic() - before == pytest.approx(0.2, abs=0.05)
    assert [each.headers["x-envoy-attempt-count"] for each in world.transport.sent[sent:]] == ["1", "2"]
    assert len({each.endpoint for each in world.transport.sent[sent:]}) == 2
    assert reply.status == 200
    assert (world.calls["hedges"], world.calls["hedges_won"]) == (1, 1)
    assert world.in_flight == {0}


async def test_an_answer_in_time_is_not_hedged(world: World) -> None:
    sent = len(world.transport.sent)
    await world.do(world.client.get("/"))
    assert len(world.transport.sent) == sent + 1
    assert world.calls["hedges"] == 0


async def test_the_first_may_still_win(world: World) -> None:
    world.next_is(Reply(after=0.15))
    await world.do(world.client.get("/"))
    assert (world.calls["hedges"], world.calls["hedges_won"]) == (1, 0)
    assert world.in_flight == {0}


async def test_a_hedge_that_fails_leaves_the_first_to_answer(world: World) -> None:
    first = world.transport.sent[-3].endpoint
    world.next_is(Reply(after=0.3))
    for node in NODES:
        if node != first:
            world.transport.script(node, DEAD, Reply(after=0.1))
    reply = await world.do(world.client.get("/"))
    assert reply.status == 200
    assert reply.attempts == 2
    assert world.in_flight == {0}


async def test_when_both_fail_the_call_goes_on_and_tells_of_every_attempt(world: World) -> None:
    for node in NODES:
        world.transport.script(node, Reply(status=500, after=0.3))
    reply = await world.do(world.client.get("/"))
    assert (reply.status, reply.attempts) == (500, 3)
    for node in NODES:
        world.transport.script(node, DEAD)
    with pytest.raises(CallFailed) as caught:
        await world.do(world.client.get("/"))
    assert len(caught.value.attempts) >= 2


async def test_what_may_not_be_done_twice_is_not_hedged(world: World) -> None:
    world.next_is(Reply(after=1.0))
    sent = len(world.transport.sent)
    await world.do(world.client.post("/", data=b"order"))
    assert len(world.transport.sent) == sent + 1


async def test_hedges_stay_within_their_budget(world: World) -> None:
    for node in NODES:
        world.transport.script(node, *[Reply(after=0.1)] * 10, Reply(after=0.3))
    for _ in range(300):
        await world.do(world.client.get("/"))
    calls = world.calls
    assert 0 < calls["hedges"] <= 0.05 * 300 + 1
    assert calls["hedges_refused"] > 0


async def test_one_node_alone_is_not_asked_twice(clock: ManualClock) -> None:
    world = await World(clock, nodes=1).warm()
    world.transport.script(NODES[0], Reply(after=0.5))
    sent = len(world.transport.sent)
    await world.do(world.client.get("/"))
    assert len(world.transport.sent) == sent + 1
    assert world.in_flight == {0}
    await world.client.close()


async def test_without_being_asked_for_there_is_none(clock: ManualClock) -> None:
    world = await World(clock, hedge=False).warm()
    world.next_is(Reply(after=1.0))
    sent = len(world.transport.sent)
    await world.do(world.client.get("/"))
    assert len(world.transport.sent) == sent + 1
    await world.client.close()


async def test_its_numbers_can_be_given(clock: ManualClock) -> None:
    world = await World(clock, hedge=HedgeRule(least=10_000)).warm()
    world.next_is(Reply(after=1.0))
    sent = len(world.transport.sent)
    await world.do(world.client.get("/"))
    assert len(world.transport.sent) == sent + 1
    await world.client.close()


@pytest.mark.parametrize("at", [0.05, 0.15])
async def test_cancelling_before_or_after_the_hedge_leaves_nothing(world: World, clock: ManualClock, at: float) -> None:
    for node in NODES:
        world.transport.script(node, HUNG)
    before = asyncio.all_tasks()
    task = asyncio.create_task(world.client.get("/"))
    await clock.settle()
    for _ in range(round(at / 0.01)):
        await clock.advance(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await clock.settle()
    assert world.calls["in_flight"] == 0
    assert world.in_flight == {0}
    assert asyncio.all_tasks() == before
