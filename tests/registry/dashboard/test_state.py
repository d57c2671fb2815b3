"""Where the sources meet: what makes a page look again, what is drawn as a chart, what becomes an event."""

import asyncio
import random

import pytest

from registry.consul.settings import ConsulSettings
from registry.dashboard import state as module
from registry.dashboard.model import Event, Fleet, Kind, Registry
from registry.dashboard.state import FADE, SAMPLE, State
from registry.testing import ManualClock
from tests.registry.dashboard.fleet import NOW, load, many, reported


@pytest.fixture
async def clock():
    return ManualClock()


@pytest.fixture
async def state(clock):
    state = State(ConsulSettings(), clock=clock, rng=random.Random(1))
    yield state
    await state.close()


def fleet(*services, version=1, live=True, heard_at=NOW):
    registry = Registry(source="consul://x", live=live, heard_at=heard_at)
    return Fleet(registry=registry, services={each.name: each for each in services}, version=version)


def hear(state, found, *events):
    state.source._fleet = found
    state._changed(found, list(events))


def report(state, *nodes, client="ada"):
    return reported(*nodes, calls=state.calls, client=client)


async def test_a_heartbeat_that_renews_times_alone_is_no_news(state) -> None:
    hear(state, fleet(many(2)))
    before = state.stamp()
    hear(state, fleet(many(2), heard_at=NOW + 2))
    assert state.stamp() == before


async def test_whatever_pages_show_is_news(state, clock) -> None:
    hear(state, fleet(many(2)))
    seen = [state.stamp()]

    def news(what):
        assert state.stamp() not in seen, what
        seen.append(state.stamp())

    hear(state, fleet(many(3), version=2))
    news("a list")
    hear(state, fleet(many(3), version=2, live=False))
    news("the registry is away")
    hear(state, fleet(many(3), version=2, live=False), Event(at=NOW, kind=Kind.GONE, words="x"))
    news("an event")
    report(state, {"instance": "digits-0001", "ok": 1})
    news("a report")
    state._loaded({("digits", "digits-0001")})
    news("a load")
    state.sample()
    news("a point of a chart")
    state.drains.start("undrain", many(1), [], reason="a test", who="ada")
    news("an order")
    await clock.advance(FADE)
    news("rates fade with time alone")


async def test_loads_that_are_as_they_were_are_no_news(state) -> None:
    before = state.stamp()
    state._loaded(set())
    assert state.stamp() == before


async def test_what_the_registry_tells_is_in_the_journal_and_its_nodes_are_asked(state, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(state.loads, "update", asked.append)
    found = fleet(many(2))
    hear(state, found, Event(at=NOW, kind=Kind.REGISTERED, words="digits-0001 has come", service="digits"))
    assert [each.words for each in state.journal.newest(5)] == ["digits-0001 has come"]
    assert asked == [found]


async def test_an_instance_that_clients_leave_out_and_use_again_makes_events(state, clock) -> None:
    hear(state, fleet(many(2)))
    report(state, {"instance": "digits-0001", "failed": 9, "state": "ejected"})
    await clock.advance(5.0)
    report(state, {"instance": "digits-0001", "ok": 9})
    seen = state.journal.newest(5)
    assert [each.words for each in seen] == [
        "clients use digits-0001 again",
        "1 of 1 clients leave digits-0001 out: it failed them",
    ]
    assert {(each.kind, each.service, each.instance) for each in seen} == {(Kind.EJECTED, "digits", "digits-0001")}


async def test_a_sample_adds_a_point_to_every_chart(state, clock) -> None:
    hear(state, fleet(many(3)))
    state.loads._loads["digits", "digits-0001"] = load(wait_ms=7.0, queue=2.0, utilization=0.5, rps=3.0)
    state.loads._loads["digits", "digits-0002"] = load(wait_ms=7.0, error="it answers 500 at /load")
    report(state, {"instance": "digits-0001", "ok": 50, "latencies": [[8.0, 50]]})
    state.sample()

    def last(key):
        return [value for _, value in state.series.points(key)]

    assert last("passing:digits") == [3]
    assert last("queue:digits/digits-0001") == [2.0]
    assert last("wait:digits/digits-0001") == [7.0]
    assert last("busy:digits/digits-0001") == [0.5]
    assert last("rps:digits/digits-0001")[0] > 0
    assert last("p95:digits/digits-0001")[0] > 0
    assert last("wait:digits/digits-0002") == [None]  # what it said last is not what it is now
    assert last("wait:digits/digits-0000") == []  # never heard
    assert state.series.points("passing:digits")[0][0] == clock.time()


async def test_the_charts_of_instances_are_bounded(state, monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_CHARTED", 2)
    hear(state, fleet(many(5)))
    for number in range(5):
        state.loads._loads["digits", f"digits-{number:04}"] = load(queue=1.0)
    state.sample()
    assert [bool(state.series.points(f"queue:digits/digits-{number:04}")) for number in range(5)] == [
        True, True, False, False, False,
    ]  # fmt: skip


async def test_samples_are_taken_by_the_clock(state, clock) -> None:
    hear(state, fleet(many(1)))
    task = asyncio.create_task(state._sample())
    await clock.advance(3 * SAMPLE)
    task.cancel()
    at = [when for when, _ in state.series.points("passing:digits")]
    assert at == [NOW + SAMPLE, NOW + 2 * SAMPLE, NOW + 3 * SAMPLE]
