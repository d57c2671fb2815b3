"""The law of rotation, for any weights and any history of the list.

Exactness: with equal weights every window of n picks holds each of n endpoints once. Proportion: after k picks an
endpoint of share s has been picked k·s times, give or take one turn of its own and one of the others' rounding.
Continuity: a change of the list moves nobody's turn but that of who came.
"""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.testing import instance
from smartclient.breaker import EjectionRule
from smartclient.endpoint import Endpoint, SlowStart
from smartclient.errors import NoEndpoints
from smartclient.policies.rotation import Rotation
from smartclient.policy import ANY, Picker, PickInfo
from smartclient.stats import Outcome
from smartclient.testing import endpoints


def picks(picker: Picker, count: int, info: PickInfo = ANY) -> list[str]:
    return [picker.pick(info, 0.0).name for _ in range(count)]


@given(count=st.integers(1, 12), seed=st.integers(0, 999), rounds=st.integers(1, 30))
def test_equal_weights_give_an_exact_rotation(count: int, seed: int, rounds: int) -> None:
    picked = picks(Rotation().build(endpoints(count), random.Random(seed)), count * rounds)
    first = picked[:count]
    assert len(set(first)) == count
    assert picked == first * rounds


@given(weights=st.lists(st.integers(1, 20), min_size=1, max_size=8), seed=st.integers(0, 999))
def test_shares_follow_the_weights_within_two_percent(weights: list[int], seed: int) -> None:
    picked = Counter(picks(Rotation().build(endpoints(weights), random.Random(seed)), 2000))
    for number, weight in enumerate(weights):
        assert abs(picked[f"digits-{number + 1}"] / 2000 - weight / sum(weights)) <= 0.02


@given(weights=st.lists(st.integers(1, 20), min_size=2, max_size=8), seed=st.integers(0, 99), count=st.integers(1, 500))
def test_no_endpoint_is_ever_more_than_a_turn_from_its_share(weights: list[int], seed: int, count: int) -> None:
    picked = Counter(picks(Rotation().build(endpoints(weights), random.Random(seed)), count))
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(picked[f"digits-{number + 1}"] - count * share) <= 1 + len(weights) * share


def test_clients_start_at_different_nodes() -> None:
    first = {picks(Rotation().build(endpoints(5), random.Random(seed)), 1)[0] for seed in range(60)}
    assert len(first) == 5


def test_the_same_seed_gives_the_same_rotation() -> None:
    runs = [picks(Rotation().build(endpoints([3, 1, 2]), random.Random(4)), 50) for _ in range(2)]
    assert runs[0] == runs[1]


@given(before=st.integers(0, 40), seed=st.integers(0, 99), gone=st.integers(0, 3))
def test_a_smaller_list_keeps_the_order_of_who_stays(before: int, seed: int, gone: int) -> None:
    rng, policy, all_four = random.Random(seed), Rotation(), endpoints(4)
    picked = picks(policy.build(all_four, rng), before + 4)
    left = [each for number, each in enumerate(all_four) if number != gone]
    expected = [name for name in picked[-4:] if name != all_four[gone].name]
    assert picks(policy.build(left, rng), 6) == expected * 2


@given(before=st.integers(0, 40), seed=st.integers(0, 99))
def test_a_larger_list_is_an_exact_rotation_that_keeps_the_order(before: int, seed: int) -> None:
    rng, policy, all_four = random.Random(seed), Rotation(), endpoints(4)
    picked = picks(policy.build(all_four[:3], rng), before + 3)
    after = picks(policy.build(all_four, rng), 40)
    assert Counter(after) == dict.fromkeys((each.name for each in all_four), 10)
    assert [name for name in after if name != "digits-4"][:3] == picked[-3:]


@given(before=st.integers(0, 40), seed=st.integers(0, 99))
def test_replacing_one_node_leaves_the_others_turns_alone(before: int, seed: int) -> None:
    rng, policy, old = random.Random(seed), Rotation(), endpoints(3)
    picked = picks(policy.build(old, rng), before + 3)
    new = Endpoint(instance(9), old[0].breaker._rule)
    after = picks(policy.build([*old[:2], new], rng), 30)
    assert Counter(after) == {"digits-1": 10, "digits-2": 10, "digits-9": 10}
    assert [n for n in after if n != "digits-9"][:2] == [n for n in picked[-3:] if n != "digits-3"]


@given(seed=st.integers(0, 99), rebuilds=st.integers(1, 20))
def test_rebuilding_the_same_list_changes_nothing(seed: int, rebuilds: int) -> None:
    rng, policy, all_three = random.Random(seed), Rotation(), endpoints(3)
    picker = policy.build(all_three, rng)
    first, rest = picks(picker, 3), []
    for _ in range(rebuilds):
        picker = policy.build(all_three, rng)
        rest += picks(picker, 1)
    assert rest == (first * rebuilds)[:rebuilds]


@given(seed=st.integers(0, 99), excluded=st.lists(st.integers(0, 2), max_size=30))
def test_picks_that_pass_someone_over_do_not_cost_him_his_turn(seed: int, excluded: list[int]) -> None:
    everybody = endpoints(3)
    picker = Rotation().build(everybody, random.Random(seed))
    picked = Counter(picks(picker, 3))
    for number in excluded:
        chosen = picker.pick(PickInfo(exclude=[everybody[number]]), 0.0)
        assert chosen is not everybody[number]
        picked[chosen.name] += 1
        picked.update(picks(picker, 2))  # the one passed over is next, so that the sum stays even
    assert max(picked.values()) - min(picked.values()) <= 2


def test_who_was_out_for_long_comes_back_without_a_burst() -> None:
    everybody = endpoints(3)
    picker = Rotation().build(everybody, random.Random(1))
    out = everybody[0]
    for _ in range(300):
        picker.pick(PickInfo(exclude=[out]), 0.0)
    back = picks(picker, 30)
    assert back.count(out.name) <= 11
    assert back[:4].count(out.name) <= 2


def test_an_ejected_endpoint_is_passed_over() -> None:
    everybody = endpoints(3)
    breaker = everybody[1].breaker
    for _ in range(5):
        breaker.record(Outcome.RESET, epoch=0, probe=False, now=0.0, rng=random.Random(1), may_eject=True)
    assert set(picks(Rotation().build(everybody, random.Random(1)), 10)) == {"digits-1", "digits-3"}


def test_weight_zero_gets_no_turn_unless_all_have_it() -> None:
    assert set(picks(Rotation().build(endpoints([1, 0, 2]), random.Random(1)), 30)) == {"digits-1", "digits-3"}
    assert len(set(picks(Rotation().build(endpoints([0, 0]), random.Random(1)), 30))) == 2


def test_nobody_to_pick_is_an_error() -> None:
    with pytest.raises(NoEndpoints):
        Rotation().build((), random.Random(1)).pick(ANY, 0.0)
    everybody = endpoints(2)
    with pytest.raises(NoEndpoints):
        Rotation().build(everybody, random.Random(1)).pick(PickInfo(exclude=everybody), 0.0)


@given(share=st.sampled_from([0.1, 0.25, 0.5, 0.9]), seed=st.integers(0, 99))
def test_a_newcomer_gets_its_share_of_turns_evenly_spread(share: float, seed: int) -> None:
    everybody = [Endpoint(instance(n), EjectionRule(), SlowStart(window=100.0)) for n in range(4)]
    everybody[0].start_slowly(-100.0 * share)
    picked = picks(Rotation().build(everybody, random.Random(seed)), 400)
    assert abs(picked.count("digits-0") / picked.count("digits-1") - share) <= 0.02
    turns = [number for number, name in enumerate(picked) if name == "digits-0"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(turns)]
    assert max(gaps) - min(gaps) <= 5, "no burst"


def test_newcomers_alone_share_all_the_work() -> None:
    everybody = endpoints(3)
    for endpoint in everybody:
        endpoint.start_slowly(0.0)
    picked = Counter(picks(Rotation().build(everybody, random.Random(1)), 300))
    assert max(picked.values()) - min(picked.values()) <= 2


def test_the_turns_of_those_who_are_out_go_to_all_and_not_to_their_equals() -> None:
    everybody = endpoints([1, 1, 1, 1, 4, 4])
    for endpoint in everybody[1:4]:
        endpoint.breaker.eject(0.0, random.Random(1))
    picked = Counter(picks(Rotation().build(everybody, random.Random(1)), 900))
    assert abs(picked["digits-1"] - 100) <= 2
    assert abs(picked["digits-5"] - 400) <= 2


def test_a_look_at_who_is_next_takes_no_turn() -> None:
    picker = Rotation().build(endpoints([3, 1, 2]), random.Random(4))
    seen = [(picker.peek(ANY, 0.0), picker.peek(ANY, 0.0), picker.pick(ANY, 0.0)) for _ in range(60)]
    assert all(first is second is third for first, second, third in seen)
    assert Counter(endpoint.name for *_, endpoint in seen) == {"digits-1": 30, "digits-2": 10, "digits-3": 20}


def test_a_weight_that_changes_is_followed_from_the_next_list_on() -> None:
    policy, everybody, rng = Rotation(), endpoints(3), random.Random(1)
    picks(policy.build(everybody, rng), 10)
    everybody[0].update(instance(1, weight=4))
    assert abs(Counter(picks(policy.build(everybody, rng), 600))["digits-1"] - 400) <= 2


class Counted(PickInfo, kw_only=True):
    """Counts how often it is asked whether an endpoint may be had."""

    asked: list[int]

    def admits(self, endpoint: Endpoint, now: float) -> bool:
        self.asked[0] += 1
        return super().admits(endpoint, now)


@pytest.mark.parametrize("weights", [[1] * 1000, [1, 2, 3, 4] * 250])
def test_a_pick_looks_at_one_endpoint_however_many_there_are(weights: list[int]) -> None:
    picker, info = Rotation().build(endpoints(weights), random.Random(1)), Counted(asked=[0])
    for _ in range(500):
        picker.pick(info, 0.0)
    assert info.asked[0] == 500


def test_who_is_out_is_looked_at_no_more_often_than_it_would_have_turns() -> None:
    everybody = endpoints([1] * 500 + [2] * 500)
    for endpoint in everybody[:500]:
        endpoint.breaker.eject(0.0, random.Random(1))
    picker, info = Rotation().build(everybody, random.Random(1)), Counted(asked=[0])
    for _ in range(3000):
        picker.pick(info, 0.0)
    assert info.asked[0] <= 3000 * 2
