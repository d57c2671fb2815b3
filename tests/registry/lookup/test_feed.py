"""Whatever happens upstream and however slow a reader is, it ends with the list, through the wire and ``Replica``."""

import asyncio
import gc
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.lookup.client.replica import Replica
from registry.lookup.feed import MOST_VIEWS, VIEW_IDLE, Feed
from registry.lookup.outlet import Patience
from registry.lookup.question import Question
from registry.lookup.reader import Reader, Tally
from registry.lookup.refused import Refused
from registry.lookup.subset import Subset
from registry.lookup.turns import Turns
from registry.lookup.wire import Change, Part, Resync, decode_line, to_instance, to_row
from registry.model import Health
from registry.query import Query
from registry.testing import ManualClock, instance
from tests.registry.lookup.support import Upstream


class Pipe:
    """An ``Outlet`` that takes nothing while it is shut."""

    transport = None

    def __init__(self):
        self.lines = []
        self.most = 0
        self._held = b""
        self._open = asyncio.Event()
        self._open.set()

    @property
    def backlog(self):
        return len(self._held)

    def write(self, data):
        if self._open.is_set():
            self.lines += data.splitlines()
        else:
            self._held += data
            self.most = max(self.most, len(self._held))

    async def drained(self):
        if self._held:
            await self._open.wait()

    def shut(self):
        self._open.clear()

    def open(self):
        self._open.set()
        self.lines += self._held.splitlines()
        self._held = b""


class World:
    """A feed over a scripted registry, with readers."""

    def __init__(self, instances=()):
        self.clock = ManualClock()
        self.upstream = Upstream(instances, self.clock)
        self.feed = Feed("digits", self.upstream, clock=self.clock, turns=Turns(self.clock))
        self.tally = Tally()
        self.tasks = []

    async def read(self, question, index=None):
        pipe, started = Pipe(), asyncio.Event()

        async def follow():
            async with self.feed.view(question) as view:
                place = None if index is None else view.journal.place_of(index)
                started.set()
                await Reader(view, pipe, place, clock=self.clock, patience=Patience(), tally=self.tally).run()

        self.tasks.append(asyncio.create_task(follow()))
        await started.wait()
        return pipe

    async def set(self, instances):
        self.upstream.set(instances)
        await self.clock.settle()

    async def __aenter__(self):
        await self.feed.ready.wait()
        return self

    async def __aexit__(self, *exception):
        await self.feed.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def whole(query=None, **options):
    return Question(query=query or Query("digits", passing_only=False), **options)


def held(pipe, replica=None):
    replica = replica or Replica("digits")
    for text in pipe.lines:
        replica.apply(decode_line(text))
    return replica


def ids(pipe):
    return [each.id for each in held(pipe).instances]


def events(pipe):
    return [type(decode_line(text)) for text in pipe.lines]


def expected(instances, question):
    found = sorted((each for each in instances if question.query.wants(each)), key=lambda each: each.id)
    if question.limit:
        subset = Subset(question.client, question.limit)
        for _ in subset.scan([each.id for each in found]):
            pass
        found = [each for each in found if each.id in subset.members]
    # What the wire holds of an instance.
    return tuple(to_instance(to_row(each), "digits") for each in found)


instances = st.builds(
    lambda number, zone, health, weight: instance(
        number, zone=zone, health=health, weight=weight, meta={"zone": zone} if zone else {}
    ),
    st.integers(0, 30),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from([Health.PASSING, Health.CRITICAL]),
    st.integers(1, 2),
)
snapshots = st.lists(instances, max_size=25, unique_by=lambda each: each.id)
questions = st.builds(
    whole,
    st.builds(Query, st.just("digits"), zone=st.sampled_from(["", "a"]), passing_only=st.booleans()),
) | st.builds(
    lambda limit, passing: whole(Query("digits", passing_only=passing), limit=limit, client="me"),
    st.integers(1, 4),
    st.booleans(),
)
moves = st.one_of(
    st.tuples(st.just("set"), snapshots),
    st.tuples(st.just("join"), questions),
    st.tuples(st.just("shut"), st.integers(0, 9)),
    st.tuples(st.just("open"), st.integers(0, 9)),
    st.tuples(st.just("beat"), st.none()),
    st.tuples(st.just("return"), st.integers(0, 9)),
)


@settings(max_examples=150, deadline=None)
@given(snapshots, st.lists(moves, max_size=25))
def test_every_reader_ends_with_the_list(first, script):
    async def play():
        async with World(first) as world:
            now, readers = first, []
            for move, what in script:
                if move == "set":
                    now = what
                    await world.set(now)
                elif move == "join":
                    readers.append((what, await world.read(what), Replica("digits")))
                elif move == "beat":
                    await world.feed.tick(world.clock.monotonic() + 15)
                elif readers:
                    question, pipe, replica = readers[what % len(readers)]
                    if move == "return":  # a new connection, from the index this one had come to
                        pipe.open()
                        await world.clock.settle()
                        held(pipe, replica)
                        index = replica.index or None
                        readers[what % len(readers)] = (question, await world.read(question, index), replica)
                    else:
                        getattr(pipe, move)()
                await world.clock.settle()
            for _, pipe, _ in readers:
                pipe.open()
            await world.clock.settle()
            for question, pipe, replica in readers:
                assert held(pipe, replica).instances == expected(now, question)

    asyncio.run(play())


async def test_a_reader_gets_a_snapshot_and_then_changes_only():
    async with World([instance(1), instance(2)]) as world:
        pipe = await world.read(whole())
        await world.set([instance(1), instance(3)])
        assert events(pipe) == [Part, Change]
        assert ids(pipe) == ["digits-1", "digits-3"]


async def test_readers_of_one_question_are_told_with_the_same_bytes():
    async with World([instance(1)]) as world:
        shared = []
        pipes = [await world.read(whole()) for _ in range(3)]
        for pipe in pipes:
            pipe.write = shared.append
        await world.set([instance(1), instance(2)])
        assert len(shared) == 3
        assert len({id(each) for each in shared}) == 1


async def test_a_slow_reader_holds_one_piece_and_begins_anew():
    async with World([instance(number) for number in range(50)]) as world:
        pipe = await world.read(whole())
        pipe.shut()
        for version in range(2000):
            changed = [instance(number, version=f"v{version}") for number in range(50)]
            await world.set(changed[: 25 + version % 25])
        assert pipe.most < 100_000
        pipe.open()
        await world.clock.settle()
        assert [each.version for each in held(pipe).instances] == ["v1999"] * 49
        assert Resync in events(pipe)
        assert world.tally.resyncs == 1


async def test_a_reader_not_far_behind_is_told_what_it_missed():
    async with World([instance(number) for number in range(200)]) as world:
        pipe = await world.read(whole())
        before = len(pipe.lines)
        pipe.shut()
        await world.set([instance(number) for number in range(199)])
        for version in range(3):
            await world.set([instance(number, version=f"v{version}") for number in range(150)])
        pipe.open()
        await world.clock.settle()
        assert {type(decode_line(text)) for text in pipe.lines[before:]} == {Change}
        assert len(ids(pipe)) == 150


async def test_a_change_of_most_of_a_long_list_is_a_snapshot_and_nobodys_fault():
    async with World([instance(number) for number in range(1200)]) as world:
        pipe = await world.read(whole())
        await world.set([instance(number, version="2") for number in range(1200)])
        assert events(pipe) == [Part] * 6
        assert {each.version for each in held(pipe).instances} == {"2"}
        assert world.tally.resyncs == 0


async def test_rows_are_sent_in_parts_by_number_and_by_size():
    heavy = {f"key{number}": "x" * 500 for number in range(20)}
    async with World([instance(number, meta=heavy) for number in range(40)]) as world:
        pipe = await world.read(whole())
        assert len(pipe.lines) > 4
        assert max(map(len, pipe.lines)) < 80_000
        assert len(ids(pipe)) == 40


async def test_a_known_index_is_told_changes_only_and_others_a_snapshot():
    async with World([instance(1)]) as world:
        first = await world.read(whole())
        index = held(first).index
        await world.set([instance(1), instance(2)])
        assert events(await world.read(whole(), index)) == [Change]
        assert events(await world.read(whole(), index + 1)) == []
        # The snapshot of those who came before, and the journal from there.
        assert events(await world.read(whole(), index + 2)) == [Part, Change]
        assert events(await world.read(whole(), 1)) == [Part, Change]


async def test_a_change_elsewhere_leaves_a_filtered_list_and_its_index_alone():
    async with World([instance(1, zone="a")]) as world:
        pipe = await world.read(whole(Query("digits", zone="a")))
        await world.set([instance(1, zone="a"), instance(2, zone="b")])
        assert events(pipe) == [Part]


async def test_an_instance_that_no_longer_matches_is_taken_from_the_list():
    async with World([instance(1), instance(2)]) as world:
        pipe = await world.read(whole(Query("digits")))
        await world.set([instance(1), instance(2, health=Health.CRITICAL)])
        assert ids(pipe) == ["digits-1"]


async def test_a_subset_that_lost_many_at_once_is_filled_up_again():
    question = whole(limit=2, client="me")
    many = [instance(number) for number in range(100)]
    async with World(many) as world:
        pipe = await world.read(question)
        chosen = set()
        for _ in range(30):
            chosen |= set(ids(pipe))
            await world.set([each for each in many if each.id not in chosen])
        left = [each for each in many if each.id not in chosen - set(ids(pipe))]
        assert held(pipe).instances == expected(left, question)
        assert len(chosen) >= 60


async def test_heartbeats_do_not_pile_up_before_one_that_takes_nothing():
    async with World([instance(1)]) as world:
        pipe = await world.read(whole())
        pipe.shut()
        for beat in range(1, 11):
            await world.feed.tick(world.clock.monotonic() + 15 * beat)
            await world.clock.settle()
        assert 0 < pipe.most < 150
        pipe.open()


async def test_the_index_rises_whatever_the_registry_says():
    async with World([instance(1)]) as world:
        pipe = await world.read(whole())
        for number in (2, 3):
            world.upstream._index = 0  # a registry that lost its memory
            await world.set([instance(number)])
        world.upstream._index = 2**52
        await world.set([instance(4)])
        indexes = [decode_line(text).index for text in pipe.lines]
        assert indexes == sorted(set(indexes))
        assert indexes[-1] == 2**52 + 1


async def test_a_later_process_never_gives_an_index_of_an_earlier_one():
    async with World([instance(1)]) as earlier, World([instance(2)]) as later:
        given_out = held(await earlier.read(whole())).index
        await later.feed.close()
        await later.clock.advance(1)
        later.feed = Feed("digits", later.upstream, clock=later.clock, turns=Turns(later.clock))
        await later.feed.ready.wait()
        pipe = await later.read(whole(), given_out)
        assert events(pipe) == [Part]
        assert held(pipe).index > given_out


async def test_the_list_is_kept_with_its_age_while_the_registry_is_away():
    async with World([instance(1)]) as world:
        pipe = await world.read(whole())
        await world.feed.tick(world.clock.monotonic())
        assert events(pipe) == [Part]
        world.upstream.fail()
        await world.clock.advance(7)
        await world.feed.tick(world.clock.monotonic())
        assert held(pipe).stale_for == 7.0
        assert events(await world.read(whole())) == [Part, type(decode_line(pipe.lines[-1]))]
        world.upstream.heal()
        await world.feed.tick(world.clock.monotonic())
        assert held(pipe).stale_for == 0.0
        assert ids(pipe) == ["digits-1"]


async def test_one_that_was_behind_when_the_registry_went_away_is_told_later():
    async with World([instance(1)]) as world:
        pipe = await world.read(whole())
        pipe.shut()
        pipe.write(b'{"event":"resync"}\n')
        await world.feed.tick(world.clock.monotonic() + 15)
        world.upstream.fail()
        await world.clock.advance(5)
        await world.feed.tick(world.clock.monotonic())
        pipe.open()
        await world.clock.settle()
        assert held(pipe).stale_for == 5.0


async def test_views_nobody_uses_are_dropped_and_those_in_use_are_kept():
    async with World([instance(1)]) as world:
        await world.read(whole(limit=1, client="kept"))
        async with world.feed.view(whole(limit=1, client="gone")):
            pass
        async with world.feed.view(whole(Query("digits", zone="gone"))):
            pass
        assert len(world.feed._views()) == 4
        await world.clock.advance(VIEW_IDLE + 1)
        await world.feed.tick(world.clock.monotonic())
        assert len(world.feed._views()) == 2


async def test_different_filters_are_bounded():
    async with World([instance(1)]) as world:
        for number in range(MOST_VIEWS + 5):
            async with world.feed.view(whole(Query("digits", zone=f"z{number}"))):
                pass
        assert len(world.feed._views()) == MOST_VIEWS
        for number in range(MOST_VIEWS):
            await world.read(whole(Query("digits", zone=f"z{number}")))
        with pytest.raises(Refused) as caught:
            await world.feed.view(whole(Query("digits", zone="other"))).__aenter__()
        assert (caught.value.status, caught.value.reason) == (503, "full")


async def test_subsets_nobody_uses_are_bounded(monkeypatch):
    monkeypatch.setattr("registry.lookup.feed.MOST_SUBSETS", 3)
    async with World([instance(1)]) as world:
        await world.read(whole(limit=1, client="kept"))
        for number in range(10):
            async with world.feed.view(whole(limit=1, client=f"c{number}")):
                pass
        assert len(world.feed._views()) == 1 + 3
        await world.set([instance(2)])
        kept = await world.read(whole(limit=1, client="kept"))
        assert ids(kept) == ["digits-2"]


async def test_a_feed_that_was_closed_gives_no_list():
    async with World([instance(1)]) as world:
        await world.feed.close()
        with pytest.raises(Refused) as caught:
            await world.feed.view(whole()).__aenter__()
        assert (caught.value.status, caught.value.reason) == (503, "unavailable")


async def test_a_list_is_encoded_once_for_all_who_join(monkeypatch):
    count = []
    encode = msgspec.json.encode
    monkeypatch.setattr(
        "registry.lookup.view.msgspec.json.encode", lambda value: count.append(isinstance(value, list)) or encode(value)
    )
    async with World([instance(number) for number in range(50)]) as world:
        for _ in range(20):
            await world.read(whole())
        await world.clock.settle()
        assert sum(count) == 1


async def test_ten_thousand_changes_leave_nothing():
    async with World([instance(number) for number in range(10)]) as world:
        pipes = [await world.read(whole()), await world.read(whole(limit=3, client="me"))]
        sent = 0

        async def changes(count):
            nonlocal sent
            for number in range(count):
                await world.set([instance(each, version=f"v{number}") for each in range(number % 2, 10)])
                sent += len(pipes[0].lines)
                for pipe in pipes:
                    pipe.lines.clear()
            gc.collect()
            return sys.getallocatedblocks()

        before = await changes(500)
        assert await changes(10_000) - before < 2000
        assert sent > 10_000
