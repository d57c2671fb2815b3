import math
import random
from collections import Counter

import pytest

from registry.testing import instance
from smartclient.breaker import EjectionRule
from smartclient.endpoint import Endpoint, Lease
from smartclient.errors import BadOption
from smartclient.policies.consistent_hash import WALK, Hash
from smartclient.policies.hash_order import FEW, Circle, Rendezvous
from smartclient.policies.hashing import distance, hash_of, mix
from smartclient.policy import ANY, PickInfo
from smartclient.testing import endpoints

KEYS = [f"user {number}" for number in range(2000)]
SIZES = [8, FEW + 36]


def homes(everybody: list[Endpoint], policy: Hash | None = None) -> dict[str, Endpoint]:
    """Where each key goes while nothing is in flight."""
    picker = (policy or Hash()).build(everybody, random.Random())
    return {key: picker.pick(PickInfo(key=key), 0.0) for key in KEYS}


def test_hashes_are_the_same_everywhere_and_for_ever() -> None:
    assert hash_of("digits-1", 9001) == 0x2382B8D69C43EEB8
    assert mix(1, 2) == mix(2, 1)
    assert hash_of("ab", "c") != hash_of("a", "bc")


def test_distances_are_exponential_with_the_weight_as_their_rate() -> None:
    for weight in (1.0, 4.0):
        drawn = [distance(hash_of("key", number), hash_of("node"), weight) for number in range(4000)]
        assert min(drawn) > 0
        assert sum(drawn) / 4000 == pytest.approx(1 / weight, rel=0.06)


@pytest.mark.parametrize("size", SIZES)
def test_a_key_always_goes_to_the_same_endpoint_whatever_the_client_or_the_order_of_the_list(size: int) -> None:
    everybody = list(endpoints(size))
    shuffled = random.Random(2).sample(everybody, size)
    assert homes(everybody) == homes(shuffled)


@pytest.mark.parametrize("size", SIZES)
def test_who_leaves_moves_its_own_keys_only_and_gets_them_back(size: int) -> None:
    everybody = list(endpoints(size))
    before, gone = homes(everybody), everybody[3]
    after = homes([each for each in everybody if each is not gone])
    moved = {key for key in KEYS if before[key] is not after[key]}
    assert moved == {key for key in KEYS if before[key] is gone}
    assert len({after[key] for key in moved}) > 1, "they are spread"


@pytest.mark.parametrize("size", SIZES)
def test_who_is_ejected_moves_its_own_keys_only(size: int) -> None:
    everybody = list(endpoints(size))
    before, out = homes(everybody), everybody[3]
    out.breaker.eject(0.0, random.Random(1))
    after = homes(everybody)
    assert all((before[key] is out) == (before[key] is not after[key]) for key in KEYS)


def test_shares_follow_the_weights_of_few_exactly_and_of_many_nearly() -> None:
    few = Counter(endpoint.weight for endpoint in homes(list(endpoints([1, 2, 5]))).values())
    assert [few[weight] / 2000 for weight in (1, 2, 5)] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.03)
    weights = [1] * 100 + [3] * 100
    many = Counter(endpoint.weight for endpoint in homes(list(endpoints(weights))).values())
    assert many[3] / 2000 == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize("order", [Rendezvous, Circle])
def test_every_key_has_everybody_in_an_order_of_its_own(order: type[Rendezvous | Circle]) -> None:
    everybody = endpoints([1, 2, 3, 40, 1, 1])
    walks = [list(order(dict.fromkeys(everybody, 1)).walk(hash_of(key))) for key in KEYS[:50]]
    assert all(set(walk) == set(everybody) and len(walk) == 6 for walk in walks)
    assert len({tuple(map(id, walk)) for walk in walks}) > 30


@pytest.mark.parametrize("size", SIZES)
def test_who_is_full_leaves_its_keys_to_the_next_in_their_order(size: int) -> None:
    everybody = list(endpoints(size))
    picker, info = Hash(factor=1.5).build(everybody, random.Random(1)), PickInfo(key="somebody")
    picked = [picker.pick(info, 0.0)]
    for _ in range(2 * size):
        Lease(picked[-1], 0.0, lambda *_: None)
        picked.append(picker.pick(info, 0.0))
    busiest = max(endpoint.in_flight for endpoint in everybody)
    assert picked[0].in_flight == busiest
    assert 3 <= busiest <= 4, "1.5 times the mean, which is 2"


def test_room_is_by_weight() -> None:
    everybody = list(endpoints([1, 3]))
    picker, info = Hash(factor=1.2).build(everybody, random.Random(1)), PickInfo(key="somebody")
    for _ in range(40):
        Lease(picker.pick(info, 0.0), 0.0, lambda *_: None)
    assert everybody[0].in_flight <= 12
    assert everybody[1].in_flight <= 36


def test_room_is_that_of_those_who_may_be_had() -> None:
    everybody = list(endpoints(4))
    home = homes(everybody)["user 1"]
    for endpoint in everybody:
        if endpoint is not home:
            endpoint.breaker.cool(9.0, 0.0)
    picker = Hash().build(everybody, random.Random(1))
    for _ in range(9):
        assert picker.pick(PickInfo(key="user 1"), 0.0) is home
        Lease(home, 0.0, lambda *_: None)


def test_one_key_with_all_the_work_is_spread_over_a_part_of_many() -> None:
    everybody = list(endpoints(1000))
    picker, info = Hash().build(everybody, random.Random(1)), PickInfo(key="somebody")
    for _ in range(500):
        Lease(picker.pick(info, 0.0), 0.0, lambda *_: None)
    assert max(endpoint.in_flight for endpoint in everybody) <= math.ceil(500 / WALK)


def test_a_call_without_a_key_takes_its_turn() -> None:
    picker = Hash().build(endpoints(3), random.Random(1))
    assert set(Counter(picker.pick(ANY, 0.0).name for _ in range(30)).values()) == {10}


def test_what_tells_endpoints_apart_is_more_than_the_address() -> None:
    one, other = Endpoint(instance(1), EjectionRule()), Endpoint(instance(1, id="digits-2"), EjectionRule())
    assert len(set(homes([one, other]).values())) == 2


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_a_factor_that_leaves_no_room_is_refused(factor: float) -> None:
    with pytest.raises(BadOption, match="factor="):
        Hash(factor=factor)
