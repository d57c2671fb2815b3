"""The flush rule as a function, then the runner around it with a fake model and a clock that stands still."""

import asyncio
import itertools

import numpy as np
import pytest

from node.batcher import Batcher, Waiting, plan, run_isolated
from node.errors import ClientGone, DeadlineExceeded, Draining, InternalError
from node.latency import LatencyModel
from node.testing import ScriptedRuntime
from registry.testing import ManualClock

SHAPE = (8, 8, 1)
FAR = 1e9


def picture(level=0):
    return np.full(SHAPE, level, np.uint8)


def taught(per_item, fixed=0.0):
    model = LatencyModel()
    for size in (1, 2, 4, 8):
        for _ in range(3):
            model.observe(size, per_item * size + fixed)
    return model


numbers = itertools.count()


async def waiting(deadline, gone=False):
    future = asyncio.get_running_loop().create_future()
    return Waiting(deadline, next(numbers), picture(), lambda: gone, 0.0, future)


@pytest.fixture
def runtime():
    fake = ScriptedRuntime()
    yield fake
    fake.gate.set()


@pytest.fixture
async def batcher(runtime):
    made = Batcher(runtime.run, SHAPE, clock=ManualClock(), max_batch=4)
    yield made
    runtime.gate.set()
    await made.close()


async def running(runtime, batches=1):
    """Wait until the runner has taken that many batches."""
    async with asyncio.timeout(10):
        while len(runtime.batches) < batches:
            await asyncio.sleep(0.001)


class TestPlan:
    async def test_takes_everything_up_to_the_maximum(self):
        queue = [await waiting(FAR) for _ in range(5)]
        chosen = plan(queue, 0, LatencyModel(), max_batch=4, share=1)
        assert chosen.run == queue[:4]
        assert chosen.taken == 4

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


class TestRunIsolated:
    def test_one_poison_image_fails_alone(self):
        runtime = ScriptedRuntime(poison=200)
        batch = np.stack([picture(level) for level in (0, 30, 200, 60, 90, 120, 150)])
        answers = run_isolated(runtime.run, batch)
        assert [isinstance(answer, Exception) for answer in answers] == [False, False, True] + [False] * 4
        assert [int(np.argmax(answer)) for answer in answers[3:]] == [2, 3, 4, 5]

    def test_a_model_that_always_fails_fails_each(self):
        def broken(_):
            raise ValueError("no")

        assert [str(error) for error in run_isolated(broken, np.zeros((4, *SHAPE), np.uint8))] == ["no"] * 4

    def test_too_few_answers_are_a_failure(self):
        answers = run_isolated(lambda batch: np.zeros((1, 2), np.float32)[: len(batch) - 1], np.zeros((1, *SHAPE)))
        assert isinstance(answers[0], InternalError)

    def test_not_a_number_fails_that_image_only(self):
        scores = np.array([[0.1, 0.9], [np.nan, 0.5], [0.2, np.inf]], np.float32)
        answers = run_isolated(lambda _: scores, np.zeros((3, *SHAPE), np.uint8))
        assert [isinstance(answer, InternalError) for answer in answers] == [False, True, True]


class TestBatcher:
    async def test_a_lone_image_runs_at_once_with_no_timer(self, batcher, runtime):
        outcome = await batcher.submit(picture(30), deadline=FAR, gone=lambda: False)
        assert int(np.argmax(outcome.scores)) == 1
        assert runtime.batches == [1]
        assert outcome.queued == 0

    async def test_images_of_one_turn_share_a_batch(self, batcher, runtime):
        await asyncio.gather(*(batcher.submit(picture(), deadline=FAR, gone=lambda: False) for _ in range(3)))
        assert runtime.batches == [3]

    async def test_batches_form_while_the_runner_is_busy(self, batcher, runtime):
        runtime.gate.clear()
        first = batcher.submit(picture(), deadline=FAR, gone=lambda: False)
        await running(runtime)
        others = [batcher.submit(picture(), deadline=FAR, gone=lambda: False) for _ in range(6)]
        assert batcher.depth == 6
        runtime.gate.set()
        await asyncio.gather(first, *others)
        assert runtime.batches == [1, 4, 2]

    async def test_the_earliest_deadline_goes_first(self, batcher, runtime):
        runtime.gate.clear()
        first = batcher.submit(picture(), deadline=FAR, gone=lambda: False)
        await running(runtime)
        order = []
        futures = []
        for deadline in (FAR, FAR - 1, FAR - 2, FAR - 3, FAR - 4):
            future = batcher.submit(picture(), deadline=deadline, gone=lambda: False)
            future.add_done_callback(lambda _, deadline=deadline: order.append(FAR - deadline))
            futures.append(future)
        runtime.gate.set()
        await asyncio.gather(first, *futures)
        assert order == [4, 3, 2, 1, 0]

    async def test_late_gone_and_cancelled_images_never_run(self, batcher, runtime):
        runtime.gate.clear()
        first = batcher.submit(picture(), deadline=FAR, gone=lambda: False)
        await running(runtime)
        late = batcher.submit(picture(), deadline=1000.5, gone=lambda: False)
        gone = batcher.submit(picture(), deadline=FAR, gone=lambda: True)
        cancelled = batcher.submit(picture(), deadline=FAR, gone=lambda: False)
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
        batcher = Batcher(runtime.run, SHAPE, clock=ManualClock())
        futures = [batcher.submit(picture(level), deadline=FAR, gone=lambda: False) for level in (0, 200, 30)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert isinstance(results[1], InternalError)
        assert [int(np.argmax(result.scores)) for result in (results[0], results[2])] == [0, 1]
        assert "poison in the batch" in caplog.text
        await batcher.close()

    async def test_warming_teaches_it_how_long_a_batch_takes(self, runtime):
        clock = ManualClock()

        def run(batch):
            clock._now += 0.01 * len(batch) + 0.02
            return runtime.run(batch)

        batcher = Batcher(run, SHAPE, clock=clock, max_batch=8)
        scores = await batcher.warm([1, 2, 4, 8])
        assert scores.shape == (8, 10)
        assert batcher.latency.predict(8) == pytest.approx(0.10)
        await batcher.close()

    async def test_warming_stops_at_a_size_that_would_not_be_used(self, runtime):
        clock = ManualClock()

        def run(batch):
            clock._now += 0.1 * len(batch)
            return runtime.run(batch)

        batcher = Batcher(run, SHAPE, clock=clock, max_batch=32, share=0.25)
        await batcher.warm([1, 2, 4, 8, 16, 32], rounds=3)
        assert runtime.batches == [1, 1, 1, 2, 2, 2, 4, 4, 4]
        await batcher.close()

    async def test_the_predicted_wait_counts_what_runs_and_what_queues(self, runtime):
        clock = ManualClock()
        batcher = Batcher(runtime.run, SHAPE, clock=clock, max_batch=2, share=9)
        batcher.latency = taught(0.1)
        assert batcher.predicted_wait() == 0
        runtime.gate.clear()
        futures = [batcher.submit(picture(), deadline=FAR, gone=lambda: False) for _ in range(5)]
        await running(runtime)
        assert batcher.predicted_wait() == pytest.approx(0.2 + 0.2)  # two running, two ahead; the last one has company
        await clock.advance(0.15)
        assert batcher.predicted_wait() == pytest.approx(0.05 + 0.2)
        await clock.advance(0.15)
        assert batcher.predicted_wait() == pytest.approx(0.1 + 0.2)  # overdue by 0.1: expect as much again
        runtime.gate.set()
        await asyncio.gather(*futures)
        await batcher.close()

    async def test_closing_answers_what_waits_and_lets_the_present_batch_end(self, batcher, runtime):
        runtime.gate.clear()
        first = batcher.submit(picture(), deadline=FAR, gone=lambda: False)
        await running(runtime)
        second = batcher.submit(picture(), deadline=FAR, gone=lambda: False)
        closing = asyncio.ensure_future(batcher.close())
        with pytest.raises(Draining):
            await second
        runtime.gate.set()
        await closing
        assert (await first).scores.shape == (10,)
        with pytest.raises(Draining):
            await batcher.submit(picture(), deadline=FAR, gone=lambda: False)

    async def test_its_snapshot_tells_queue_and_line(self, batcher):
        assert batcher.snapshot() == {
            "queue": 0,
            "running": 0,
            "wait_ms": 0,
            "latency": {"per_item_ms": 0, "per_batch_ms": 0, "runs": 0},
        }
