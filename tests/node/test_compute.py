"""Who runs next when several models want the one runner, and how long the others must expect to wait."""

import asyncio
import gc
import weakref
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.batcher import Batcher
from node.compute import Compute, FairShare
from node.latency import LatencyModel
from node.testing import ScriptedRuntime
from registry.testing import ManualClock

FAR = 1e9


def serve(share, costs, turns):
    """Seconds each has had after so many turns in which all of ``costs`` always have a batch waiting, turn by turn."""
    had, history = Counter(), []
    for _ in range(turns):
        chosen = share.choose(costs)
        share.charge(chosen, costs[chosen])
        had[chosen] += costs[chosen]
        history.append(dict(had))
    return history


class TestFairShare:
    def test_models_whose_batches_differ_tenfold_get_equal_time(self):
        had = serve(FairShare(), {"quick": 0.01, "slow": 0.1}, 1000)[-1]
        assert had["quick"] == pytest.approx(had["slow"], abs=0.1)
        assert had["slow"] > 5

    def test_a_lone_model_gets_everything(self):
        share = FairShare()
        share.charge(share.choose(["other"]), 5.0)
        assert [share.choose(["mine"]) for _ in range(3)] == ["mine"] * 3

    def test_who_was_idle_saves_nothing_up(self):
        share = FairShare()
        serve(share, {"busy": 1.0, "other": 1.0}, 2)
        serve(share, {"busy": 1.0}, 100)
        had = serve(share, {"busy": 1.0, "other": 1.0}, 10)[-1]
        assert had == {"busy": 5.0, "other": 5.0}

    def test_who_comes_new_is_not_behind_and_not_ahead(self):
        share = FairShare()
        serve(share, {"busy": 1.0}, 100)
        assert serve(share, {"busy": 1.0, "new": 1.0}, 10)[-1] == {"busy": 5.0, "new": 5.0}

    def test_of_equals_the_first_goes_first(self):
        assert FairShare().choose(["a", "b"]) == "a"

    @settings(max_examples=200)
    @given(
        before=st.lists(st.tuples(st.sets(st.sampled_from("abc"), min_size=1), st.floats(0.001, 1)), max_size=40),
        costs=st.fixed_dictionaries({name: st.floats(0.001, 1) for name in "abc"}),
    )
    def test_whatever_was_before_two_busy_models_are_never_further_apart_than_a_batch_of_each(self, before, costs):
        share, longest = FairShare(), dict(costs)
        for waiting, seconds in before:
            chosen = share.choose(sorted(waiting))
            share.charge(chosen, seconds)
            longest[chosen] = max(longest[chosen], seconds)
        for had in serve(share, costs, 60):
            for one in costs:
                for other in costs:
                    apart = had.get(one, 0.0) - had.get(other, 0.0)
                    assert apart <= longest[one] + longest[other] + 1e-9


class Watched(ScriptedRuntime):
    """Takes the clock's time, and writes down who ran."""

    def __init__(self, name, clock, seconds, log):
        super().__init__()
        self.called, self.clock, self.seconds, self.log = name, clock, seconds, log

    def run(self, inputs):
        self.log.append(self.called)
        self.clock._now += self.seconds
        return super().run(inputs)


def taught(seconds):
    model = LatencyModel()
    for size in (1, 2, 4):
        for _ in range(3):
            model.observe(size, seconds)
    return model


def submit(batcher):
    return batcher.submit({"pixels": np.zeros((1, 8, 8, 1), np.uint8)}, deadline=FAR, gone=lambda: False)


async def busy(runtime, batches=1):
    async with asyncio.timeout(10):
        while len(runtime.batches) < batches:
            await asyncio.sleep(0.001)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def compute(clock):
    made = Compute(clock)
    yield made
    await made.close()


@pytest.fixture
def make(compute, clock):
    """Make a batcher whose every batch holds one item and is known to take so long."""
    made, log = [], []

    def batcher(name, seconds):
        runtime = Watched(name, clock, seconds, log)
        made.append(runtime)
        batcher = Batcher(runtime, compute, clock=clock, max_batch=1, share=99)
        batcher.latency = taught(seconds)
        return batcher, runtime

    batcher.log = log
    yield batcher
    for runtime in made:
        runtime.gate.set()


class TestTurns:
    async def test_there_is_one_batch_at_a_time_whatever_the_number_of_models(self, compute, clock):
        inside, most = [], []

        class Counting(ScriptedRuntime):
            def run(self, inputs):
                inside.append(self)
                most.append(len(inside))
                outputs = super().run(inputs)
                inside.remove(self)
                return outputs

        batchers = [Batcher(Counting(), compute, clock=clock, max_batch=2) for _ in range(3)]
        await asyncio.gather(*(submit(batcher) for _ in range(20) for batcher in batchers))
        assert len(most) == 30
        assert max(most) == 1

    async def test_a_busy_model_does_not_starve_a_quick_one(self, make):
        slow, slow_runtime = make("slow", 1.0)
        quick, _ = make("quick", 0.125)
        slow_runtime.gate.clear()
        futures = [submit(slow)]
        await busy(slow_runtime)
        futures += [submit(slow) for _ in range(5)] + [submit(quick) for _ in range(30)]
        slow_runtime.gate.set()
        await asyncio.gather(*futures)
        # After each slow batch the quick model catches up with the second it took.
        assert make.log[:27] == ["slow", *["quick"] * 8] * 3

    async def test_what_none_can_use_does_not_keep_the_others_from_running(self, make):
        late, late_runtime = make("late", 1.0)
        fine, _ = make("fine", 1.0)
        gone = late.submit({"pixels": np.zeros((1, 8, 8, 1), np.uint8)}, deadline=FAR, gone=lambda: True)
        await submit(fine)
        assert gone.done()
        assert late_runtime.batches == []
        gone.exception()

    async def test_other_work_runs_between_two_batches(self, make, compute):
        batcher, runtime = make("batch", 0.0)
        runtime.gate.clear()
        futures = [submit(batcher) for _ in range(3)]
        await busy(runtime)
        other = asyncio.ensure_future(compute.call(lambda: make.log.append("other") or "done"))
        await asyncio.sleep(0)
        runtime.gate.set()
        await asyncio.gather(*futures)
        assert await other == "done"
        assert make.log == ["batch", "other", "batch", "batch"]

    async def test_what_other_work_raises_passes_through(self, compute):
        with pytest.raises(ZeroDivisionError):
            await compute.call(lambda: 1 / 0)

    async def test_a_model_that_leaves_during_its_batch_is_not_kept_alive(self, compute, clock):
        runtime = ScriptedRuntime()
        batcher = Batcher(runtime, compute, clock=clock)
        runtime.gate.clear()
        future = submit(batcher)
        await busy(runtime)
        batcher.close()
        runtime.gate.set()
        await future
        ghost = weakref.ref(batcher)
        del batcher, future
        await compute.call(lambda: None)
        gc.collect()
        assert ghost() is None


class TestWait:
    async def test_nothing_to_do_is_no_wait(self, make):
        batcher, _ = make("a", 1.0)
        assert batcher.predicted_wait() == 0

    async def test_the_batch_of_another_model_is_waited_for(self, make, clock):
        mine, _ = make("mine", 0.1)
        other, runtime = make("other", 1.0)
        runtime.seconds = 0.0
        runtime.gate.clear()
        future = submit(other)
        await busy(runtime)
        assert mine.predicted_wait() == pytest.approx(1.0)
        await clock.advance(0.75)
        assert mine.predicted_wait() == pytest.approx(0.25)
        runtime.gate.set()
        await future

    async def test_a_run_that_hangs_looks_longer_and_longer(self, make, clock):
        mine, _ = make("mine", 0.1)
        other, runtime = make("other", 1.0)
        runtime.seconds = 0.0
        runtime.gate.clear()
        future = submit(other)
        await busy(runtime)
        waits = []
        for _ in range(4):
            await clock.advance(10)
            waits.append(mine.predicted_wait())
        assert waits == [pytest.approx(seconds) for seconds in (9, 19, 29, 39)]
        runtime.gate.set()
        await future

    async def test_anothers_queue_delays_by_no_more_than_ones_own_share_and_a_turn(self, make, compute):
        mine, my_runtime = make("mine", 0.5)
        other, other_runtime = make("other", 0.2)
        my_runtime.seconds = other_runtime.seconds = 0.0
        other_runtime.gate.clear()
        futures = [submit(other)]
        await busy(other_runtime)
        assert mine.predicted_wait() == pytest.approx(0.2)
        futures.append(submit(other))
        assert mine.predicted_wait() == pytest.approx(0.2 + 0.2)  # what runs, and all it has
        futures += [submit(other) for _ in range(100)]
        assert other.backlog == pytest.approx(101 * 0.2)
        assert mine.predicted_wait() == pytest.approx(0.2 + 0.5)  # not the twenty seconds: it is my turn before
        futures += [submit(mine) for _ in range(4)]
        assert mine.predicted_wait() == pytest.approx(0.2 + 4 * 0.5 + 5 * 0.5)
        other_runtime.gate.set()
        await asyncio.gather(*futures)


class TestClosing:
    async def test_it_waits_for_the_present_batch_and_starts_nothing_more(self, clock):
        compute, runtime = Compute(clock), ScriptedRuntime()
        batcher = Batcher(runtime, compute, clock=clock, max_batch=1)
        runtime.gate.clear()
        first, second = submit(batcher), submit(batcher)
        await busy(runtime)
        closing = asyncio.ensure_future(compute.close())
        await asyncio.sleep(0.02)
        assert not closing.done()
        runtime.gate.set()
        await closing
        await first
        await asyncio.sleep(0.02)
        assert runtime.batches == [1]
        assert not second.done()
        second.cancel()

    async def test_the_share_of_busy_time_is_that_of_the_runner(self, compute, clock):
        runtime = ScriptedRuntime()
        batcher = Batcher(runtime, compute, clock=clock)
        assert compute.busy.at(clock.monotonic()) == 0
        runtime.gate.clear()
        future = submit(batcher)
        await busy(runtime)
        await clock.advance(60)
        assert compute.busy.at(clock.monotonic()) == pytest.approx(1, abs=0.01)
        runtime.gate.set()
        await future
        await clock.advance(60)
        assert compute.busy.at(clock.monotonic()) == pytest.approx(0, abs=0.01)
