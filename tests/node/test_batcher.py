"""The flush rule as a function, then the runner around it with a fake model and a clock that stands still."""

import asyncio
import itertools

import numpy as np
import pytest

from node.batcher import Assembly, Batcher, Waiting, plan, run_isolated
from node.compute import Compute
from node.errors import ClientGone, DeadlineExceeded, Draining, InternalError
from node.latency import LatencyModel
from node.testing import ScriptedRuntime
from registry.testing import ManualClock

SHAPE = (8, 8, 1)
FAR = 1e9


def picture(level=0):
    return np.full((1, *SHAPE), level, np.uint8)


def submit(batcher, level=0, deadline=FAR, gone=lambda: False):
    return batcher.submit({"pixels": picture(level)}, deadline=deadline, gone=gone)


def best(outcome):
    return int(np.argmax(outcome.outputs["scores"][0]))


def blank(count):
    return {"pixels": np.zeros((count, *SHAPE), np.uint8)}


def taught(per_item, fixed=0.0):
    model = LatencyModel()
    for size in (1, 2, 4, 8):
        for _ in range(3):
            model.observe(size, per_item * size + fixed)
    return model


numbers = itertools.count()


async def waiting(deadline, gone=False, count=1):
    future = asyncio.get_running_loop().create_future()
    inputs = {"pixels": picture()}
    return Waiting(deadline, next(numbers), inputs, count, (SHAPE,), lambda: gone, 0.0, future)


@pytest.fixture
def runtime():
    fake = ScriptedRuntime()
    yield fake
    fake.gate.set()


@pytest.fixture
async def batcher(runtime):
    clock = ManualClock()
    compute = Compute(clock)
    yield Batcher(runtime, compute, clock=clock, max_batch=4)
    runtime.gate.set()
    await compute.close()


async def running(runtime, batches=1):
    """Wait until the runner has taken that many batches."""
    async with asyncio.timeout(10):
        while len(runtime.batches) < batches:
            await asyncio.sleep(0.001)


class Timed(ScriptedRuntime):
    """Takes the clock's time: so much for each row, and so much for each batch."""

    def __init__(self, clock, per_row, fixed):
        super().__init__()
        self.clock, self.per_row, self.fixed = clock, per_row, fixed

    def run(self, inputs):
        self.clock._now += self.per_row * len(inputs["pixels"]) + self.fixed
        return super().run(inputs)


class TestPlan:
    async def test_takes_everything_up_to_the_maximum(self):
        queue = [await waiting(FAR) for _ in range(5)]
        chosen = plan(queue, 0, LatencyModel(), max_batch=4, share=1)
        assert chosen.run == queue[:4]

    async def test_the_late_and_the_gone_are_dropped_without_taking_a_place(self):
        late, gone, fine = await waiting(1.05), await waiting(50, gone=True), await waiting(60)
        chosen = plan([late, gone, fine], 1.0, taught(0.1), max_batch=1, share=1)
        assert chosen.late == [late]
        assert chosen.gone == [gone]
        assert chosen.run == [fine]

    async def test_a_cancelled_future_counts_as_gone(self):
        item = await waiting(FAR)
        item.future.cancel()
        assert plan([item], 0, LatencyModel(), max_batch=4, share=1).gone == [item]

    async def test_a_batch_lasts_no_longer_than_its_share(self):
        queue = [await waiting(FAR) for _ in range(8)]
        assert len(plan(queue, 0, taught(0.1), max_batch=8, share=0.35).run) == 3

    async def test_a_batch_does_not_make_its_most_urgent_image_late(self):
        queue = [await waiting(0.25), *[await waiting(FAR) for _ in range(7)]]
        assert len(plan(queue, 0, taught(0.1), max_batch=8, share=9).run) == 2

    async def test_the_share_never_forbids_a_single_image(self):
        assert len(plan([await waiting(FAR)], 0, taught(5.0), max_batch=8, share=0.1).run) == 1

    async def test_sizes_count_rows(self):
        queue = [await waiting(FAR, count=3), await waiting(FAR, count=2), await waiting(FAR, count=1)]
        assert plan(queue, 0, LatencyModel(), max_batch=4, share=1).run == [queue[0], queue[2]]

    async def test_an_item_larger_than_a_batch_runs_alone(self):
        queue = [await waiting(FAR, count=9), await waiting(FAR)]
        assert plan(queue, 0, LatencyModel(), max_batch=4, share=1).run == [queue[0]]

    async def test_only_equal_shapes_share_a_batch(self):
        queue = [await waiting(FAR) for _ in range(3)]
        queue[1].shapes = ((9, 9, 1),)
        assert plan(queue, 0, LatencyModel(), max_batch=4, share=1).run == [queue[0], queue[2]]


async def items(*levels):
    made = [await waiting(FAR) for _ in levels]
    for item, level in zip(made, levels, strict=True):
        item.inputs = {"pixels": picture(level)}
    return made


class TestRunIsolated:
    async def test_one_poison_image_fails_alone(self):
        runtime = ScriptedRuntime(poison=200)
        assembly = Assembly(runtime, 8)
        batch = await items(0, 30, 200, 60, 90, 120, 150)
        answers = run_isolated(lambda some: runtime.run(assembly.batch(some)), batch)
        assert [isinstance(answer, Exception) for answer in answers] == [False, False, True] + [False] * 4
        assert [int(np.argmax(answer["scores"])) for answer in answers[3:]] == [2, 3, 4, 5]

    async def test_a_model_that_always_fails_fails_each(self):
        def broken(_):
            raise ValueError("no")

        assert [str(error) for error in run_isolated(broken, await items(*range(4)))] == ["no"] * 4

    async def test_too_few_answers_are_a_failure(self):
        answers = run_isolated(lambda _: {"scores": np.zeros((0, 2), np.float32)}, await items(0))
        assert isinstance(answers[0], InternalError)

    async def test_each_item_gets_its_own_rows(self):
        batch = [await waiting(FAR, count=2), await waiting(FAR), await waiting(FAR, count=3)]
        answers = run_isolated(lambda _: {"scores": np.arange(6)}, batch)
        assert [answer["scores"].tolist() for answer in answers] == [[0, 1], [2], [3, 4, 5]]


class TestAssembly:
    async def test_a_lone_item_is_not_copied(self):
        (item,) = await items(7)
        assert Assembly(ScriptedRuntime(), 4).batch([item])["pixels"] is item.inputs["pixels"]

    async def test_items_stand_one_after_another_in_the_models_own_type(self):
        batch = await items(1, 2, 3)
        batch[1].inputs = {"pixels": np.full((2, *SHAPE), 9.0)}
        batch[1].rows = 2
        joined = Assembly(ScriptedRuntime(), 4).batch(batch)["pixels"]
        assert joined.dtype == np.uint8
        assert joined[:, 0, 0, 0].tolist() == [1, 9, 9, 3]


class TestBatcher:
    async def test_a_lone_image_runs_at_once_with_no_timer(self, batcher, runtime):
        outcome = await submit(batcher, 30)
        assert best(outcome) == 1
        assert runtime.batches == [1]
        assert outcome.queued == 0

    async def test_images_of_one_turn_share_a_batch(self, batcher, runtime):
        await asyncio.gather(*(submit(batcher) for _ in range(3)))
        assert runtime.batches == [3]

    async def test_batches_form_while_the_runner_is_busy(self, batcher, runtime):
        runtime.gate.clear()
        first = submit(batcher)
        await running(runtime)
        others = [submit(batcher) for _ in range(6)]
        assert batcher.depth == 6
        runtime.gate.set()
        await asyncio.gather(first, *others)
        assert runtime.batches == [1, 4, 2]

    async def test_the_earliest_deadline_goes_first(self, batcher, runtime):
        runtime.gate.clear()
        first = submit(batcher)
        await running(runtime)
        order = []
        futures = []
        for deadline in (FAR, FAR - 1, FAR - 2, FAR - 3, FAR - 4):
            future = submit(batcher, deadline=deadline)
            future.add_done_callback(lambda _, deadline=deadline: order.append(FAR - deadline))
            futures.append(future)
        runtime.gate.set()
        await asyncio.gather(first, *futures)
        assert order == [4, 3, 2, 1, 0]

    async def test_late_gone_and_cancelled_images_never_run(self, batcher, runtime):
        runtime.gate.clear()
        first = submit(batcher)
        await running(runtime)
        late = submit(batcher, deadline=1000.5)
        gone = submit(batcher, gone=lambda: True)
        cancelled = submit(batcher)
        cancelled.cancel()
        await batcher._clock.advance(1)
        runtime.gate.set()
        await first
        with pytest.raises(DeadlineExceeded):
            await late
        with pytest.raises(ClientGone):
            await gone
        assert runtime.batches == [1]

    async def test_a_poison_image_fails_alone_and_the_log_says_why(self, runtime, caplog):
        runtime.poison = 200
        clock = ManualClock()
        compute = Compute(clock)
        batcher = Batcher(runtime, compute, clock=clock)
        futures = [submit(batcher, level) for level in (0, 200, 30)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert isinstance(results[1], InternalError)
        assert [best(result) for result in (results[0], results[2])] == [0, 1]
        assert "poison in the batch" in caplog.text
        await compute.close()

    async def test_warming_teaches_it_how_long_a_batch_takes(self):
        clock = ManualClock()

        compute = Compute(clock)
        batcher = Batcher(Timed(clock, 0.01, 0.02), compute, clock=clock, max_batch=8)
        outputs = await batcher.warm(blank)
        assert outputs["scores"].shape == (8, 10)
        assert batcher.latency.predict(8) == pytest.approx(0.10)
        await compute.close()

    async def test_warming_stops_at_a_size_that_would_not_be_used(self):
        clock = ManualClock()

        compute, timed = Compute(clock), Timed(clock, 0.1, 0.0)
        batcher = Batcher(timed, compute, clock=clock, max_batch=32, share=0.25)
        await batcher.warm(blank, rounds=3)
        assert timed.batches == [1, 1, 1, 2, 2, 2, 4, 4, 4]
        await compute.close()

    async def test_the_predicted_wait_counts_what_runs_and_what_queues(self, runtime):
        clock = ManualClock()
        compute = Compute(clock)
        batcher = Batcher(runtime, compute, clock=clock, max_batch=2, share=9)
        batcher.latency = taught(0.1)
        assert batcher.predicted_wait() == 0
        runtime.gate.clear()
        futures = [submit(batcher) for _ in range(5)]
        await running(runtime)
        assert batcher.predicted_wait() == pytest.approx(0.2 + 0.2)  # two running, two ahead; the last one has company
        await clock.advance(0.15)
        assert batcher.predicted_wait() == pytest.approx(0.05 + 0.2)
        await clock.advance(0.15)
        assert batcher.predicted_wait() == pytest.approx(0.1 + 0.2)  # overdue by 0.1: expect as much again
        runtime.gate.set()
        await asyncio.gather(*futures)
        await compute.close()

    async def test_closing_answers_what_waits_and_lets_the_present_batch_end(self, batcher, runtime):
        runtime.gate.clear()
        first = submit(batcher)
        await running(runtime)
        second = submit(batcher)
        batcher.close()
        with pytest.raises(Draining):
            await second
        runtime.gate.set()
        assert best(await first) == 0
        with pytest.raises(Draining):
            await submit(batcher)

    async def test_its_snapshot_tells_queue_and_line(self, batcher):
        assert batcher.snapshot() == {
            "queue": 0,
            "wait_ms": 0,
            "latency": {"per_item_ms": 0, "per_batch_ms": 0, "runs": 0},
        }
