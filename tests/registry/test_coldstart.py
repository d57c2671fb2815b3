import asyncio
import gc
import logging

import msgspec
import pytest

from registry import Registration
from registry.coldstart.directory import PATIENCE, ColdStartDirectory
from registry.coldstart.files import SavedLists
from registry.coldstart.lastlist import WRITE_AGAIN_AFTER, WRITE_EVERY
from registry.errors import ConfigurationError, InvalidAnswer, PermissionDenied, RegistryUnavailable, UnknownInstance
from registry.model import Health
from registry.query import Query
from registry.testing import ManualClock, ScriptedDirectory, ScriptedWatch, instance
from registry.watch import HOLD_AFTER_RESET

ALL = Query("digits", passing_only=False)
TEN = [instance(number) for number in range(10)]


class Scripted(ScriptedDirectory):
    """The fake with the time of its answers, and silent on demand."""

    def __init__(self, clock, instances=()):
        super().__init__(instances)
        self.clock = clock
        self.silent = False

    def _snapshot(self, query):
        return msgspec.structs.replace(super()._snapshot(query), fetched_at=self.clock.time())

    async def lookup(self, service, **filters):
        if self.silent:
            await asyncio.Event().wait()
        return await super().lookup(service, **filters)

    def watch(self, service, **filters):
        query = Query(service, **filters)
        return Watch(self, lambda: self._snapshot(query))


class Watch(ScriptedWatch):
    """The fake's watch, that tells failures and when it was good last, as a real one does."""

    async def __anext__(self):
        if self._directory.silent:
            await asyncio.Event().wait()
        return await super().__anext__()

    def status(self):
        status, silent = super().status(), self._directory.silent
        good_at = self._directory.clock.time() if status.live and self._last else None
        return msgspec.structs.replace(
            status, live=status.live and not silent, failures=not status.live, last_good_at=good_at
        )


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def behind(clock):
    return Scripted(clock, TEN)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "lists"


@pytest.fixture
async def start(folder, clock, behind):
    """Make directories over the same registry and folder, as a program does that is started again."""
    made = []

    def start():
        made.append(ColdStartDirectory(behind, folder, clock=clock))
        return made[-1]

    yield start
    for each in made:
        await each.close()


@pytest.fixture
async def kept(start):
    """All ten instances, looked up and written by a program that has ended; a moment later the registry is gone."""
    first = start()
    await first.lookup("digits", passing_only=False)
    await first.close()


def saved(folder):
    return SavedLists(folder, "scripted://").read(ALL)


async def until(clock, condition):
    """Threads write, with pauses: neither the clock nor waiting alone brings it about."""
    async with asyncio.timeout(30):
        while not condition():
            await clock.advance(WRITE_EVERY)
            await asyncio.sleep(0.002)


async def started(clock, watch):
    """The first snapshot of a watch whose registry has had its time to answer."""
    waiting = asyncio.ensure_future(anext(watch))
    await clock.advance(PATIENCE)
    async with asyncio.timeout(30):
        return await waiting


def ids(snapshot):
    return [each.id for each in snapshot.instances]


async def test_while_the_registry_answers_its_answers_are_given_as_they_are(start, behind):
    fresh = await start().lookup("digits")
    assert (len(fresh.instances), fresh.source, fresh.saved) == (10, "scripted://", False)
    watch = start().watch("digits", passing_only=False)
    assert not (await anext(watch)).saved
    behind.set(TEN[:8])
    assert len((await anext(watch)).instances) == 8


@pytest.mark.parametrize("error", [RegistryUnavailable("refused"), InvalidAnswer("html")])
async def test_a_cold_look_up_gives_the_saved_list_with_its_age(kept, start, behind, clock, error, caplog):
    then = clock.time()
    await clock.advance(180)
    behind.fail(error)
    found = await start().lookup("digits", passing_only=False)
    assert len(found.instances) == 10
    assert (found.saved, found.fetched_at, found.source) == (True, then, "scripted:// (saved)")
    (record,) = caplog.records
    assert record.message == f"the list of digits is the one saved 3 min ago: {error}"


async def test_a_registry_that_says_nothing_for_two_seconds_cannot_answer(kept, start, behind, clock):
    behind.silent = True
    asking = asyncio.ensure_future(start().lookup("digits", passing_only=False))
    await clock.advance(PATIENCE - 0.1)
    assert not asking.done()
    await clock.advance(0.2)
    async with asyncio.timeout(30):
        assert (await asking).saved


async def test_without_a_saved_list_a_slow_registry_is_waited_for(start, behind, clock):
    class Slow(Scripted):
        async def lookup(self, service, **filters):
            await clock.sleep(10)
            return await super().lookup(service, **filters)

    directory = start()
    directory.behind = Slow(clock, TEN)
    asking = asyncio.ensure_future(directory.lookup("digits"))
    await clock.advance(PATIENCE)
    for _ in range(20):
        await asyncio.sleep(0.002)
    await clock.advance(8)
    async with asyncio.timeout(30):
        assert not (await asking).saved


@pytest.mark.parametrize("error", [PermissionDenied("no"), ConfigurationError("bad")])
async def test_a_refusal_is_never_papered_over(kept, start, behind, clock, error):
    behind.fail(error)
    with pytest.raises(type(error)):
        await start().lookup("digits", passing_only=False)
    waiting = asyncio.ensure_future(anext(start().watch("digits", passing_only=False)))
    await clock.advance(100)
    for _ in range(20):
        await asyncio.sleep(0.002)
    assert not waiting.done()
    behind.heal()
    async with asyncio.timeout(30):
        assert not (await waiting).saved


async def test_an_outage_without_a_saved_list_is_an_error(kept, start, behind):
    behind.fail()
    with pytest.raises(RegistryUnavailable):
        await start().lookup("letters")


async def test_a_list_of_all_answers_narrower_questions_too(kept, start, behind):
    behind.fail()
    assert len((await start().lookup("digits")).instances) == 10
    with pytest.raises(RegistryUnavailable):
        await start().lookup("digits", zone="nowhere")


async def test_the_newer_of_two_lists_that_answer_is_taken(start, behind, clock):
    first = start()
    await first.lookup("digits")
    await clock.advance(1)
    behind.set([*TEN[:6], instance(7, health=Health.CRITICAL)])
    await first.lookup("digits", passing_only=False)
    await first.close()
    behind.fail()
    assert len((await start().lookup("digits")).instances) == 6


async def test_an_empty_list_does_not_replace_a_saved_one(kept, start, behind):
    behind.set([])
    second = start()
    assert not (await second.lookup("digits", passing_only=False)).instances
    await second.close()
    behind.fail()
    assert len((await start().lookup("digits", passing_only=False)).instances) == 10


@pytest.mark.parametrize("silent", [True, False])
async def test_a_cold_watch_begins_with_the_saved_list_and_goes_on(kept, start, behind, clock, silent):
    then = clock.time()
    await clock.advance(60)
    behind.silent = silent
    if not silent:
        behind.fail()
    watch = start().watch("digits", passing_only=False)
    found = await started(clock, watch)
    assert (found.saved, found.fetched_at, len(found.instances)) == (True, then, 10)
    assert watch.status().last_good_at == then
    waiting = asyncio.ensure_future(anext(watch))
    await clock.advance(100)
    assert not waiting.done()  # once is enough
    behind.silent = False
    waiting.cancel()
    await asyncio.wait({waiting})
    behind.set(TEN[:9])
    behind.heal()
    async with asyncio.timeout(30):
        fresh = await anext(watch)
    assert (fresh.saved, len(fresh.instances)) == (False, 9)
    assert watch.status().last_good_at == clock.time()
    assert not watch.status().suspect


async def test_a_watch_whose_registry_answers_in_time_needs_no_disk(kept, start, behind, clock):
    behind.fail()
    watch = start().watch("digits", passing_only=False)
    waiting = asyncio.ensure_future(anext(watch))
    await clock.advance(PATIENCE / 2)
    behind.heal()
    async with asyncio.timeout(30):
        assert not (await waiting).saved


@pytest.mark.parametrize("left", [0, 4])
async def test_a_fall_after_a_saved_list_is_believed_when_it_is_still_so_later(kept, start, behind, clock, left):
    behind.fail()
    watch = start().watch("digits", passing_only=False)
    old = await started(clock, watch)
    behind.set(TEN[:left])
    behind.heal()
    waiting = asyncio.ensure_future(anext(watch))
    await clock.advance(HOLD_AFTER_RESET - 0.1)
    assert not waiting.done()
    status = watch.status()
    assert (status.suspect, status.last_good_at) == (True, old.fetched_at)
    await clock.advance(0.2)
    async with asyncio.timeout(30):
        assert len((await waiting).instances) == left
    assert not watch.status().suspect


async def test_a_registry_that_came_back_empty_and_filled_up_never_shows_it(kept, start, behind, clock):
    behind.fail()
    watch = start().watch("digits", passing_only=False)
    await started(clock, watch)
    behind.set([])
    behind.heal()
    waiting = asyncio.ensure_future(anext(watch))
    await clock.advance(HOLD_AFTER_RESET / 2)
    behind.set(TEN[:9])
    await clock.advance(HOLD_AFTER_RESET)
    async with asyncio.timeout(30):
        assert len((await waiting).instances) == 9
    again = asyncio.ensure_future(anext(watch))
    await clock.advance(10)
    assert not again.done()  # the watch behind tells of the nine as well: no change
    behind.set(TEN[:8])
    async with asyncio.timeout(30):
        assert len((await again).instances) == 8


async def test_an_outage_during_the_hold_starts_it_again(kept, start, behind, clock):
    behind.fail()
    watch = start().watch("digits", passing_only=False)
    await started(clock, watch)
    behind.set([])
    behind.heal()
    waiting = asyncio.ensure_future(anext(watch))
    await clock.advance(HOLD_AFTER_RESET / 2)
    behind.fail()
    await clock.advance(HOLD_AFTER_RESET)
    behind.heal()
    await clock.advance(HOLD_AFTER_RESET / 2)
    assert not waiting.done()
    behind.set(TEN)
    await clock.advance(2 * HOLD_AFTER_RESET)
    async with asyncio.timeout(30):
        assert len((await waiting).instances) == 10


async def test_a_cancelled_wait_loses_neither_the_doubt_nor_the_answer(kept, start, behind, clock):
    behind.fail()
    watch = start().watch("digits", passing_only=False)
    await started(clock, watch)
    behind.set(TEN[:4])
    behind.heal()
    for _ in range(2):
        waiting = asyncio.ensure_future(anext(watch))
        await clock.advance(HOLD_AFTER_RESET / 3)
        waiting.cancel()
        await asyncio.wait({waiting})
    lookups = behind.lookups
    waiting = asyncio.ensure_future(anext(watch))
    await clock.advance(HOLD_AFTER_RESET / 3 - 0.1)
    assert not waiting.done()
    await clock.advance(0.2)
    async with asyncio.timeout(30):
        assert len((await waiting).instances) == 4
    assert behind.lookups == lookups + 1


async def test_a_doubt_outlives_a_reader_that_stays_away(kept, start, behind, clock):
    behind.fail()
    watch = start().watch("digits", passing_only=False)
    await started(clock, watch)
    behind.set([])
    behind.heal()
    waiting = asyncio.ensure_future(anext(watch))
    await clock.advance(1)
    waiting.cancel()
    await asyncio.wait({waiting})
    behind.set(TEN)
    await clock.advance(10 * HOLD_AFTER_RESET)
    async with asyncio.timeout(30):
        assert len((await anext(watch)).instances) == 10  # asked about again, however late


async def test_a_change_that_comes_as_its_reader_is_cancelled_is_not_lost(start, behind, clock):
    watch = start().watch("digits", passing_only=False)
    await anext(watch)
    for number in range(1, 40):
        waiting = asyncio.ensure_future(anext(watch))
        await clock.settle(3)
        behind.set(TEN[: 9 - number % 2])
        for _ in range(number % 13):
            await asyncio.sleep(0)
        if not waiting.cancel():
            continue
        await asyncio.wait({waiting})
        async with asyncio.timeout(30):
            changed = waiting.result() if not waiting.cancelled() else await anext(watch)
        assert len(changed.instances) == 9 - number % 2


async def test_look_ups_after_a_saved_list_doubt_a_fall_in_the_same_way(kept, start, behind, clock):
    directory = start()
    behind.fail()
    await directory.lookup("digits", passing_only=False)
    behind.set([])
    behind.heal()
    assert (await directory.lookup("digits", passing_only=False)).saved
    await clock.advance(HOLD_AFTER_RESET)
    assert not (await directory.lookup("digits", passing_only=False)).instances
    behind.set(TEN[:1])
    assert ids(await directory.lookup("digits", passing_only=False)) == ["digits-0"]


async def test_every_change_is_written_but_not_more_than_one_a_second(start, behind, clock, folder, monkeypatch):
    written = []
    write = SavedLists.write

    def counted(lists, query, snapshot, now):
        write(lists, query, snapshot, now)
        written.append(len(snapshot.instances))

    monkeypatch.setattr(SavedLists, "write", counted)
    directory = start()
    watch = directory.watch("digits", passing_only=False)
    for count in (10, 9, 8):
        behind.set(TEN[:count])
        await anext(watch)
        for _ in range(20):  # time for threads, none on the clock
            await asyncio.sleep(0.002)
    async with asyncio.timeout(30):
        while not written:
            await asyncio.sleep(0.002)
    assert len(written) == 1
    await until(clock, lambda: written[-1] == 8)
    assert len(written) == 2
    behind.set(TEN[:7])
    await anext(watch)
    await directory.close()
    assert len(saved(folder).instances) == 7  # the last one is written on the way out


async def test_an_unchanged_list_is_written_again_so_that_its_age_is_true(start, clock, folder):
    directory = start()
    begun = clock.time()
    watch = directory.watch("digits", passing_only=False)
    await anext(watch)
    await until(clock, lambda: saved(folder))
    waiting = asyncio.ensure_future(anext(watch))
    await clock.advance(WRITE_AGAIN_AFTER)
    await until(clock, lambda: saved(folder).fetched_at >= begun + WRITE_AGAIN_AFTER)
    waiting.cancel()
    await asyncio.wait({waiting})
    await clock.advance(WRITE_AGAIN_AFTER)
    then = clock.time()
    await directory.lookup("digits", passing_only=False)
    await until(clock, lambda: saved(folder).fetched_at == then)


async def test_repeated_look_ups_of_the_same_list_write_nothing(start, folder, clock):
    directory = start()
    await directory.lookup("digits", passing_only=False)
    await until(clock, lambda: saved(folder))
    (path,) = folder.iterdir()
    path.unlink()
    for _ in range(20):
        await clock.advance(2)
        await directory.lookup("digits", passing_only=False)
    await directory.close()
    assert not list(folder.iterdir())


async def test_a_folder_that_cannot_be_written_costs_one_warning_and_nothing_else(tmp_path, behind, clock, caplog):
    (tmp_path / "file").touch()
    directory = ColdStartDirectory(behind, tmp_path / "file" / "lists", clock=clock)
    for count in range(9, 5, -1):
        behind.set(TEN[:count])
        assert len((await directory.lookup("digits")).instances) == count
        await clock.advance(2)
    await directory.close()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_two_programs_may_share_a_folder(start, behind, folder):
    programs = [start() for _ in range(4)]
    for count in range(9, 5, -1):
        behind.set(TEN[:count])
        await asyncio.gather(*(each.lookup("digits", passing_only=False) for each in programs))
    await asyncio.gather(*(each.close() for each in programs))
    assert len(saved(folder).instances) == 6
    assert len(list(folder.iterdir())) == 1


async def test_closing_the_directory_ends_its_watches_whatever_they_wait_for(kept, start, behind, clock):
    directory = start()
    behind.fail()
    idle, held = (directory.watch("digits", passing_only=False) for _ in range(2))
    await started(clock, held)
    behind.set([])
    behind.heal()
    waiting = [asyncio.ensure_future(anext(watch)) for watch in (held, idle)]
    await clock.advance(1)
    with pytest.raises(RuntimeError, match="already being awaited"):
        await anext(held)
    await directory.close()
    for each in waiting:
        with pytest.raises(StopAsyncIteration):
            await each
    with pytest.raises(StopAsyncIteration):
        await anext(held)


async def test_writes_go_to_the_directory_behind(start, behind):
    directory = start()
    me = Registration(service="letters", id="l1", address="127.0.0.1", port=9001)
    await directory.register(me)
    assert behind.registrations["l1"] == me
    assert await directory.registered(me)
    await directory.beat("l1")
    await directory.maintenance("l1", True, "why")
    assert not (await directory.lookup("letters")).instances
    await directory.deregister("l1")
    with pytest.raises(UnknownInstance):
        await directory.beat("l1")


async def test_names_nobody_knows_leave_nothing_behind(start, behind):
    directory = start()
    for number in range(300):
        await directory.lookup(f"unknown-{number}")
    gc.collect()
    assert len(directory._lasts) == 0
    await directory.lookup("digits")
    assert directory.snapshot()["standing_in"] == 0
    behind.fail()
    await directory.lookup("digits")
    assert directory.snapshot()["standing_in"] == 1
