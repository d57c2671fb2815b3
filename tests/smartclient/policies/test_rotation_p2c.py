import random
from collections import Counter

import pytest

from smartclient.errors import BadOption
from smartclient.policies.rotation_p2c import RotationP2C
from smartclient.policy import ANY
from smartclient.testing import endpoints


def fleet(*latencies: float):
    everybody = endpoints(len(latencies))
    for endpoint, latency in zip(everybody, latencies, strict=True):
        endpoint.latency.observe(latency, 0.0)
    return everybody


def test_nodes_that_differ_by_less_than_the_margin_take_turns() -> None:
    picker = RotationP2C().build(fleet(0.100, 0.110, 0.120, 0.130), random.Random(1))
    picked = Counter(picker.pick(ANY, 0.0).name for _ in range(400))
    assert set(picked.values()) == {100}


def test_who_is_worse_by_more_than_the_margin_loses_its_turns() -> None:
    picker = RotationP2C().build(fleet(0.1, 0.1, 0.1, 0.14), random.Random(1))
    picked = Counter(picker.pick(ANY, 0.0).name for _ in range(400))
    assert "digits-4" not in picked
    assert min(picked.values()) >= 100, "the others keep theirs"


def test_the_margin_is_an_option() -> None:
    picker = RotationP2C(margin=0.5).build(fleet(0.1, 0.14), random.Random(1))
    assert Counter(picker.pick(ANY, 0.0).name for _ in range(10)) == {"digits-1": 5, "digits-2": 5}
    for margin in (-0.1, 1.0):
        with pytest.raises(BadOption, match="margin="):
            RotationP2C(margin=margin)


def test_the_rotation_goes_on_over_a_change_of_the_list() -> None:
    policy, everybody, rng = RotationP2C(), fleet(0.1, 0.1, 0.1, 0.1), random.Random(1)
    first = [policy.build(everybody, rng).pick(ANY, 0.0) for _ in range(4)]
    assert set(first) == set(everybody)
