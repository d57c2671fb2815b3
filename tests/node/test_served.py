"""A loaded version: pictures or tensors in, answers out, with whatever a model may be like."""

import asyncio
import math

import numpy as np
import pytest

from node.admission import Admission
from node.compute import Compute
from node.decoding import Decoders
from node.errors import BadImage, BadRequest, ClientGone, EmptyBody, InternalError, ModelError, Overloaded
from node.metrics import Metrics
from node.models import ModelSource
from node.runtimes.base import Signature
from node.served import Served, Shared
from node.tensors import TensorSpec
from node.testing import CLASSES, PREPROCESSING, ScriptedRuntime
from node.ticket import Ticket
from registry.testing import ManualClock

FLOATS = TensorSpec(name="x", datatype="FP32", shape=(None, 3))
SUM = TensorSpec(name="sum", datatype="FP32", shape=(None,))


class Tensors:
    """Gives each item's sum over its last dimension; takes ``inputs``, fails with ``error``."""

    name = "tensors"

    def __init__(self, inputs=(FLOATS,), outputs=(SUM,), error=None):
        self.signature = Signature(inputs=inputs, outputs=outputs)
        self.error = error
        self.batches = []
        self.closes = 0

    def run(self, inputs):
        self.batches.append({name: array.shape for name, array in inputs.items()})
        if self.error is not None:
            raise self.error
        return {"sum": inputs["x"].sum(axis=-1)}

    def close(self):
        self.closes += 1

    def snapshot(self):
        return {"runtime": self.name}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def shared(clock):
    compute, decoders = Compute(clock), Decoders(clock, threads=2)
    yield Shared(compute, decoders, Admission(limit=2.0), Metrics(), clock, 4)
    await compute.close()
    decoders.close()


@pytest.fixture
def make(shared, tmp_path):
    """Make a version of a model ``digits`` around a runtime."""

    def served(runtime, **about):
        source = ModelSource(path=tmp_path / "model.keras", kind="keras", name="digits", version="3", **about)
        return Served(source, runtime, shared)

    return served


@pytest.fixture
async def digits(make):
    served = make(ScriptedRuntime(), preprocessing=PREPROCESSING)
    await served.warm()
    return served


def ticket(clock, seconds=30.0):
    return Ticket(clock.monotonic() + seconds, lambda: False)


def rows(count):
    return {"x": np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3)}


class TestPictures:
    async def test_a_picture_becomes_scores(self, digits, clock, png):
        scores = await digits.classify(png(140), ticket(clock))
        assert scores.shape == (CLASSES,)
        assert [(each.label, each.score) for each in digits.top(scores, 2)] == [("5", 0.91), ("0", 0.01)]

    async def test_equal_scores_stand_in_the_models_own_order(self, digits):
        assert [each.index for each in digits.top(np.array([0.1, 0.9, 0.1, 0.9]), 3)] == [1, 3, 0]

    async def test_a_ticket_says_where_the_time_of_its_slowest_item_went(self, make, clock, png):
        class Slow(ScriptedRuntime):
            def run(self, inputs):
                clock._now += 0.25 * len(inputs["pixels"])
                return super().run(inputs)

        served = make(Slow(), preprocessing=PREPROCESSING)
        mine = ticket(clock)
        await served.classify(png(), mine)
        assert mine.timing == "queue;dur=0.00, decode;dur=0.00, infer;dur=250.00"
        await asyncio.gather(*(served.classify(png(), mine) for _ in range(3)))
        assert mine.timing == "queue;dur=0.00, decode;dur=0.00, infer;dur=750.00"

    @pytest.mark.parametrize(("data", "error"), [(b"", EmptyBody), (b"no picture", BadImage)])
    async def test_what_is_no_picture_is_refused_and_arrives_no_more(self, digits, clock, data, error):
        with pytest.raises(error):
            await digits.classify(data, ticket(clock))
        assert digits.batcher.arriving == 0

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    async def test_an_answer_that_is_no_number_is_the_nodes_fault(self, make, clock, png, bad):
        class Broken(ScriptedRuntime):
            def run(self, inputs):
                outputs = super().run(inputs)
                outputs["scores"][:, 3] = bad
                return outputs

        served = make(Broken(), preprocessing=PREPROCESSING)
        await served.warm()
        with pytest.raises(InternalError, match="not a number"):
            await served.classify(png(), ticket(clock))


class TestOtherModels:
    async def test_a_model_without_pictures_says_what_to_send_it(self, make, clock, png):
        served = make(Tensors(outputs=(TensorSpec(name="sum", datatype="FP32", shape=(2,)),)))
        assert served.preprocessing is None
        with pytest.raises(BadRequest, match=r"takes no pictures.*POST /v2/models/digits/infer"):
            await served.classify(png(), ticket(clock))

    async def test_a_model_without_scores_says_so_before_the_picture_is_decoded(self, make, clock):
        class Boxes(ScriptedRuntime):
            signature = Signature(
                inputs=ScriptedRuntime.signature.inputs,
                outputs=(TensorSpec(name="boxes", datatype="FP32", shape=(4, 4)),),
            )

        served = make(Boxes(), preprocessing=PREPROCESSING)
        with pytest.raises(BadRequest, match=r"gives no scores.*POST /v2/models/digits/infer"):
            await served.classify(b"never looked at", ticket(clock))

    async def test_it_is_warmed_with_ones_where_any_size_goes(self, make):
        runtime = Tensors()
        await make(runtime).warm()
        assert {each["x"] for each in runtime.batches} == {(1, 1, 3), (2, 1, 3), (4, 1, 3)}

    async def test_strings_are_warmed_with_empty_ones(self, make):
        seen = []

        class Strings(Tensors):
            def run(self, inputs):
                seen.extend(inputs["x"].ravel())
                return {"sum": np.zeros((len(inputs["x"]), 1), np.float32)}

        await make(Strings(inputs=(TensorSpec(name="x", datatype="BYTES", shape=(2,)),))).warm()
        assert set(seen) == {b""}

    async def test_one_that_cannot_stand_nothing_stays_cold_and_is_served_all_the_same(self, make, clock, caplog):
        runtime = Tensors(error=ValueError("an index is needed\nand more"))
        served = make(runtime)
        await served.warm()
        assert "digits version 3 fails on empty input and stays cold" in caplog.text
        runtime.error = None
        assert (await served.infer(rows(1), ticket(clock)))["sum"].tolist() == [[3.0, 12.0]]


class TestWarming:
    async def test_a_picture_model_that_fails_is_refused_in_one_line(self, make):
        served = make(ScriptedRuntime(poison=0), preprocessing=PREPROCESSING)
        with pytest.raises(ModelError, match=r"model\.keras fails on an empty image: poison in the batch"):
            await served.warm()

    async def test_the_last_word_of_a_failure_without_words_is_its_type(self, make):
        class Silent(ScriptedRuntime):
            def run(self, inputs):
                raise ZeroDivisionError

        with pytest.raises(ModelError, match="ZeroDivisionError"):
            await make(Silent(), preprocessing=PREPROCESSING).warm()

    async def test_labels_are_counted_against_the_scores(self, make):
        served = make(ScriptedRuntime(), preprocessing=PREPROCESSING, labels=("a", "b", "c"))
        with pytest.raises(ModelError, match="gives 10 scores, but there are 3 labels"):
            await served.warm()

    async def test_labels_are_those_of_the_model_or_numbers(self, make, digits):
        assert digits.labels == tuple("0123456789")
        named = make(ScriptedRuntime(), preprocessing=PREPROCESSING, labels=tuple("abcdefghij"))
        await named.warm()
        assert named.labels == tuple("abcdefghij")

    async def test_labels_for_a_model_without_scores_are_a_mistake(self, make):
        with pytest.raises(ModelError, match="has labels, but not one output that is a row of scores"):
            await make(Tensors(outputs=(SUM, SUM)), labels=("a", "b")).warm()

    async def test_decoding_is_warmed_too(self, shared, make):
        await make(ScriptedRuntime(), preprocessing=PREPROCESSING).warm()
        assert len(shared.decoders._pool._threads) > 0


async def test_a_model_that_exits_fails_its_request_and_the_next_is_answered(make, clock):
    runtime = Tensors()
    served = make(runtime)
    runtime.error = SystemExit(3)
    with pytest.raises(InternalError):
        await served.infer(rows(1), ticket(clock))
    runtime.error = None
    assert len((await served.infer(rows(1), ticket(clock)))["sum"]) == 1


class TestLargeRequests:
    async def test_pieces_are_no_larger_than_a_batch_and_come_back_in_order(self, make, clock):
        runtime = Tensors()
        served = make(runtime)
        given = rows(11)
        outputs = await served.infer(given, ticket(clock))
        assert np.array_equal(outputs["sum"], given["x"].sum(axis=-1))
        assert [each["x"][0] for each in runtime.batches] == [4, 4, 3]

    async def test_as_many_as_a_batch_holds_are_one_piece(self, make, clock):
        runtime = Tensors()
        await make(runtime).infer(rows(4), ticket(clock))
        assert len(runtime.batches) == 1

    async def test_one_piece_that_fails_fails_the_request_and_forgets_the_rest(self, make, clock):
        runtime = Tensors()
        served = make(runtime)
        runtime.error = RuntimeError("no")
        with pytest.raises(InternalError):
            await served.infer(rows(400), ticket(clock))
        assert served.tally.fail.count == 100
        runtime.error = None
        await served.infer(rows(1), ticket(clock))
        assert len(runtime.batches) < 50

    async def test_the_queue_its_own_pieces_make_does_not_refuse_a_request(self, make, clock, shared):
        served = make(Tensors())
        for _ in range(3):
            for size in (1, 2, 4):
                served.batcher.latency.observe(size, 0.2 * size)
        mine = ticket(clock)
        await served.infer(rows(40), mine)  # eight seconds of work, with a limit of two
        assert mine.admitted

    async def test_a_request_behind_too_long_a_queue_is_refused_once(self, make, clock, monkeypatch):
        served = make(Tensors())
        monkeypatch.setattr(served.batcher, "predicted_wait", lambda: 2.5)
        with pytest.raises(Overloaded):
            await served.infer(rows(1), ticket(clock))
        mine = ticket(clock)
        mine.admitted = True
        await served.infer(rows(1), mine)


class TestHolding:
    async def test_it_is_unused_when_the_last_user_has_let_go(self, digits):
        assert digits.unused.is_set()
        with digits.held():
            with digits.held():
                assert digits.users == 2
            assert not digits.unused.is_set()
        assert digits.unused.is_set()

    async def test_a_user_that_fails_lets_go_too(self, digits):
        with pytest.raises(ZeroDivisionError), digits.held():
            _ = 1 / 0
        assert digits.unused.is_set()


class TestCounting:
    async def test_the_tally_counts_items_rows_and_runs(self, make, clock):
        served = make(Tensors())
        await served.infer(rows(11), ticket(clock))
        assert (served.tally.success.count, served.tally.rows, served.tally.runs) == (3, 11, 3)
        assert served.tally.last == round(clock.time() * 1e3)
        assert {size: each.count for size, each in served.tally.batches.items()} == {4: 2, 3: 1}

    async def test_what_is_dropped_is_a_failure(self, make, clock):
        served = make(Tensors())
        with pytest.raises(ClientGone):
            await served.infer(rows(1), Ticket(clock.monotonic() + 9, lambda: True))
        assert (served.tally.fail.count, served.tally.success.count) == (1, 0)

    async def test_its_load_tells_wait_and_capacity(self, digits, shared):
        shared.decoders.mean = 0.1
        for _ in range(50):
            digits.batcher.latency.observe(4, 1.0)
        load = digits.load(rps=7.0)
        assert (load.wait_ms, load.queue, load.inflight, load.rps) == (0, 0, 0, 7.0)
        assert load.capacity_rps == pytest.approx(1 / 0.25)  # a row takes a quarter: decoding is quicker

    async def test_its_predicted_wait_has_decoding_in_it(self, digits, shared):
        shared.decoders.mean, shared.decoders.pending = 0.5, 4
        assert digits.predicted_wait() == pytest.approx(0.5)
        shared.decoders.pending = 0


async def test_closing_frees_the_model_between_two_batches(make):
    runtime = Tensors()
    served = make(runtime)
    await served.close()
    assert runtime.closes == 1


async def test_its_snapshot_has_runtime_and_queue(digits):
    about = digits.snapshot()
    assert (about["model"], about["version"], about["runtime"]) == ("digits", "3", "scripted")
    assert (about["users"], about["queue"]) == (0, 0)


async def test_a_manifest_that_does_not_go_with_the_model_is_refused_when_made(make):
    with pytest.raises(ModelError, match="takes no pictures"):
        make(Tensors(), preprocessing=PREPROCESSING)
