import random

import pytest

from registry.timing import Backoff
from smartclient.retry import Failure, RetryBudget, RetryRule, free_of_charge
from smartclient.stats import Outcome
from smartclient.window import SECONDS

RNG = random.Random(1)


def failure(outcome: Outcome = Outcome.RESET, **changes: object) -> Failure:
    fields: dict[str, object] = {"outcome": outcome, "made": 1, "remaining": 10.0, "idempotent": True}
    return Failure(**(fields | changes))


def test_the_second_attempt_goes_elsewhere_at_once() -> None:
    assert RetryRule().judge(failure(), RNG).delay == 0.0


def test_later_attempts_wait_a_full_jitter_back_off() -> None:
    rule = RetryRule(attempts=5, backoff=Backoff(base=1.0, cap=100.0))
    for made, ceiling in ((2, 2.0), (3, 4.0), (4, 8.0)):
        delays = [rule.judge(failure(made=made), random.Random(seed)).delay for seed in range(300)]
        assert all(0 <= delay < ceiling for delay in delays)
        assert max(delays) > 0.9 * ceiling
        assert min(delays) < 0.1 * ceiling


def test_where_there_is_no_other_node_the_second_attempt_waits_too() -> None:
    assert RetryRule().judge(failure(pushback=0.0), random.Random(1)).delay > 0.0


def test_pushback_is_waited_out_before_the_same_nodes_are_asked_again() -> None:
    assert RetryRule().judge(failure(Outcome.OVERLOADED, pushback=2.0), RNG).delay >= 2.0


def test_pushback_beyond_the_deadline_ends_the_call() -> None:
    verdict = RetryRule().judge(failure(Outcome.OVERLOADED, pushback=20.0), RNG)
    assert verdict.delay is None
    assert "no time is left" in verdict.why


def test_attempts_are_counted() -> None:
    assert RetryRule(attempts=2).judge(failure(made=1), RNG).delay is not None
    verdict = RetryRule(attempts=2).judge(failure(made=2), RNG)
    assert verdict.delay is None
    assert "all 2 attempts" in verdict.why


@pytest.mark.parametrize("outcome", [Outcome.STALE, Outcome.RESET, Outcome.TIMEOUT, Outcome.SERVER_ERROR])
def test_what_was_sent_and_may_not_be_done_twice_is_not_sent_again(outcome: Outcome) -> None:
    verdict = RetryRule().judge(failure(outcome, idempotent=False), RNG)
    assert verdict.delay is None
    assert "idempotent=True" in verdict.why


def test_what_was_never_sent_may_always_be_sent_again() -> None:
    assert RetryRule().judge(failure(Outcome.CONNECT_ERROR, idempotent=False), RNG).delay == 0.0


def test_nothing_is_tried_after_the_deadline() -> None:
    assert RetryRule().judge(failure(remaining=0.0), RNG).delay is None


def test_only_what_put_no_work_on_anybody_is_free_of_charge() -> None:
    assert [outcome for outcome in Outcome if free_of_charge(outcome)] == [Outcome.CONNECT_ERROR, Outcome.STALE]


@pytest.mark.parametrize("in_flight", [11, 32, 100, 1000])
def test_a_third_of_what_is_in_flight_may_fail_at_once_and_be_retried_even_cold(in_flight: int) -> None:
    budget = RetryBudget()
    for _ in range(in_flight):
        budget.called(1000.0)
    assert all(budget.withdraw(1000.0, in_flight) for _ in range(in_flight // 3 + 1))


def test_in_a_lasting_outage_retries_stay_near_a_fifth_of_the_calls() -> None:
    budget, allowed, now = RetryBudget(), 0, 1000.0
    for _ in range(60_000):  # a minute of 1000 calls a second, each failing twice, 20 in flight
        budget.called(now)
        allowed += budget.withdraw(now, 20) + budget.withdraw(now, 20)
        now += 0.001
    assert 0.18 * 60_000 <= allowed <= 0.2 * 60_000 + 20
    assert budget.refused == 120_000 - allowed


def test_a_slow_client_has_one_retry_a_second_and_no_more() -> None:
    budget, allowed, now = RetryBudget(), 0, 1000.0
    for _ in range(600):  # one call a second, each wanting three retries
        budget.called(now)
        allowed += sum(budget.withdraw(now, 1) for _ in range(3))
        now += 1.0
    assert 600 - SECONDS <= allowed <= 600 + SECONDS


def test_the_window_forgets() -> None:
    budget = RetryBudget()
    assert all(budget.withdraw(1000.0, 1) for _ in range(SECONDS))
    assert not budget.withdraw(1000.0, 1)
    assert not budget.withdraw(1009.0, 1)
    assert all(budget.withdraw(1010.0, 1) for _ in range(SECONDS))
    assert all(budget.withdraw(5000.0, 1) for _ in range(SECONDS))
    for _ in range(100):
        budget.called(6000.0)
    assert budget.allowance(6000.0, 1) == 20
    assert budget.allowance(6009.9, 1) == 20
    assert budget.allowance(6010.0, 1) == 10
    assert budget.allowance(6010.0, 32) == 32
    budget.withdraw(6010.0, 1)
    assert budget.left(6010.0, 1) == 9
