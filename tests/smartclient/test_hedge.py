import pytest

from smartclient.hedge import Hedger, HedgeRule


def hedger(samples: int, *, seconds: float = 0.1, rule: HedgeRule | None = None) -> Hedger:
    made = Hedger(rule or HedgeRule())
    for number in range(samples):
        made.observe(seconds if number % 20 else 10 * seconds, 1000.0)
    return made


def test_there_is_no_hedge_before_there_are_enough_samples() -> None:
    assert hedger(99).delay(1000.0) is None
    assert hedger(100).delay(1000.0) is not None


def test_the_delay_is_the_quantile_of_what_calls_took() -> None:
    rule = HedgeRule(quantile=0.9)
    assert hedger(1000, rule=rule).delay(1000.0) == pytest.approx(0.1, rel=0.1)
    assert hedger(1000, rule=HedgeRule(quantile=0.97)).delay(1000.0) == pytest.approx(1.0, rel=0.1)


def test_answers_too_quick_to_hedge_are_not() -> None:
    assert hedger(1000, seconds=0.0001, rule=HedgeRule(quantile=0.5)).delay(1000.0) is None


def test_what_is_a_minute_old_counts_no_more() -> None:
    made = hedger(1000)
    assert made.delay(1000.0) is not None
    assert made.delay(1061.0) is None


def test_hedges_are_a_share_of_the_calls_and_there_is_no_reserve() -> None:
    made = Hedger(HedgeRule(budget=0.05))
    assert not made.withdraw(1000.0)
    for _ in range(100):
        made.called(1000.0)
    assert [made.withdraw(1000.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert made.refused == 3
    assert not made.withdraw(1011.0)
