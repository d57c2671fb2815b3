import random

import pytest

from smartclient.throttle import LEAST, MOST, Throttle


def after(requests: int, accepts: int, now: float = 1000.0) -> Throttle:
    throttle = Throttle()
    for number in range(requests):
        throttle.ended(now, accepted=number < accepts)
    return throttle


@pytest.mark.parametrize("accepts", [500, 600, 1000])
def test_nothing_is_rejected_while_half_of_the_calls_are_served(accepts: int) -> None:
    assert after(1000, accepts).chance(1000.0) == 0.0


def test_the_chance_is_the_books_formula() -> None:
    assert after(1000, 400).chance(1000.0) == pytest.approx((1000 - 2 * 400) / 1001)


def test_one_call_in_ten_goes_through_when_all_fail() -> None:
    throttle, rng = after(1000, 0), random.Random(1)
    assert throttle.chance(1000.0) == MOST
    passed = sum(not throttle.rejects(1000.0, rng) for _ in range(10_000))
    assert passed == pytest.approx(1000, rel=0.1)
    assert throttle.rejected == 10_000 - passed


def test_few_calls_are_never_rejected() -> None:
    assert after(LEAST - 1, 0).chance(1000.0) == 0.0
    assert after(LEAST, 0).chance(1000.0) > 0.0


def test_ten_seconds_later_all_is_forgotten() -> None:
    throttle = after(1000, 0)
    assert throttle.chance(1009.9) > 0.0
    assert throttle.chance(1010.0) == 0.0
