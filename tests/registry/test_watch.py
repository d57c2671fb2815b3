import asyncio
import gc
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidAnswer, RegistryUnavailable
from registry.model import Snapshot
from registry.testing import ManualClock, instance
from registry.watch import (
    BURST,
    FULL_READ_EVERY,
    HOLD,
    HOLD_AFTER_RESET,
    WAIT,
    BlockingWatch,
    Reading,
    Verdict,
    client_timeout,
    hold_for,
    interval_for,
    judge,
    next_index,
)


def some(count):
    return tuple(instance(number) for number in range(count))


# --- the rules, pure


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (None, 0, Verdict.PUBLISH),
        (None, 3, Verdict.PUBLISH),
        (3, 3, Verdict.SAME),
        (0, 0, Verdict.SAME),
        (0, 3, Verdict.PUBLISH),
        (3, 2, Verdict.PUBLISH),
        (4, 2, Verdict.PUBLISH),
        (3, 1, Verdict.CONFIRM),
        (1, 0, Verdict.CONFIRM),
        (100, 49, Verdict.CONFIRM),
    ],
)
def test_a_fall_to_nothing_or_by_more_than_half_is_to_be_confirmed(old, new, verdict):
    assert judge(None if old is None else some(old), some(new)) is verdict


def test_a_list_of_the_same_length_is_compared_by_value():
    assert judge(some(2), (instance(0), instance(1, weight=2))) is Verdict.PUBLISH


@given(st.integers(min_value=0, max_value=2**63), st.integers(min_value=0, max_value=2**63))
def test_an_index_never_blocks_on_zero_and_starts_again_when_it_went_back(asked, answered):
    following = next_index(asked, answered)
    assert following == 0 if max(1, answered) < asked else following == max(1, answered)


def test_the_client_waits_longer_than_the_server_may():
    assert client_timeout(60) == 60 * 1.0625 + 10


def test_the_pace_under_churn_follows_the_size_of_the_answer():
    assert [interval_for(size) for size in (0, 10_000, 5_000_000, 12_900_000, 10**9)] == [1.0, 1.0, 5.0, 12.9, 15.0]


def test_who_may_read_faster_waits_less():
    assert [interval_for(12_900_000, pace) for pace in (1e6, 4.3e6, 20e6)] == [12.9, 3.0, 1.0]


def test_a_registry_that_lost_its_memory_is_given_longer():
    assert hold_for(10, 10) == hold_for(10, 11) == HOLD
    assert hold_for(10, 9) == HOLD_AFTER_RESET


# --- the loop


class Script:
    """A reader that answers what the test put in: a list, an error, or nothing until something is put in."""

    def __init__(self):
        self.answers = asyncio.Queue()
        self.asked = []
        self.size = 0

    def put(self, *answers, index=None):
        for answer in answers:
            self.answers.put_nowait((answer, index))

    async def __call__(self, *, index, stale):
        self.asked.append((index, stale))
        answer, new_index = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        new_index = new_index if new_index is not None else len(self.asked)
        snapshot = Snapshot(service="digits", index=new_index, instances=answer, fetched_at=0.0)
        return Reading(snapshot, self.size)


class Middle(random.Random):
    def random(self):
        return 0.5


class Least(random.Random):
    """Never waits longer than it has to."""

    def random(self):
        return 0.0


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def script():
    return Script()


@pytest.fixture
async def watch(script, clock):
    watch = BlockingWatch(script, clock=clock, rng=Middle())
    yield watch
    await watch.aclose()


async def following(watch):
    return len((await anext(watch)).instances)


async def test_the_first_answer_is_given_and_then_real_changes_only(watch, script, clock):
    script.put(some(3))
    assert await following(watch) == 3
    script.put(some(3), some(3), some(4))
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(10)
    assert await waiting == 4


async def test_an_empty_first_answer_is_an_answer(watch, script):
    script.put(())
    assert await following(watch) == 0


async def test_it_asks_at_once_and_then_blocks_on_the_index_it_was_given(watch, script):
    script.put(some(1), index=7)
    await following(watch)
    script.put(some(2), index=9)
    await following(watch)
    assert script.asked == [(0, True), (7, True)]


async def test_an_index_that_went_back_is_dropped(watch, script, clock):
    script.put(some(3), index=50)
    script.put(some(3), index=5)
    script.put(some(4), index=6)
    assert await following(watch) == 3
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(5)
    assert await waiting == 4
    assert [index for index, _ in script.asked] == [0, 50, 0]


async def test_a_fall_is_believed_when_a_second_read_from_the_leader_agrees(watch, script, clock):
    script.put(some(3), (), ())
    assert await following(watch) == 3
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(HOLD / 2)
    assert not waiting.done()
    await clock.advance(HOLD)
    assert await waiting == 0
    assert script.asked[-1] == (0, False)


async def test_a_fall_that_was_none_is_never_seen(watch, script, clock):
    script.put(some(3), (), some(3), some(5))
    assert await following(watch) == 3
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(10)
    assert await waiting == 5


async def test_a_fall_that_cannot_be_confirmed_keeps_the_list(watch, script, clock):
    script.put(some(3), (), RegistryUnavailable("no leader"), (), RegistryUnavailable("no leader"))
    assert await following(watch) == 3
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(60)
    assert not waiting.done()
    assert not watch.status().live
    script.put((), ())
    await clock.advance(60)
    assert await waiting == 0


async def test_a_registry_that_restarted_empty_has_time_to_be_told_again(watch, script, clock):
    script.put(some(3), index=90)
    assert await following(watch) == 3
    script.put((), index=1)
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(HOLD_AFTER_RESET - 1)
    assert not waiting.done()
    script.put(some(3), index=9)
    script.put(some(4), index=10)
    await clock.advance(5)
    assert await waiting == 4


async def test_an_outage_is_waited_out_and_told_by_the_status(watch, script, clock):
    script.put(some(3))
    await following(watch)
    good_at = watch.status().last_good_at
    assert watch.status().live
    assert good_at == clock.time()
    script.put(*[RegistryUnavailable("refused")] * 5)
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(60)
    status = watch.status()
    assert (status.live, status.failures, status.last_error, status.last_good_at) == (False, 5, "refused", good_at)
    assert not waiting.done()
    script.put(some(4))
    assert await waiting == 4
    assert watch.status().live
    assert watch.status().failures == 0


async def test_after_a_failure_it_asks_for_the_list_and_not_for_a_change(watch, script, clock):
    script.put(some(3), RegistryUnavailable("refused"), some(4), index=20)
    await following(watch)
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(5)
    assert await waiting == 4
    assert [index for index, _ in script.asked] == [0, 20, 0]


async def test_it_never_gives_up_and_asks_ever_less_often(watch, script, clock):
    script.put(*[RegistryUnavailable("refused")] * 1000)
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(600)
    first = len(script.asked)
    assert 40 < first < 60  # a draw of one half below the cap: every 15 s, with the quick ones before
    await clock.advance(150)
    assert len(script.asked) == first + 10
    waiting.cancel()


async def test_the_first_changes_go_through_at_once_and_churn_is_slowed(watch, script, clock):
    for count in range(1, 20):
        script.put(some(count))
    seen = []

    async def follow():
        async for snapshot in watch:
            seen.append(len(snapshot.instances))  # noqa: PERF401 - it is looked at while it grows

    task = asyncio.create_task(follow())
    await clock.settle()
    assert len(seen) == BURST
    await clock.advance(3)
    assert len(seen) == BURST + 3
    script.size = 8_000_000
    await clock.advance(1)
    before = len(seen)
    await clock.advance(16)
    assert len(seen) == before + 2
    task.cancel()


async def test_the_list_is_read_in_full_every_few_minutes(watch, script, clock):
    async def quiet(*, index, stale):
        script.asked.append((index, stale))
        if index:
            await clock.sleep(WAIT)
        return Reading(Snapshot(service="digits", index=5, instances=some(3), fetched_at=0.0))

    watch._read = quiet
    await following(watch)
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(1000)
    assert [index for index, _ in script.asked].count(0) == 1 + 3
    waiting.cancel()


async def test_the_first_full_read_comes_anywhere_in_the_period_so_that_watchers_stay_apart():
    class Draw(random.Random):
        drawn = 0.0

        def random(self):
            return self.drawn

    offsets = []
    for drawn in (0.0, 0.5, 0.999):
        clock, rng = ManualClock(), Draw()
        rng.drawn = drawn
        full = []

        async def read(*, index, stale):
            if index:
                await clock.sleep(1)  # noqa: B023 - awaited within the round
            else:
                full.append(clock.monotonic())  # noqa: B023
            return Reading(Snapshot(service="digits", index=5, instances=some(3), fetched_at=0.0))

        watch = BlockingWatch(read, clock=clock, rng=rng)
        await anext(watch)
        waiting = asyncio.ensure_future(anext(watch))
        await clock.advance(FULL_READ_EVERY + 5)
        await watch.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting
        offsets.append(full[1] - full[0])
    assert offsets == [pytest.approx(FULL_READ_EVERY, abs=2), pytest.approx(150, abs=2), pytest.approx(1, abs=1)]


# --- no spin


def useless(kind):
    """What a server may answer at once, again and again, that changes nothing."""
    if kind == "errors":
        return lambda number: RegistryUnavailable("refused")
    if kind == "garbage":
        return lambda number: InvalidAnswer("not JSON")
    return {
        "the same list": lambda number: 7,
        "an index that grows": lambda number: number,
        "an index that jumps back each time": lambda number: 100 - number,
        "an index that swings": lambda number: number % 2 * 50 + 1,
        "no index": lambda number: 0,
        "a huge index": lambda number: 2**64 - 1,
    }[kind]


@pytest.mark.parametrize("slow", [0.0, 0.01])
@pytest.mark.parametrize("had_list", [False, True])
@pytest.mark.parametrize("kind", [
    "errors", "garbage", "the same list", "an index that grows", "an index that jumps back each time",
    "an index that swings", "no index", "a huge index",
])  # fmt: skip
async def test_answers_that_change_nothing_are_asked_for_twice_in_the_first_second(clock, kind, had_list, slow):
    asked = []
    answer = useless(kind)

    async def read(*, index, stale):
        asked.append(clock.monotonic())
        await clock.sleep(slow)
        given = answer(len(asked)) if asked[1:] or not had_list else 7
        if isinstance(given, Exception):
            raise given
        return Reading(Snapshot(service="digits", index=given, instances=some(3), fetched_at=0.0))

    watch = BlockingWatch(read, clock=clock, rng=Least())

    async def follow():
        return [len(snapshot.instances) async for snapshot in watch]

    task = asyncio.create_task(follow())
    await clock.advance(0.99)
    assert len(asked) == 2
    await clock.advance(30)
    assert len(asked) <= 2 + 31
    assert all(later - first >= 1 for first, later in zip(asked, asked[2:], strict=False))
    await watch.aclose()
    assert await task == ([3] if had_list or "index" in kind or "list" in kind else [])


async def test_a_quiet_watch_that_is_woken_for_nothing_asks_twice_in_a_second(script, clock):
    watch = BlockingWatch(script, clock=clock, rng=Least())
    script.put(some(3), index=5)
    await following(watch)
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(100)
    before = len(script.asked)
    script.put(*[some(3)] * 100, index=6)
    await clock.advance(0.99)
    assert len(script.asked) - before == 1  # besides the one that was woken
    waiting.cancel()


async def test_calls_that_change_nothing_do_not_slow_the_changes_after_them(script, clock):
    watch = BlockingWatch(script, clock=clock, rng=Least())
    script.put(*[RegistryUnavailable("refused")] * 3)
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(20)
    script.put(some(1), some(2), some(3), some(4))
    assert [await waiting] + [await following(watch) for _ in range(3)] == [1, 2, 3, 4]


async def test_a_reading_of_two_calls_pays_for_both(clock):
    asked = []

    async def read(*, index, stale):
        asked.append(clock.monotonic())
        snapshot = Snapshot(service="digits", index=5, instances=some(3), fetched_at=0.0)
        return Reading(snapshot, calls=2 if len(asked) == 1 else 1)

    watch = BlockingWatch(read, clock=clock, rng=Least())
    await anext(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await clock.advance(0.99)
    assert len(asked) == 1
    await clock.advance(0.02)
    assert len(asked) == 2
    waiting.cancel()


async def test_who_may_read_faster_is_woken_sooner_under_churn(script, clock):
    watch = BlockingWatch(script, clock=clock, rng=Least(), pace=20e6)
    script.size = 12_900_000
    for count in range(1, 30):
        script.put(some(count))
    for _ in range(BURST):
        await following(watch)
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(1.01)
    assert waiting.done()


async def test_a_wait_that_was_cancelled_goes_on_where_it_was(script, clock):
    watch = BlockingWatch(script, clock=clock, rng=Least())
    script.put(some(3), *[some(3)] * 9, index=5)
    await following(watch)
    for _ in range(9):
        waiting = asyncio.ensure_future(anext(watch))
        await clock.advance(0.1)
        waiting.cancel()
        await asyncio.wait({waiting})
    assert len(script.asked) == 2
    waiting = asyncio.ensure_future(anext(watch))
    await clock.advance(0.11)
    assert len(script.asked) == 3
    waiting.cancel()


async def test_after_a_pause_among_changes_it_asks_for_the_list_for_the_index_may_mean_nothing_any_more(script, clock):
    watch = BlockingWatch(script, clock=clock, rng=Least())
    for count in range(1, BURST + 1):
        script.put(some(count), index=10 * count)
        await following(watch)
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(1)
    script.put(some(BURST), some(BURST + 1), index=50)
    await clock.advance(1)
    assert await waiting == BURST + 1
    assert [index for index, _ in script.asked] == [0, 10, 20, 30, 0, 50]


# --- suspicion


async def test_a_fall_makes_the_status_suspect_until_it_is_decided(watch, script, clock):
    script.put(some(3))
    await following(watch)
    good_at = watch.status().last_good_at
    assert not watch.status().suspect
    script.put(())
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(HOLD / 2)
    assert watch.status().suspect
    assert watch.status().live
    assert watch.status().last_good_at == good_at
    script.put(RegistryUnavailable("no leader"))
    await clock.advance(HOLD)
    assert (watch.status().suspect, watch.status().live, watch.status().failures) == (True, False, 1)
    script.put(some(3))
    await clock.advance(5)
    assert (watch.status().suspect, watch.status().live, watch.status().failures) == (False, True, 0)
    waiting.cancel()


async def test_a_confirmed_fall_is_suspect_no_longer(watch, script, clock):
    script.put(some(3), (), ())
    await following(watch)
    waiting = asyncio.ensure_future(following(watch))
    await clock.advance(2)
    assert await waiting == 0
    assert not watch.status().suspect


# --- memory


async def test_ten_thousand_changes_leave_no_memory_behind(clock):
    number = 0

    async def read(*, index, stale):
        nonlocal number
        number += 1
        some_of_them = tuple(instance(each, weight=number) for each in range(number % 2 + 1))
        return Reading(Snapshot(service="digits", index=number, instances=some_of_them, fetched_at=0.0))

    class Impatient(ManualClock):
        async def sleep(self, seconds):
            self._now += max(0.0, seconds)

    watch = BlockingWatch(read, clock=Impatient(), rng=Least())
    held = []
    tracemalloc.start()
    try:
        for count in range(10_000):
            await anext(watch)
            if count % 4500 == 999:
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert number >= 10_000
    assert held[-1] - held[0] < 10_000


# --- taking it in turns


async def test_cancelling_an_anext_loses_no_change(watch, script, clock):
    script.put(some(3), index=4)
    await following(watch)
    for _ in range(3):
        waiting = asyncio.ensure_future(anext(watch))
        await clock.settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    script.put(some(4), index=5)
    await clock.advance(0)
    waiting = asyncio.ensure_future(anext(watch))
    await clock.advance(5)
    assert len((await waiting).instances) == 4


async def test_a_change_that_came_in_while_the_anext_was_cancelled_is_given_to_the_next(watch, script, clock):
    waiting = asyncio.ensure_future(anext(watch))
    await clock.settle()
    script.put(some(3))
    step = watch._step
    while not step.done():
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await following(watch) == 3
    assert len(script.asked) == 1


async def test_cancelling_while_a_fall_is_being_confirmed_does_not_forget_it(watch, script, clock):
    script.put(some(3), (), index=4)
    await following(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await clock.settle()
    waiting.cancel()
    await clock.settle()
    script.put((), (), index=4)
    waiting = asyncio.ensure_future(anext(watch))
    await clock.advance(5)
    assert (await waiting).instances == ()
    assert script.asked[2] == (0, True)


async def test_closing_ends_a_waiting_anext_and_those_to_come(watch, clock):
    async def follow():
        return [snapshot async for snapshot in watch]

    task = asyncio.create_task(follow())
    await clock.settle()
    await watch.aclose()
    assert await task == []
    with pytest.raises(StopAsyncIteration):
        await anext(watch)
    await watch.aclose()


async def test_two_cannot_await_one_watch(watch, clock):
    waiting = asyncio.ensure_future(anext(watch))
    await clock.settle()
    with pytest.raises(RuntimeError, match="already"):
        await anext(watch)
    waiting.cancel()
