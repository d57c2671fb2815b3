"""Batches in pieces, and in lanes side by side."""

import threading

import numpy as np
import pytest

from node.runtimes.base import Signature
from node.runtimes.pieces import Lanes, Pieces, in_pieces
from node.tensors import TensorSpec


class Doubling:
    """Doubles numbers and remembers which it was given at a time; ``meet`` makes runs wait for one another."""

    name = "doubling"
    signature = Signature(
        inputs=(TensorSpec(name="x", datatype="FP32", shape=()),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=()),),
    )

    def __init__(self, meet=None, fails=()):
        self.given = []
        self.closed = False
        self._meet = meet
        self._fails = fails

    def run(self, inputs):
        x = inputs["x"].tolist()
        if self._meet is not None:
            self._meet.wait(10)
        self.given.append(x)
        if set(x) & set(self._fails):
            raise ValueError(f"{x[0]:g} is poison")
        return {"y": inputs["x"] * 2}

    def close(self):
        self.closed = True

    def snapshot(self):
        return {"runtime": self.name}


def numbers(count):
    return {"x": np.arange(count, dtype=np.float32)}


def test_a_batch_goes_in_pieces_and_comes_back_whole_and_in_order():
    inner = Doubling()
    runtime = Pieces(inner, 4)
    assert runtime.run(numbers(9))["y"].tolist() == [2 * n for n in range(9)]
    assert inner.given == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert (runtime.name, runtime.signature) == (inner.name, inner.signature)
    assert runtime.snapshot() == {"runtime": "doubling", "piece": 4}
    runtime.close()
    assert inner.closed


def test_what_fits_one_piece_is_passed_on_as_it_is():
    inputs = numbers(4)
    assert in_pieces(lambda given: {"same": np.array(given is inputs)}, inputs, 4)["same"]


def test_lanes_run_side_by_side_and_rows_keep_their_order():
    """Each run waits until the other lane is at work, too: one after the other they would never end."""
    meet = threading.Barrier(2)
    lanes = [Doubling(meet), Doubling(meet)]
    runtime = Lanes(Doubling(), lanes, 2)
    assert runtime.run(numbers(8))["y"].tolist() == [2 * n for n in range(8)]
    assert sorted(lanes[0].given + lanes[1].given) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [len(lane.given) for lane in lanes] == [2, 2]


def test_without_a_piece_each_lane_takes_its_share():
    lanes = [Doubling(), Doubling()]
    assert Lanes(Doubling(), lanes).run(numbers(5))["y"].tolist() == [0, 2, 4, 6, 8]
    assert sorted(lanes[0].given + lanes[1].given) == [[0, 1, 2], [3, 4]]


def test_fewer_rows_than_lanes_are_for_the_runtime_itself():
    together, lanes = Doubling(), [Doubling(), Doubling(), Doubling()]
    runtime = Lanes(together, lanes, 1)
    assert runtime.run(numbers(2))["y"].tolist() == [0, 2]
    assert together.given == [[0, 1]]
    assert not any(lane.given for lane in lanes)


def test_the_error_of_a_lane_is_the_batchs_and_the_next_batch_is_run():
    runtime = Lanes(Doubling(), [Doubling(fails=[3]), Doubling(fails=[3])], 1)
    with pytest.raises(ValueError, match="3 is poison"):
        runtime.run(numbers(6))
    assert runtime.run(numbers(3))["y"].tolist() == [0, 2, 4]


def test_closing_closes_every_lane_and_leaves_no_thread():
    together, lanes = Doubling(), [Doubling(), Doubling()]
    before = threading.active_count()
    runtime = Lanes(together, lanes, 1)
    runtime.run(numbers(4))
    assert runtime.snapshot() == {"runtime": "doubling", "piece": 1, "lanes": 2}
    runtime.close()
    assert all(each.closed for each in (together, *lanes))
    assert threading.active_count() == before
