"""The watch over a stream: when to connect, what to believe, what to publish."""

import asyncio
import gc
import sys

import pytest

from registry.errors import PermissionDenied, RegistryUnavailable
from registry.lookup.client.lines import LARGEST
from registry.lookup.client.stream import SILENCE, StreamWatch
from registry.lookup.wire import Resync, line
from registry.model import Health
from registry.query import Query
from registry.testing import ManualClock, instance
from registry.timing import SystemClock
from registry.watch import HOLD_AFTER_RESET
from tests.registry.lookup_client.fake import delta, heartbeat, some, whole
from tests.registry.lookup_client.scripted import END, Most, Script, Services


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def services(clock):
    return Services(clock)


@pytest.fixture
async def watch(services, clock):
    watch = StreamWatch(Query("digits"), services, clock=clock, rng=Most())
    yield watch
    await watch.aclose()


async def ids(watch):
    return [int(each.id.removeprefix("digits-")) for each in (await anext(watch)).instances]


async def quiet(waiting, clock, seconds=0.0):
    """Whether nothing is published for so long."""
    await clock.advance(seconds)
    return not waiting.done()


# --- what is published


async def test_the_first_list_is_given_and_then_each_change(watch, services):
    stream = services.then(whole(some(2), index=7))
    first = await anext(watch)
    assert (first.instances, first.index, first.service, first.source) == (some(2), 7, "digits", "lookup://a,b")
    stream.put(delta(instance(5), removed=["digits-0"], index=8))
    second = await anext(watch)
    assert ([each.id for each in second.instances], second.index) == (["digits-1", "digits-5"], 8)


async def test_an_empty_first_list_is_a_list(watch, services):
    services.then(whole(()))
    assert await ids(watch) == []


async def test_a_list_in_parts_is_given_when_it_is_whole(watch, services, clock):
    stream = services.then(whole(some(3)[:2], part=1, parts=2), heartbeat())
    waiting = asyncio.ensure_future(ids(watch))
    assert await quiet(waiting, clock)
    assert not watch.status().live
    stream.put(whole(some(3)[2:], part=2, parts=2))
    assert await waiting == [0, 1, 2]
    assert watch.status().live


async def test_what_changes_nothing_is_not_published(watch, services, clock):
    stream = services.then(whole(some(2)))
    await ids(watch)
    for data in (heartbeat(), delta(instance(1), removed=["digits-9"]), whole(some(2)), line(Resync()), whole(some(2))):
        stream.put(data)
    waiting = asyncio.ensure_future(ids(watch))
    assert await quiet(waiting, clock)
    stream.put(delta(instance(1, health=Health.DRAINING)))
    assert await waiting == [0, 1]


async def test_a_cancelled_anext_loses_nothing(watch, services, clock):
    stream = services.then(whole(some(1)), delta(instance(1))[:10])
    await ids(watch)
    waiting = asyncio.ensure_future(ids(watch))
    assert await quiet(waiting, clock)
    waiting.cancel()
    await asyncio.wait({waiting})
    stream.put(delta(instance(1))[10:])
    assert await ids(watch) == [0, 1]
    assert len(services.connected_at) == 1


async def test_a_watch_is_awaited_by_one_task_at_a_time(watch, services, clock):
    waiting = asyncio.ensure_future(anext(watch))
    await clock.settle()
    with pytest.raises(RuntimeError, match="already"):
        await anext(watch)
    waiting.cancel()
    await asyncio.wait({waiting})


async def test_closing_ends_it_and_gives_the_connection_back(watch, services, clock):
    stream = services.then(whole(some(1)))
    await ids(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await clock.settle()
    await watch.aclose()
    with pytest.raises(StopAsyncIteration):
        await waiting
    assert stream.closed
    assert services.lost_addresses == []
    await watch.aclose()


# --- what it says of itself


async def test_the_services_word_on_staleness_is_passed_on(watch, services, clock):
    stream = services.then(whole(some(1), stale_for=3.0))
    assert (await anext(watch)).stale_for == 3.0
    assert watch.status().last_good_at == clock.time() - 3.0
    assert watch.status().live
    waiting = asyncio.ensure_future(anext(watch))
    await clock.advance(15)
    stream.put(heartbeat(stale_for=60.0))
    await clock.settle()
    status = watch.status()
    assert (status.live, status.failures, status.last_good_at) == (False, 0, clock.time() - 60)
    assert "a has been out of touch with its registry for 60 s" in status.last_error
    stream.put(heartbeat())
    await clock.settle()
    assert (watch.status().live, watch.status().last_error) == (True, "")
    assert watch.status().last_good_at == clock.time()
    waiting.cancel()
    await asyncio.wait({waiting})


async def test_failures_are_counted_until_a_list_is_whole(watch, services, clock):
    services.then(b"<html>\n")
    services.then(PermissionDenied("no"))
    stream = services.then(heartbeat())
    waiting = asyncio.ensure_future(ids(watch))
    await clock.advance(5)
    status = watch.status()
    assert (status.live, status.failures, status.last_error) == (False, 2, "no")
    stream.put(whole(some(1)))
    assert await waiting == [0]
    assert (watch.status().live, watch.status().failures) == (True, 0)


async def test_a_stream_that_ends_before_its_list_is_whole_is_a_failure(watch, services, clock):
    services.then(whole(some(3), parts=2), END)
    waiting = asyncio.ensure_future(anext(watch))
    await clock.settle(50)
    assert watch.status().failures == 1
    assert "before the list was whole" in watch.status().last_error
    waiting.cancel()
    await asyncio.wait({waiting})


# --- when to connect


@pytest.mark.parametrize(
    "answer",
    [[RegistryUnavailable("gone")], [b"<html>\n"], [b"{}\n"], [END], [whole(some(3)), END], [whole(some(3)), b"x\n"],
     [delta(instance(1))], [whole(some(3), part=2, parts=2)], [whole(some(3), parts=2), END], [b"\n"],
     [whole(some(3)), b"half a line", END]],
    ids=["error", "html", "no event", "end", "list and end", "list and garbage",
         "delta first", "second part first", "list breaks off", "blank line", "half a line"],
)  # fmt: skip
async def test_useless_answers_are_asked_for_twice_in_the_first_second_and_then_less_and_less(
    watch, services, clock, answer
):
    for _ in range(100):
        services.then(*answer)
    published = []

    async def follow():
        while True:
            published.append((await anext(watch)).instances)

    following = asyncio.ensure_future(follow())
    await clock.settle(200)
    await clock.advance(0.999)
    assert len(services.connected_at) == 2
    await clock.advance(600)
    pauses = [after - before for before, after in zip(services.connected_at, services.connected_at[1:], strict=False)]
    assert max(pauses) == pytest.approx(30, abs=0.1)
    assert pauses == sorted(pauses)
    assert published in ([], [some(3)])
    following.cancel()
    await asyncio.wait({following})


async def test_cancelling_again_and_again_does_not_connect_sooner(watch, services, clock):
    services.then(whole(some(1)), b"x\n")
    await ids(watch)
    for _ in range(90):
        waiting = asyncio.ensure_future(anext(watch))
        await clock.advance(0.01)
        waiting.cancel()
        await asyncio.wait({waiting})
    assert len(services.connected_at) == 2


async def test_a_service_that_stops_after_a_while_is_left_for_the_next_at_once(watch, services, clock):
    stream = services.then(whole(some(1)))
    await ids(watch)
    waiting = asyncio.ensure_future(ids(watch))
    await clock.advance(20)
    stream.put(END)
    services.then(whole(some(2)))
    await clock.settle()
    assert await waiting == [0, 1]
    assert services.connected_at == [0, 20]
    assert stream.closed
    assert services.lost_addresses == ["a"]
    assert watch.status().failures == 0


async def test_a_connection_that_lasted_begins_the_back_off_anew(watch, services, clock):
    following = asyncio.ensure_future(ids(watch))
    await clock.advance(200)  # refused all along
    following.cancel()
    await asyncio.wait({following})
    stream = Script("a", whole(some(1)))
    services._scripts = [None] * len(services.connected_at) + [stream]
    following = asyncio.ensure_future(ids(watch))
    await clock.advance(30)
    assert await following == [0]
    following = asyncio.ensure_future(ids(watch))
    await clock.advance(20)
    before = len(services.connected_at)
    stream.put(RegistryUnavailable("broken"))
    await clock.advance(1.5)
    assert len(services.connected_at) == before + 2
    following.cancel()
    await asyncio.wait({following})


async def test_silence_is_a_dead_connection(watch, services, clock):
    dead = services.then(whole(some(1)))
    services.then(whole(some(2)))
    await ids(watch)
    waiting = asyncio.ensure_future(ids(watch))
    await clock.advance(SILENCE - 1)
    dead.put(heartbeat())
    assert await quiet(waiting, clock, SILENCE - 1)
    assert not dead.closed
    dead.put(b"not a whole li")
    await clock.advance(2)
    assert dead.closed
    assert await waiting == [0, 1]


async def test_silence_is_counted_through_cancelled_waits(watch, services, clock):
    dead = services.then(whole(some(1)))
    await ids(watch)
    for _ in range(5):
        waiting = asyncio.ensure_future(ids(watch))
        await clock.advance(SILENCE / 4)
        waiting.cancel()
        await asyncio.wait({waiting})
    assert dead.closed


# --- what to believe


async def reconnected(watch, services, clock, new):
    """Ten instances, then another connection that begins with ``new``; give what waits for the next list."""
    stream = services.then(whole(some(10), index=5))
    assert len(await ids(watch)) == 10
    second = services.then(whole(new))
    stream.put(END)
    waiting = asyncio.ensure_future(ids(watch))
    await clock.advance(0.5)
    return waiting, second


async def test_a_new_connections_fall_is_believed_when_another_address_agrees(watch, services, clock):
    waiting, _ = await reconnected(watch, services, clock, some(2))
    assert watch.status().suspect
    assert await quiet(waiting, clock, HOLD_AFTER_RESET - 0.6)
    assert services.asked_last == []
    services.answers = [some(3)]
    await clock.advance(0.2)
    assert await waiting == [0, 1]
    assert services.asked_last == ["b"]
    assert not watch.status().suspect


async def test_a_fall_that_another_address_denies_is_not_believed(watch, services, clock):
    waiting, denied = await reconnected(watch, services, clock, ())
    services.answers = [some(9)]
    third = services.then(whole(some(9), index=6))
    await clock.advance(HOLD_AFTER_RESET - 0.4)
    assert denied.closed
    assert watch.status().suspect
    assert "does not agree" in watch.status().last_error
    await clock.advance(5)
    assert await waiting == list(range(9))
    assert not third.closed
    assert not watch.status().suspect


async def test_a_fall_that_nobody_can_confirm_is_not_believed(watch, services, clock):
    waiting, _ = await reconnected(watch, services, clock, ())
    services.answers = [RegistryUnavailable("gone")]
    assert await quiet(waiting, clock, 100)
    assert watch.status().suspect
    waiting.cancel()
    await asyncio.wait({waiting})


async def test_cancelled_waits_do_not_lengthen_the_hold(watch, services, clock):
    waiting, _ = await reconnected(watch, services, clock, ())
    waiting.cancel()
    await asyncio.wait({waiting})
    services.answers = [()]
    for _ in range(11):
        waiting = asyncio.ensure_future(ids(watch))
        await clock.advance(1)
        if waiting.done():
            break
        waiting.cancel()
        await asyncio.wait({waiting})
    assert await waiting == []


async def test_a_new_connections_ordinary_change_is_believed_at_once(watch, services, clock):
    waiting, _ = await reconnected(watch, services, clock, some(5))
    assert waiting.done()
    assert await waiting == [0, 1, 2, 3, 4]
    assert services.asked_last == []


async def test_what_a_living_stream_says_is_believed_at_once(watch, services):
    stream = services.then(whole(some(10)))
    await ids(watch)
    stream.put(delta(removed=[f"digits-{number}" for number in range(9)]))
    assert await ids(watch) == [9]
    stream.put(whole(some(10)))
    assert len(await ids(watch)) == 10
    stream.put(whole(()))
    assert await ids(watch) == []
    assert services.asked_last == []


# --- memory


async def test_a_list_without_end_is_given_up_before_it_fills_the_memory(watch, services, clock, monkeypatch):
    monkeypatch.setattr("registry.lookup.client.stream.LARGEST", LARGEST >> 10)
    stream = services.then(whole(some(1)))
    await ids(watch)
    endless = [whole(some(400), part=part, parts=10_000) for part in range(1, 10)]
    for each in endless:
        stream.put(each)
        stream.put(heartbeat())
    waiting = asyncio.ensure_future(ids(watch))
    await clock.settle(200)
    assert not waiting.done()
    assert stream.closed
    assert "list of more than" in watch.status().last_error
    waiting.cancel()
    await asyncio.wait({waiting})


async def test_ten_thousand_changes_leave_nothing_behind(services):
    watch = StreamWatch(Query("digits"), services, clock=SystemClock(), rng=Most())
    stream = services.then(whole(some(50)))
    await anext(watch)

    async def change(times):
        for number in range(times):
            stream.put(delta(instance(number % 50, weight=2 + number), index=number + 2))
            await anext(watch)
        gc.collect()
        return sys.getallocatedblocks()

    before = await change(200)
    assert await change(10_000) - before < 1000
    await watch.aclose()
