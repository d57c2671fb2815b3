"""How candidates are timed, on a clock of the test's own."""

import numpy as np
import pytest

from node.runtimes.select.timing import batch, in_turns, powers_of_two
from node.tensors import rows

INPUTS = {"x": np.arange(5)}


class Clock:
    """A clock that stands still unless somebody works."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def time(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def working(clock):
    """A candidate whose run of n items takes what ``seconds(n, number of the run)`` says."""

    def make(seconds):
        sizes = []

        def run(items):
            clock.now += seconds(rows(items), len(sizes))
            sizes.append(rows(items))

        return run, sizes

    return make


def test_sizes_are_the_powers_of_two_and_the_largest():
    assert powers_of_two(1) == [1]
    assert powers_of_two(32) == [1, 2, 4, 8, 16, 32]
    assert powers_of_two(24) == [1, 2, 4, 8, 16, 24]


def test_a_batch_repeats_the_items_it_has():
    assert batch(INPUTS, 7)["x"].tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert batch(INPUTS, 2)["x"].tolist() == [0, 1]


def test_the_quickest_run_counts_whatever_disturbed_the_others(clock, working):
    disturbed, _ = working(lambda n, number: n * 0.001 + (0 if number % 3 == 2 else 0.05))
    steady, _ = working(lambda n, number: n * 0.002)
    assert in_turns([disturbed, steady], INPUTS, [1, 8], clock) == [{1: 1.0, 8: 8.0}, {1: 2.0, 8: 16.0}]


def test_the_first_run_of_a_size_does_not_count(clock, working):
    run, _sizes = working(lambda n, number: 5.0 if number == 0 else 0.001)
    assert in_turns([run], INPUTS, [1], clock) == [{1: 1.0}]


def test_it_goes_on_while_runs_get_quicker(clock, working):
    settled, calm = working(lambda n, number: 0.010)
    improving, busy = working(lambda n, number: max(0.001, 0.010 - number * 0.0005))
    in_turns([settled], INPUTS, [1], clock)
    (found,) = in_turns([improving], INPUTS, [1], clock)
    assert found[1] == 1.0
    assert len(busy) > 2 * len(calm)


def test_sizes_beyond_one_that_takes_too_long_are_not_tried(clock, working):
    slow, slow_sizes = working(lambda n, number: n * 0.4)
    quick, _ = working(lambda n, number: n * 0.001)
    found = in_turns([slow, quick], INPUTS, [1, 2, 4, 8, 16], clock)
    assert found[0] == {1: 400.0, 2: 800.0, 4: 1600.0}
    assert set(found[1]) == {1, 2, 4, 8, 16}
    assert max(slow_sizes) == 4


def test_it_ends_in_any_case(clock, working):
    """Each run is quicker than the last, for ever."""
    run, _sizes = working(lambda n, number: 0.9 * 0.97**number + 0.5)
    in_turns([run], INPUTS, [1], clock)
    assert clock.now - 100 < 25
