from smartclient.breaker import EjectionRule
from smartclient.endpoint import Endpoint, SlowStart
from smartclient.policies.weights import LEAST_SHARE, share_of, weight_of, weights_of
from smartclient.testing import endpoints


def test_weight_zero_means_no_work() -> None:
    first, _, third = endpoints([2, 0, 1])
    assert weights_of([first, _, third]) == {first: 2, third: 1}


def test_all_of_weight_zero_count_as_one() -> None:
    both = endpoints([0, 0])
    assert weights_of(both) == dict.fromkeys(both, 1)
    assert weight_of(both[0], 0.0) == 1.0


def test_a_newcomer_counts_for_its_share_and_never_for_nothing() -> None:
    (endpoint,) = endpoints([4])
    assert share_of(endpoint, 0.0) == 1.0
    endpoint.start_slowly(0.0)
    assert weight_of(endpoint, 5.0) == 2.0
    newborn = Endpoint(endpoint.instance, EjectionRule(), SlowStart(floor=0.0))
    newborn.start_slowly(0.0)
    assert share_of(newborn, 0.0) == LEAST_SHARE
