import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from smartclient.policies.stride import MOST, Stride


@given(weights=st.lists(st.floats(0.5, 4.0), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_shares_follow_the_weights(weights: list[float], seed: int) -> None:
    stride = Stride(weights, random.Random(seed))
    turns = Counter(stride.next() for _ in range(2000))
    for number, weight in enumerate(weights):
        assert abs(turns[number] / 2000 - weight / sum(weights)) <= 0.01


def test_equal_weights_take_exact_turns() -> None:
    stride = Stride([3.0] * 7, random.Random(1))
    assert Counter(stride.next() for _ in range(700)) == dict.fromkeys(range(7), 100)


def test_a_weight_counts_for_no_more_than_ten_times_the_mean() -> None:
    stride = Stride([1.0] * 99 + [1e9], random.Random(1))
    turns = Counter(stride.next() for _ in range(10_000))
    assert turns[99] / 10_000 > 0.99
    even = Stride([1.0] * 99 + [30.0], random.Random(1))
    mean = (99 + 30) / 100
    assert abs(Counter(even.next() for _ in range(10_000))[99] / 10_000 - MOST * mean / (99 + MOST * mean)) < 0.01


def test_other_weights_take_over_in_between() -> None:
    stride = Stride([1.0, 1.0], random.Random(1))
    stride.weights([1.0, 3.0])
    assert Counter(stride.next() for _ in range(400)) == {0: 100, 1: 300}
