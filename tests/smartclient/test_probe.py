"""Asking nodes for their load: who is chosen among, who is left out, and that it never fails or outlives a call."""

import asyncio
import json
import random

import pytest

from registry.model import Snapshot
from registry.testing import ManualClock, instance
from smartclient.balancer import Balancer
from smartclient.errors import BadInput
from smartclient.policies.rotation import Rotation
from smartclient.probe import FIRST, LEAST, MOST, Prober, limit
from smartclient.stats import Outcome
from smartclient.transport import Answer, TransportFailure


class Nodes:
    """A transport on which node N answers for its load after ``delays[N]`` seconds with ``waits[N]`` ms."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.delays: dict[int, float] = {}
        self.waits: dict[int, float] = {}
        self.bodies: dict[int, bytes] = {}
        self.statuses: dict[int, int] = {}
        self.dead: set[int] = set()
        self.asked: list[tuple[int, str, str]] = []

    async def send(self, url, request, headers, *, within, connect_within, **_):
        number = int(url.rpartition(":")[2]) - 9000
        self.asked.append((number, request.method, request.target))
        if number in self.dead:
            raise TransportFailure(Outcome.CONNECT_ERROR, "connection refused")
        delay = self.delays.get(number, 0.001)
        await self.clock.sleep(min(delay, within))
        if delay >= within:
            raise TransportFailure(Outcome.TIMEOUT, "no answer")
        wait = self.waits.get(number, 5.0)
        said = {"wait_ms": wait, "inflight": int(wait > 0)}
        return Answer(self.statuses.get(number, 200), {}, self.bodies.get(number, json.dumps(said).encode()))


class World:
    def __init__(self, clock: ManualClock, nodes: int = 3, path: str = "/load") -> None:
        self.clock = clock
        self.nodes = Nodes(clock)
        self.balancer = Balancer(Rotation(), service="digits", source="scripted://", clock=clock, rng=random.Random(1))
        instances = tuple(instance(number + 1, meta={"load": path}) for number in range(nodes))
        self.balancer.update(Snapshot(service="digits", index=1, instances=instances, fetched_at=0.0))
        self.prober = Prober(self.nodes, self.balancer, clock=clock)
        self.endpoints = list(self.balancer.endpoints)

    async def ask(self, seconds: float = 1.0) -> list[str]:
        """Ask everybody; the names of those that answered in time."""
        asking = asyncio.ensure_future(self.prober.ask(self.endpoints))
        await self.clock.settle()
        for _ in range(round(seconds * 1000)):
            if asking.done():
                break
            await self.clock.advance(0.001)
        return [endpoint.name for endpoint in await asking]


@pytest.fixture
async def world(clock: ManualClock):
    made = World(clock)
    yield made
    await made.prober.close()


async def test_all_are_asked_at_their_path_and_their_answers_stand_on_them(world: World) -> None:
    world.nodes.waits = {1: 10.0, 2: 20.0, 3: 30.0}
    assert await world.ask() == ["digits-1", "digits-2", "digits-3"]
    assert sorted(world.nodes.asked) == [(number, "GET", "/load") for number in (1, 2, 3)]
    assert [endpoint.report.wait for endpoint in world.endpoints] == [0.01, 0.02, 0.03]
    assert all(endpoint.probe_latency.value == pytest.approx(0.001) for endpoint in world.endpoints)
    assert world.prober.sent == 3


def known(world: World, *seconds: float) -> None:
    """Let each node have answered some calls in so many seconds."""
    for endpoint, took in zip(world.endpoints, seconds, strict=True):
        for _ in range(3):
            endpoint.latency.observe(took, 1000.0)


async def test_an_idle_node_that_is_no_slower_than_others_ends_the_question(world: World, clock: ManualClock) -> None:
    known(world, 0.05, 0.06, 0.05)
    world.nodes.waits = {2: 0.0}
    world.nodes.delays = {1: 0.015, 2: 0.01, 3: 0.05}
    assert await world.ask() == ["digits-2"]
    assert clock.monotonic() == pytest.approx(1000.01, abs=0.0015)


async def test_an_idle_node_that_is_slow_waits_for_the_others_word(world: World, clock: ManualClock) -> None:
    known(world, 0.05, 0.5, 0.05)
    world.nodes.waits = {1: 10.0, 2: 0.0}
    world.nodes.delays = {1: 0.015, 2: 0.01, 3: 0.05}
    assert await world.ask() == ["digits-1", "digits-2"]
    assert clock.monotonic() == pytest.approx(1000.02, abs=0.0015)


async def test_when_an_unknown_one_is_idle_the_others_get_as_long_again_and_later_answers_still_count(
    world: World, clock: ManualClock
) -> None:
    world.nodes.waits = {1: 10.0, 2: 0.0}
    world.nodes.delays = {1: 0.015, 2: 0.01, 3: 0.05}
    assert await world.ask() == ["digits-1", "digits-2"]
    assert clock.monotonic() == pytest.approx(1000.02, abs=0.0015)
    await clock.advance(0.1)
    assert world.endpoints[2].report is not None


async def test_nobody_waits_longer_than_for_the_last_answer(world: World, clock: ManualClock) -> None:
    world.nodes.waits = {2: 0.0}
    world.nodes.delays = {1: 0.012, 2: 0.01, 3: 0.012}
    assert await world.ask() == ["digits-1", "digits-2", "digits-3"]
    assert clock.monotonic() == pytest.approx(1000.012, abs=0.0015)


async def test_who_does_not_answer_in_time_is_left_out(world: World, clock: ManualClock) -> None:
    world.nodes.delays = {1: 1e9}
    assert await world.ask() == ["digits-2", "digits-3"]
    assert clock.monotonic() == pytest.approx(1000.0 + FIRST, abs=0.002)


async def test_a_node_that_misses_three_in_a_row_while_others_answer_is_ejected_and_its_calls_given_up(
    world: World,
) -> None:
    given_up: list[str] = []
    lease = next(lease for lease in iter(world.balancer.pick, None) if lease.endpoint is world.endpoints[0])
    lease.waits(lambda: given_up.append("it"))
    world.nodes.delays = {1: 1e9}
    for _ in range(2):
        await world.ask()
    assert not world.endpoints[0].breaker.ejected
    await world.ask()
    assert world.endpoints[0].breaker.ejected
    assert given_up == ["it"]


async def test_an_answer_in_between_starts_the_count_again(world: World) -> None:
    for _ in range(4):
        world.nodes.delays = {1: 1e9}
        await world.ask()
        await world.ask()
        world.nodes.delays = {}
        await world.ask()
    assert not world.endpoints[0].breaker.ejected


async def test_where_nobody_answers_nobody_is_blamed(world: World) -> None:
    world.nodes.delays = dict.fromkeys((1, 2, 3), 1e9)
    for _ in range(5):
        assert await world.ask() == []
    assert not any(endpoint.breaker.ejected for endpoint in world.endpoints)


async def test_a_dead_node_is_only_not_chosen(world: World) -> None:
    world.nodes.dead = {3}
    assert await world.ask() == ["digits-1", "digits-2"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"wait_ms": "soon"}'])
async def test_a_path_that_tells_no_load_is_not_asked_again_until_the_list_changes(world: World, body: bytes) -> None:
    world.nodes.bodies = {1: body}
    assert await world.ask() == ["digits-2", "digits-3"]
    assert world.endpoints[0].load_path == ""
    world.endpoints[0].update(world.endpoints[0].instance)
    assert world.endpoints[0].load_path == "/load"


async def test_a_node_that_will_not_say_now_is_asked_again(world: World) -> None:
    world.nodes.statuses = {1: 503, 2: 404}
    assert await world.ask() == ["digits-3"]
    world.nodes.statuses = {}
    assert [endpoint.load_path for endpoint in world.endpoints] == ["/load", "", "/load"]


async def test_a_path_that_is_none_is_never_asked(clock: ManualClock) -> None:
    assert [endpoint.load_path for endpoint in World(clock, path="load").endpoints] == [""] * 3


async def test_a_request_that_cannot_be_sent_does_not_fail_the_call(world: World) -> None:
    async def refuse(*_, **__):
        raise BadInput("cannot be sent")

    world.nodes.send = refuse
    assert await world.ask() == []


async def test_a_caller_that_leaves_takes_nothing_down_and_closing_ends_what_is_left(
    world: World, clock: ManualClock
) -> None:
    world.nodes.delays = dict.fromkeys((1, 2, 3), 0.05)
    before = asyncio.all_tasks()
    asking = asyncio.create_task(world.prober.ask(world.endpoints))
    await clock.settle()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert len(asyncio.all_tasks() - before) == 3
    await world.prober.close()
    assert asyncio.all_tasks() == before


def test_a_probe_may_take_five_times_what_they_take_within_bounds(clock: ManualClock) -> None:
    endpoint, now = World(clock).endpoints[0], clock.monotonic()
    assert limit(endpoint, now) == FIRST
    for took, allowed in ((0.001, LEAST), (0.02, 0.1), (5.0, MOST)):
        endpoint.probe_latency.value = 0.0
        endpoint.probe_latency.observe(took, now)
        assert limit(endpoint, now) == pytest.approx(allowed)
