"""What the client logs: one line when something begins and one when it is over, with fields for programs."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator

import pytest

from registry.errors import RegistryUnavailable
from registry.testing import ManualClock, ScriptedDirectory, instance
from smartclient import AsyncSmartClient
from smartclient.episode import Episode
from smartclient.errors import Throttled
from smartclient.testing import DEAD, Reply, ScriptedTransport
from smartclient.throttle import LEAST

NODES = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]


class World:
    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.transport = ScriptedTransport(clock)
        self.directory = ScriptedDirectory([instance(number, meta={"token": "s3cret"}) for number in (1, 2, 3)])
        self.client = AsyncSmartClient(
            "digits",
            self.directory,
            policy="rotation",
            transport=self.transport,
            clock=clock,
            rng=random.Random(5),
        )

    def script(self, *steps: object) -> None:
        for node in NODES:
            self.transport.script(node, *steps)

    async def post(self, count: int) -> list[object]:
        return await asyncio.gather(*(self.client.post("/") for _ in range(count)), return_exceptions=True)


@pytest.fixture
async def world(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> AsyncIterator[World]:
    caplog.set_level(logging.DEBUG, logger="smartclient")
    made = World(clock)
    yield made
    await made.client.close()


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name.startswith("smart")]


async def test_calls_that_go_well_or_badly_are_not_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.post(50)
    world.script(Reply(status=404))
    await world.post(50)
    assert said(caplog) == []


async def test_a_node_left_out_is_one_line_with_its_fields_and_its_return_another(
    world: World, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    world.transport.script(NODES[0], DEAD)
    await world.post(60)
    assert said(caplog) == [("WARNING", "digits: digits-1 is left out (connect_error)")]
    [record] = caplog.records
    assert record.name == "smartclient.balancer"
    assert (record.service, record.node, record.cause) == ("digits", "digits-1", "connect_error")
    assert 20.0 < record.seconds <= 30.0
    caplog.clear()
    world.script(Reply())
    await clock.advance(31.0)
    await world.post(60)
    assert said(caplog) == [("INFO", "digits: digits-1 is back")]
    assert (caplog.records[0].service, caplog.records[0].node) == ("digits", "digits-1")


async def test_throttling_is_one_line_when_it_begins_and_one_when_it_is_over(
    world: World, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    world.script(Reply(status=429))
    ended = await world.post(5 * LEAST)
    assert sum(isinstance(each, Throttled) for each in ended) > 100
    [record] = [record for record in caplog.records if record.name == "smartclient.call"]
    assert record.levelname == "WARNING"
    assert "digits: nodes refuse most calls" in record.getMessage()
    assert record.service == "digits"
    assert record.cause.endswith("% of them for now")
    caplog.clear()
    world.script(Reply())
    await clock.advance(11.0)
    await world.post(20)
    [record] = [record for record in caplog.records if record.name == "smartclient.call"]
    assert (record.levelname, record.service, record.seconds) == ("INFO", "digits", 11.0)


async def test_panic_is_one_line_when_it_begins_and_one_when_it_is_over(
    world: World, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    world.script(Reply(status=429))
    for _ in range(10):
        await world.post(3)
    [begins] = caplog.records
    assert (begins.name, begins.levelname) == ("smartclient.balancer", "WARNING")
    assert begins.getMessage().startswith("digits: panic: too few nodes are well")
    assert (begins.service, begins.cause) == ("digits", "2 of 3 in trouble")
    caplog.clear()
    world.script(Reply())
    await clock.advance(2.0)
    await world.post(3)
    [ends] = caplog.records
    assert (ends.levelname, ends.getMessage()) == ("INFO", "digits: the panic is over after 2.0 s")
    assert (ends.service, ends.seconds) == ("digits", 2.0)


async def test_panic_that_ends_with_a_new_list_is_told_as_well(
    world: World, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    world.script(Reply(status=429))
    await world.post(6)
    world.directory.set([instance(number) for number in range(11, 20)])
    await clock.settle()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_registry_that_is_lost_and_its_return_are_a_line_each(
    world: World, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await world.client.ready()
    await clock.advance(60.0)
    assert said(caplog) == []
    world.directory.fail(RegistryUnavailable("connection refused"))
    await clock.advance(60.0)
    [lost] = caplog.records
    assert (lost.name, lost.levelname) == ("smartclient.cache", "WARNING")
    assert lost.getMessage() == "digits: scripted:// is lost, its last list stands (connection refused)"
    assert (lost.service, lost.cause) == ("digits", "connection refused")
    caplog.clear()
    world.directory.heal()
    await clock.advance(10.0)
    [back] = caplog.records
    assert (back.levelname, back.service) == ("INFO", "digits")
    assert back.getMessage() == "digits: scripted:// answers again after 60.0 s"


async def test_no_line_holds_what_the_registry_keeps_beside_the_address(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.transport.script(NODES[0], DEAD)
    await world.post(60)
    assert caplog.records
    assert not any("s3cret" in str(record.__dict__) for record in caplog.records)


def episode() -> Episode:
    return Episode(logging.getLogger("smartclient.test"), "digits", begins="it rains 100%", ends="it is dry")


def test_an_episode_is_told_once_however_often_it_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rain = episode()
    for second in range(100):
        rain.seen(1000.0 + second, "clouds")
    rain.over(1100.0)
    rain.over(1101.0)
    assert said(caplog) == [("WARNING", "digits: it rains 100% (clouds)"), ("INFO", "digits: it is dry after 100.0 s")]


def test_what_comes_and_goes_is_told_once_a_minute_at_most(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rain = episode()
    for tenth in range(600):
        rain.seen(1000.0 + tenth / 10, "showers")
        rain.over(1000.0 + tenth / 10 + 0.05)
    assert len(said(caplog)) == 2


def test_what_began_in_the_quiet_time_and_goes_on_is_told_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rain = episode()
    rain.seen(1000.0, "a shower")
    rain.over(1001.0)
    for second in range(5, 120):
        rain.seen(1000.0 + second, "a front")
    rain.over(1120.0)
    assert [message for _, message in said(caplog)][2:] == [
        "digits: it rains 100% (a front)",
        "digits: it is dry after 115.0 s",
    ]
