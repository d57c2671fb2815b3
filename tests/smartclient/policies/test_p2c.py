import random
from collections import Counter

import pytest

from smartclient.endpoint import Lease
from smartclient.policies.p2c import P2C, LeastRequest
from smartclient.policies.scores import UNKNOWN, least_request, peak_ewma
from smartclient.policy import ANY
from smartclient.stats import Outcome
from smartclient.testing import endpoints


def begin(endpoint, now: float = 0.0) -> Lease:
    return Lease(endpoint, now, lambda *_: None)


def test_least_request_counts_the_attempt_itself_by_weight() -> None:
    (endpoint,) = endpoints([2])
    assert least_request(endpoint, 0.0) == 0.5
    begin(endpoint)
    begin(endpoint)
    assert least_request(endpoint, 0.0) == 1.5
    endpoint.start_slowly(0.0)
    assert least_request(endpoint, 5.0) == 3.0, "a newcomer half way up counts for half its weight"


def test_peak_ewma_is_latency_times_attempts_by_weight() -> None:
    (endpoint,) = endpoints([4])
    endpoint.latency.observe(0.2, 0.0)
    assert peak_ewma(endpoint, 0.0) == pytest.approx(0.05)
    begin(endpoint)
    assert peak_ewma(endpoint, 0.0) == pytest.approx(0.1)


def test_who_never_answered_is_first_until_somebody_waits_for_it_and_then_last() -> None:
    (endpoint,) = endpoints(1)
    assert peak_ewma(endpoint, 0.0) == 0.0
    begin(endpoint)
    one = peak_ewma(endpoint, 0.0)
    assert one >= UNKNOWN
    begin(endpoint)
    assert peak_ewma(endpoint, 0.0) > one, "among those who never answered the one with fewer attempts is better"


def test_who_hangs_gets_worse_with_every_second() -> None:
    (endpoint,) = endpoints(1)
    endpoint.latency.observe(0.1, 0.0)
    begin(endpoint, 0.0)
    assert peak_ewma(endpoint, 30.0) == pytest.approx(60.0)


@pytest.mark.parametrize("policy", [P2C(), LeastRequest()])
def test_of_two_the_better_is_always_taken(policy: P2C | LeastRequest) -> None:
    better, worse = endpoints(2)
    for endpoint in (better, worse):
        endpoint.latency.observe(0.1, 0.0)
    begin(worse)
    picker = policy.build([better, worse], random.Random(1))
    assert {picker.pick(ANY, 0.0) for _ in range(50)} == {better}
    assert picker.score(better, 0.0) < picker.score(worse, 0.0)


@pytest.mark.parametrize("policy", [P2C(), LeastRequest()])
def test_of_many_the_worst_is_never_taken_and_the_best_not_always(policy: P2C | LeastRequest) -> None:
    everybody = endpoints(5)
    for number, endpoint in enumerate(everybody):
        endpoint.latency.observe(0.1, 0.0)
        for _ in range(number):
            begin(endpoint)
    picker = policy.build(everybody, random.Random(1))
    picked = Counter(picker.pick(ANY, 0.0).name for _ in range(1000))
    assert "digits-5" not in picked
    assert picked["digits-1"] > picked["digits-2"] > picked["digits-3"] > picked["digits-4"] > 0


def test_equals_are_chosen_by_chance() -> None:
    picker = LeastRequest().build(endpoints(2), random.Random(1))
    picked = Counter(picker.pick(ANY, 0.0).name for _ in range(1000))
    assert 400 <= picked["digits-1"] <= 600


def test_an_attempt_that_ends_makes_its_endpoint_as_good_as_before() -> None:
    (endpoint,) = endpoints(1)
    lease = begin(endpoint)
    lease.release(Outcome.OK)
    assert least_request(endpoint, 0.0) == 1.0
