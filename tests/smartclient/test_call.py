"""A whole client without a socket and without waiting: scripted network, scripted registry, clock by hand."""

import asyncio
import random
from collections import Counter

import pytest

from registry.testing import ManualClock, ScriptedDirectory, instance
from smartclient import AsyncSmartClient
from smartclient.errors import CallFailed, DeadlineExceeded
from smartclient.response import Response
from smartclient.stats import Outcome
from smartclient.testing import DEAD, HUNG, Fault, Reply, ScriptedTransport

NODES = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]


class World:
    """Three nodes and a client of them."""

    def __init__(self, clock: ManualClock, nodes: int = 3, **options: object) -> None:
        self.clock = clock
        self.transport = ScriptedTransport(clock)
        self.directory = ScriptedDirectory([instance(number + 1) for number in range(nodes)])
        options = {"policy": "rotation", **options}
        self.client = AsyncSmartClient(
            "digits", self.directory, transport=self.transport, clock=clock, rng=random.Random(5), **options
        )

    def all(self, *steps: Reply | Fault) -> None:
        for node in NODES:
            self.transport.script(node, *steps)

    async def get(self, seconds: float = 0.0, **options: object) -> Response:
        """GET while the clock moves on by ``seconds``."""
        return await self.do(self.client.get("/", **options), seconds)

    async def do(self, call: object, seconds: float) -> Response:
        task = asyncio.ensure_future(call)
        await self.clock.settle()
        for _ in range(round(seconds / 0.1)):
            if task.done():
                break
            await self.clock.advance(0.1)
        return await task

    @property
    def asked(self) -> list[str]:
        return [each.endpoint for each in self.transport.sent]


@pytest.fixture
async def world(clock: ManualClock):
    made = World(clock)
    yield made
    await made.client.close()


async def test_sixty_calls_over_three_nodes_are_twenty_each(world: World) -> None:
    await asyncio.gather(*(world.client.get("/") for _ in range(60)))
    assert Counter(world.asked) == dict.fromkeys(NODES, 20)


async def test_twenty_each_also_while_other_calls_are_slow_and_cancelled(world: World, clock: ManualClock) -> None:
    world.transport.script(NODES[0], Reply(after=5.0))
    calls = [asyncio.create_task(world.client.get("/")) for _ in range(60)]
    await clock.settle()
    calls[0].cancel()
    await clock.advance(6.0)
    await asyncio.gather(*calls, return_exceptions=True)
    assert Counter(world.asked) == dict.fromkeys(NODES, 20)


async def test_a_retry_goes_to_a_different_node_at_once(world: World) -> None:
    world.transport.script(NODES[0], DEAD)
    responses = [await world.get() for _ in range(3)]
    assert {response.attempts for response in responses} == {1, 2}
    first, second = world.asked[world.asked.index(NODES[0]) :][:2]
    assert first != second
    assert world.clock.monotonic() == 1000.0, "no time passed"


async def test_a_dead_node_gets_three_attempts_and_no_call_fails(world: World) -> None:
    world.transport.script(NODES[1], DEAD)
    for _ in range(200):
        assert (await world.get()).ok
    assert world.transport.count(NODES[1]) == 3


async def test_two_of_three_dead_and_no_call_fails(world: World) -> None:
    world.transport.script(NODES[0], DEAD)
    world.transport.script(NODES[1], DEAD)
    for _ in range(200):
        assert (await world.get(2.0)).ok


async def test_a_node_that_dies_with_a_third_of_everything_in_flight_fails_nothing(
    world: World, clock: ManualClock
) -> None:
    world.all(Reply(after=0.5))
    world.transport.script(NODES[2], Fault(outcome=Outcome.RESET, after=0.2))
    calls = [asyncio.create_task(world.client.post("/", idempotent=True)) for _ in range(32)]
    await clock.settle()
    assert world.transport.count(NODES[2]) in (10, 11)
    await clock.advance(10.0)
    responses = await asyncio.gather(*calls)
    assert all(response.ok for response in responses)
    assert Counter(response.attempts for response in responses)[2] in (10, 11)


async def test_what_was_sent_is_not_sent_again_unless_it_is_idempotent(world: World) -> None:
    world.all(Fault(outcome=Outcome.RESET))
    with pytest.raises(CallFailed, match="idempotent=True"):
        await world.client.post("/")
    assert len(world.asked) == 1
    with pytest.raises(CallFailed):
        await world.do(world.client.post("/", idempotent=True), 5.0)
    assert len(world.asked) == 4


async def test_a_kept_alive_connection_found_closed_is_no_mark_against_the_node(world: World) -> None:
    for node in NODES[:2]:
        world.transport.script(node, Fault(outcome=Outcome.STALE), Reply())
    for _ in range(4):
        assert (await world.get(5.0)).ok
    assert world.client.snapshot()["calls"]["retries"] > 0
    assert {each["state"] for each in world.client.snapshot()["balancer"]["endpoints"]} == {"closed"}
    assert {each["failed"] for each in world.client.snapshot()["balancer"]["endpoints"]} == {0}


async def test_after_a_dead_kept_alive_connection_the_next_attempt_makes_its_own(world: World) -> None:
    world.all(Fault(outcome=Outcome.STALE), Reply())
    with pytest.raises(CallFailed):
        await world.get(5.0)
    assert [each.fresh for each in world.transport.sent] == [False, True, True]


async def test_what_could_not_be_sent_is_sent_elsewhere_whatever_the_method(world: World) -> None:
    world.transport.script(NODES[0], DEAD)
    responses = [await world.client.post("/") for _ in range(6)]
    assert all(response.ok for response in responses)
    assert sum(response.attempts for response in responses) > 6


async def test_every_attempt_is_told_when_all_fail(world: World) -> None:
    world.all(DEAD)
    with pytest.raises(CallFailed, match=r"GET / of 'digits' failed: all 3 attempts are used") as caught:
        await world.get(5.0)
    assert sorted(each.node for each in caught.value.attempts) == ["digits-1", "digits-2", "digits-3"]
    assert {each.reason for each in caught.value.attempts} == {"scripted connect_error"}
    assert all(each.node in str(caught.value) for each in caught.value.attempts)


async def test_the_deadline_is_one_for_the_call_and_is_told_to_each_node(world: World) -> None:
    world.all(Fault(outcome=Outcome.RESET, after=0.5))
    with pytest.raises(CallFailed):
        await world.get(10.0, timeout=4.0)
    told = [int(each.headers["x-envoy-expected-rq-timeout-ms"]) for each in world.transport.sent]
    assert told[0] == 4000
    assert told[1] == 3500
    assert told[2] <= 3000
    assert [each.headers["x-envoy-attempt-count"] for each in world.transport.sent] == ["1", "2", "3"]


async def test_a_hung_node_costs_the_deadline_and_no_more(world: World) -> None:
    world.all(HUNG)
    with pytest.raises(DeadlineExceeded, match=r"no answer within its 2 s") as caught:
        await world.get(2.5, timeout=2.0)
    assert world.clock.monotonic() < 1002.2
    assert len(caught.value.attempts) == 1
    assert caught.value.attempts[0].milliseconds == pytest.approx(2000)


async def test_connecting_gets_a_moment_or_an_even_share_of_what_is_left(world: World) -> None:
    await world.get()
    await world.get(timeout=1.5)
    world.all(DEAD)
    with pytest.raises(CallFailed):
        await world.get(5.0, timeout=1.5)
    shares = [round(each.connect_within, 2) for each in world.transport.sent]
    assert shares[:4] == [1.5, 0.5, 0.5, 0.75]
    assert 1.3 < shares[4] <= 1.5, "the last attempt may use all that is left"


async def test_overload_moves_the_call_and_leaves_the_node_alone(world: World) -> None:
    world.transport.script(NODES[0], Reply(status=503, headers={"Retry-After": "3"}))
    for _ in range(30):
        assert (await world.get()).ok
    assert world.transport.count(NODES[0]) == 1
    await world.clock.advance(3.0)
    for _ in range(3):
        await world.get()
    assert world.transport.count(NODES[0]) == 2


async def test_when_all_are_overloaded_their_wish_is_waited_for(clock: ManualClock) -> None:
    world = World(clock, nodes=2)
    world.all(Reply(status=503, headers={"Retry-After": "2"}), Reply())
    response = await world.get(5.0)
    assert (response.ok, response.attempts) == (True, 3)
    assert clock.monotonic() >= 1002.0
    await world.client.close()


async def test_when_their_wish_is_beyond_the_deadline_the_refusal_is_returned_at_once(clock: ManualClock) -> None:
    world = World(clock, nodes=2)
    world.all(Reply(status=503, headers={"Retry-After": "20"}))
    response = await world.get(0.0, timeout=5.0)
    assert (response.status, response.attempts) == (503, 2)
    assert clock.monotonic() == 1000.0
    await world.client.close()


async def test_an_error_status_is_returned_after_other_nodes_gave_it_too(world: World) -> None:
    world.all(Reply(status=500, body=b"broken"))
    response = await world.get(5.0)
    assert (response.status, response.text(), response.attempts) == (500, "broken", 3)


async def test_a_4xx_is_the_callers_and_is_not_tried_again(world: World) -> None:
    world.all(Reply(status=404))
    assert (await world.get()).attempts == 1
    assert {each["failed"] for each in world.client.snapshot()["balancer"]["endpoints"]} == {0}


async def test_an_outage_does_not_multiply_the_load(clock: ManualClock) -> None:
    world = World(clock, throttle=False)
    world.all(Reply(status=500))
    for _ in range(500):
        await world.get(3.0)
    calls = world.client.snapshot()["calls"]
    window = world.clock.monotonic() - 1000.0
    assert calls["retries_refused"] > 0
    assert calls["retries"] <= max(0.2 * 500, 10 * (window / 10 + 1))
    await world.client.close()


async def test_cancelling_a_call_gives_everything_back(world: World, clock: ManualClock) -> None:
    world.all(HUNG)
    task = asyncio.create_task(world.client.get("/"))
    await clock.settle()
    assert world.client.snapshot()["calls"]["in_flight"] == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    shown = world.client.snapshot()
    assert shown["calls"]["in_flight"] == 0
    assert {each["in_flight"] for each in shown["balancer"]["endpoints"]} == {0}


async def test_a_lone_node_that_restarts_is_asked_again(clock: ManualClock) -> None:
    world = World(clock, nodes=1)
    world.transport.script(NODES[0], DEAD, DEAD, Reply())
    response = await world.get(5.0)
    assert (response.ok, response.attempts) == (True, 3)
    await world.client.close()


async def test_a_sleep_that_took_too_long_ends_the_call_without_another_attempt() -> None:
    class Sluggish(ManualClock):
        async def sleep(self, seconds: float) -> None:
            if seconds >= 1.0:  # not the pause between two attempts
                await super().sleep(seconds)
            else:
                self._now += 60.0

    world = World(Sluggish(), nodes=1)
    world.all(DEAD)
    with pytest.raises(DeadlineExceeded):
        await world.client.get("/", timeout=5.0)
    assert len(world.asked) == 1
    await world.client.close()


async def test_the_first_look_up_and_the_call_share_one_deadline(clock: ManualClock) -> None:
    world = World(clock)
    lookup = world.directory.lookup

    async def slow(*arguments: object, **options: object) -> object:
        await clock.sleep(3.0)
        return await lookup(*arguments, **options)

    world.directory.lookup = slow
    await world.get(10.0, timeout=5.0)
    assert world.transport.sent[0].within == pytest.approx(2.0, abs=0.2)
    await world.client.close()


async def test_attempts_can_be_set(clock: ManualClock) -> None:
    world = World(clock, attempts=1)
    world.all(DEAD)
    with pytest.raises(CallFailed, match="all 1 attempts"):
        await world.get()
    await world.client.close()


async def test_a_node_added_or_drained_shows_in_the_next_calls(world: World, clock: ManualClock) -> None:
    await world.get()
    await clock.settle()
    world.directory.set([instance(2), instance(7)])
    await clock.advance(10.0)  # a new one begins slowly
    world.transport.sent.clear()
    for _ in range(10):
        await world.get()
    assert Counter(world.asked) == {"127.0.0.1:9002": 5, "127.0.0.1:9007": 5}


async def test_the_registry_going_away_fails_nothing(world: World, clock: ManualClock) -> None:
    await world.get()
    world.directory.fail()
    for _ in range(100):
        await clock.advance(60.0)
        assert (await world.get()).ok
    assert world.client.snapshot()["discovery"]["age_s"] == 6000.0
