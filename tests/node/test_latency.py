"""T(n) = a n + b: learned, clamped, and asked for the largest batch."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.latency import LatencyModel


def taught(line, sizes=(1, 2, 4, 8, 16, 32), rounds=4):
    model = LatencyModel()
    for size in sizes:
        for _ in range(rounds):
            model.observe(size, line(size))
    return model


def test_knows_nothing_and_promises_nothing_at_first():
    model = LatencyModel()
    assert model.predict(32) == 0
    assert model.largest(0.1, 32) == 32


def test_learns_a_line():
    model = taught(lambda n: 0.010 * n + 0.005)
    assert model.predict(20) == pytest.approx(0.205)


def test_the_first_two_runs_of_a_size_do_not_count():
    model = LatencyModel()
    model.observe(1, 9.0)
    model.observe(1, 9.0)
    assert model.predict(1) == 0
    model.observe(1, 0.01)
    assert model.predict(1) == pytest.approx(0.01)


def test_old_runs_are_forgotten():
    model = taught(lambda n: 1.0 * n)
    for _ in range(13):
        for size in (1, 2, 4, 8):
            model.observe(size, 0.001 * size)
    assert model.predict(8) == pytest.approx(0.008)


def test_one_size_only_is_scaled_from_the_origin():
    model = taught(lambda n: 0.04, sizes=(4,))
    assert model.predict(4) == pytest.approx(0.04)
    assert model.predict(8) == pytest.approx(0.08)


def test_noise_that_slopes_down_gives_a_constant():
    model = taught(lambda n: 0.1 - 0.001 * n)
    assert model.predict(1) == model.predict(32) > 0


def test_largest_batch_within_a_time():
    model = taught(lambda n: 0.010 * n + 0.005)
    assert model.largest(0.105, 32) in (9, 10)
    assert model.largest(0.001, 32) == 1
    assert model.largest(9, 32) == 32


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(1e-6, 10)), max_size=200), st.floats(0, 5))
def test_never_negative_never_falling_and_largest_agrees_with_predict(runs, seconds):
    model = LatencyModel()
    for size, took in runs:
        model.observe(size, took)
    times = [model.predict(size) for size in range(1, 65)]
    assert times[0] >= 0
    assert all(late >= early - 1e-12 for early, late in itertools.pairwise(times))
    best = model.largest(seconds, 64)
    assert 1 <= best <= 64
    assert best == 1 or model.predict(best) <= seconds * (1 + 1e-6) + 1e-9
