import random

import pytest

from smartclient.breaker import Breaker, EjectionRule, Reach
from smartclient.stats import Outcome

RULE = EjectionRule(jitter=0.0)


class Driven:
    """A breaker driven by hand: ``now`` is a number the test moves."""

    def __init__(self, rule: EjectionRule = RULE) -> None:
        self.breaker = Breaker(rule)
        self.now = 100.0
        self.rng = random.Random(1)

    def record(self, outcome: Outcome, *, may_eject: bool = True, epoch: int | None = None) -> None:
        probe = self.breaker.begin(self.now)
        epoch = self.breaker.epoch if epoch is None else epoch
        self.breaker.record(outcome, epoch=epoch, probe=probe, now=self.now, rng=self.rng, may_eject=may_eject)

    def fail(self, times: int, outcome: Outcome = Outcome.RESET) -> None:
        for _ in range(times):
            self.record(outcome)

    @property
    def state(self) -> str:
        return self.breaker.state(self.now)

    @property
    def available(self) -> bool:
        return self.breaker.available(self.now)


@pytest.fixture
def driven() -> Driven:
    return Driven()


def test_three_refused_connections_in_a_row_eject(driven: Driven) -> None:
    driven.fail(2, Outcome.CONNECT_ERROR)
    assert driven.state == "closed"
    driven.fail(1, Outcome.CONNECT_ERROR)
    assert driven.state == "ejected"
    assert not driven.available


@pytest.mark.parametrize("outcome", [Outcome.RESET, Outcome.TIMEOUT, Outcome.SERVER_ERROR])
def test_five_failures_of_any_kind_in_a_row_eject(driven: Driven, outcome: Outcome) -> None:
    driven.fail(4, outcome)
    assert driven.available
    driven.fail(1, outcome)
    assert driven.state == "ejected"


def test_a_success_starts_the_count_again(driven: Driven) -> None:
    for _ in range(10):
        driven.fail(4)
        driven.record(Outcome.OK)
        driven.fail(2, Outcome.CONNECT_ERROR)
        for _ in range(6):
            driven.record(Outcome.OK)
    assert driven.state == "closed"


def test_it_is_calm_again_when_its_failures_lie_a_window_back(driven: Driven) -> None:
    driven.fail(1)
    for _ in range(49):
        driven.record(Outcome.OK)
    assert not driven.breaker.calm
    driven.record(Outcome.OK)
    assert driven.breaker.calm


def test_half_of_the_recent_attempts_eject_even_if_never_five_in_a_row(driven: Driven) -> None:
    for _ in range(9):
        driven.fail(1)
        driven.record(Outcome.OK)
    driven.fail(1)
    assert driven.state == "closed"  # 19 attempts are too few to tell
    driven.fail(1)
    assert driven.state == "ejected"


def test_under_half_of_the_recent_attempts_do_not_eject(driven: Driven) -> None:
    for _ in range(100):
        driven.fail(1)
        driven.record(Outcome.OK)
        driven.record(Outcome.OK)
    assert driven.state == "closed"


@pytest.mark.parametrize("outcome", [Outcome.STALE, Outcome.CANCELLED])
def test_what_says_nothing_of_the_node_changes_nothing(driven: Driven, outcome: Outcome) -> None:
    driven.fail(50, outcome)
    assert driven.breaker.calm
    driven.fail(4)
    driven.record(outcome)
    driven.fail(1)
    assert driven.state == "ejected"


def test_after_its_time_one_probe_goes_first_and_success_closes(driven: Driven) -> None:
    driven.fail(5)
    driven.now += 29.9
    assert not driven.available
    driven.now += 0.1
    assert driven.state == "probation"
    assert driven.available
    assert driven.breaker.begin(driven.now)
    assert not driven.available, "a second request would be a second probe"
    driven.breaker.record(
        Outcome.OK, epoch=driven.breaker.epoch, probe=True, now=driven.now, rng=driven.rng, may_eject=True
    )
    assert driven.state == "closed"
    assert driven.available


def test_a_failed_probe_ejects_for_longer_up_to_the_maximum(driven: Driven) -> None:
    driven.fail(5)
    durations = []
    for _ in range(12):
        durations.append(driven.breaker.remaining(driven.now))
        driven.now += durations[-1]
        driven.fail(1)
    assert durations == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]


def test_a_probe_whose_caller_left_makes_room_for_another(driven: Driven) -> None:
    driven.fail(5)
    driven.now += 30
    driven.record(Outcome.CANCELLED)
    assert driven.state == "probation"
    assert driven.available


def test_healthy_stretches_make_the_next_ejection_shorter(driven: Driven) -> None:
    driven.fail(5)
    driven.now += 30
    driven.fail(1)
    driven.now += 60
    driven.record(Outcome.OK)
    assert driven.breaker.ejections == 2
    for _ in range(2):
        driven.now += 30
        driven.record(Outcome.OK)
    assert driven.breaker.ejections == 0
    assert driven.breaker.calm
    driven.fail(5)
    assert driven.breaker.remaining(driven.now) == 30


def test_jitter_spreads_the_return_of_many_clients() -> None:
    durations = {round(EjectionRule().duration(1, random.Random(seed)), 3) for seed in range(50)}
    assert len(durations) > 40
    assert all(24 <= each <= 30 for each in durations)


def test_late_answers_to_requests_sent_before_the_ejection_prove_nothing(driven: Driven) -> None:
    driven.fail(5)
    driven.record(Outcome.OK, epoch=0)
    assert driven.state == "ejected"
    until = driven.breaker.remaining(driven.now)
    driven.fail(20)
    assert driven.breaker.remaining(driven.now) == until
    assert driven.breaker.ejections == 1


def test_a_success_in_panic_after_the_ejection_ends_it(driven: Driven) -> None:
    driven.fail(5)
    driven.now += 1
    driven.record(Outcome.OK)
    assert driven.state == "closed"


def test_without_leave_it_stays_in_and_goes_at_the_next_failure_with_leave(driven: Driven) -> None:
    for _ in range(20):
        driven.record(Outcome.RESET, may_eject=False)
    assert driven.available
    driven.fail(1)
    assert driven.state == "ejected"


def test_overload_is_a_cool_down_and_no_fault(driven: Driven) -> None:
    driven.breaker.cool(2.0, driven.now)
    driven.record(Outcome.OVERLOADED)
    assert driven.state == "cooling"
    assert not driven.available
    assert driven.breaker.available(driven.now, Reach.COOLING)
    assert driven.breaker.cooling(driven.now) == 2.0
    driven.now += 2.0
    assert driven.available
    assert driven.breaker.ejections == 0
    assert driven.breaker.calm


def test_a_success_meanwhile_does_not_end_a_cool_down(driven: Driven) -> None:
    driven.breaker.cool(2.0, driven.now)
    driven.record(Outcome.OK)
    assert not driven.available


def test_a_node_cannot_ask_to_be_left_alone_for_ever(driven: Driven) -> None:
    driven.breaker.cool(86400.0, driven.now)
    driven.now += 30.0
    assert driven.available


def test_a_probe_answered_with_overload_shows_the_node_is_alive(driven: Driven) -> None:
    driven.fail(5)
    driven.now += 30
    driven.breaker.cool(2.0, driven.now)
    driven.record(Outcome.OVERLOADED)
    assert driven.state == "cooling"


def test_reach_ejected_takes_anybody(driven: Driven) -> None:
    driven.fail(5)
    assert not driven.breaker.available(driven.now, Reach.COOLING)
    assert driven.breaker.available(driven.now, Reach.EJECTED)


def test_one_that_the_registry_lists_again_is_probed_at_once(driven: Driven) -> None:
    driven.fail(5)
    driven.breaker.returned(driven.now)
    assert driven.state == "probation"
    driven.fail(1)
    assert driven.breaker.remaining(driven.now) == 60, "its history is kept"
