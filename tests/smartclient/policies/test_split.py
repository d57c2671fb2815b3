import random
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from registry.testing import instance
from smartclient.breaker import EjectionRule
from smartclient.endpoint import Endpoint
from smartclient.errors import BadOption, NoEndpoints
from smartclient.load import LoadReport
from smartclient.policies.probed import Probed
from smartclient.policies.rotation import Rotation
from smartclient.policies.split import Split, SplitPicker
from smartclient.policy import ANY, PickInfo

SHARES = {"stable": 95, "canary": 5}
KEYS = [f"user {number}" for number in range(4000)]


def fleet(*versions: str) -> list[Endpoint]:
    return [
        Endpoint(instance(n, version=version, meta={"load": "/load"}), EjectionRule())
        for n, version in enumerate(versions)
    ]


def build(everybody: Sequence[Endpoint], shares: Mapping[str, float] = SHARES, seed: int = 1) -> SplitPicker:
    return Split(Rotation, versions=shares).build(everybody, random.Random(seed))


def versions(picker: SplitPicker, picks: int, info: PickInfo = ANY) -> Counter[str]:
    return Counter(picker.pick(info, 0.0).instance.version for _ in range(picks))


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_exact_whatever_the_number_of_nodes(seed: int) -> None:
    picker = build(fleet("stable", "canary", "canary", "canary"), seed=seed)
    assert abs(versions(picker, 2000)["canary"] - 100) <= 1


def test_shares_are_in_any_unit_and_of_any_number_of_versions() -> None:
    picker = build(fleet("1", "2", "3"), {"1": 0.5, "2": 0.25, "3": 0.25})
    picked = versions(picker, 400)
    assert [picked["1"], picked["2"], picked["3"]] == pytest.approx([200, 100, 100], abs=1)


def test_a_client_that_makes_one_call_may_meet_the_canary() -> None:
    everybody = fleet("stable", "canary")
    first = Counter(build(everybody, seed=seed).pick(ANY, 0.0).instance.version for seed in range(2000))
    assert 60 <= first["canary"] <= 140


def test_the_nodes_of_a_version_take_turns() -> None:
    picker = build(fleet("stable", "stable", "canary"), {"stable": 1, "canary": 1})
    picked = Counter(picker.pick(ANY, 0.0).name for _ in range(400))
    assert [picked[f"digits-{number}"] for number in range(3)] == pytest.approx([100, 100, 200], abs=1)


def test_a_key_keeps_to_its_version_and_the_shares_are_those_of_the_keys() -> None:
    picker, again = build(fleet("stable", "canary")), build(fleet("stable", "canary"), seed=2)
    of = {key: picker.pick(PickInfo(key=key), 0.0).instance.version for key in KEYS}
    assert of == {key: again.pick(PickInfo(key=key), 0.0).instance.version for key in KEYS}
    assert Counter(of.values())["canary"] / len(KEYS) == pytest.approx(0.05, abs=0.015)


def test_a_larger_share_takes_keys_and_gives_none() -> None:
    few, more = build(fleet("stable", "canary")), build(fleet("stable", "canary"), {"stable": 80, "canary": 20})
    for key in KEYS:
        if few.pick(PickInfo(key=key), 0.0).instance.version == "canary":
            assert more.pick(PickInfo(key=key), 0.0).instance.version == "canary"


@pytest.mark.parametrize("key", ["", "user 1"])
def test_a_version_that_has_nobody_leaves_its_calls_to_the_others(key: str) -> None:
    everybody = fleet("stable", "stable", "canary")
    picker = build(everybody)
    for endpoint in everybody[:2]:
        endpoint.breaker.eject(0.0, random.Random(1))
    assert set(versions(picker, 100, PickInfo(key=key))) == {"canary"}


def test_it_takes_up_its_share_again_without_a_burst() -> None:
    everybody = fleet("stable", "canary")
    picker = build(everybody, {"stable": 1, "canary": 1})
    assert set(versions(picker, 500, PickInfo(exclude=everybody[:1]))) == {"canary"}
    assert abs(versions(picker, 20)["stable"] - 10) <= 1


def test_versions_that_are_not_listed_get_nothing_while_a_listed_one_has_anybody() -> None:
    everybody = fleet("stable", "canary", "other", "")
    picker = build(everybody)
    assert set(versions(picker, 200)) == {"stable", "canary"}
    assert set(versions(picker, 20, PickInfo(exclude=everybody[:2]))) == {"other", ""}
    assert set(versions(build(fleet("other", "")), 20)) == {"other", ""}


def test_a_share_of_zero_is_no_share() -> None:
    assert set(versions(build(fleet("stable", "canary"), {"stable": 1, "canary": 0}), 50)) == {"stable"}


def test_turns_go_on_over_a_change_of_the_list() -> None:
    policy, everybody, rng = (
        Split(Rotation, versions={"stable": 3, "canary": 1}),
        fleet("stable", "canary"),
        random.Random(1),
    )
    picked = Counter(policy.build(everybody, rng).pick(ANY, 0.0).instance.version for _ in range(100))
    assert abs(picked["canary"] - 25) <= 1


def test_asked_are_those_of_one_version_and_one_of_them_is_taken() -> None:
    everybody = fleet("stable", "stable", "stable", "canary", "canary")
    picker = Split(Probed, versions={"stable": 1, "canary": 1}).build(everybody, random.Random(1))
    counts: Counter[str] = Counter()
    for _ in range(50):
        waiting = [picker.candidates(ANY, 0.0), picker.candidates(ANY, 0.0)]  # two calls at once
        for candidates in waiting:
            assert len({endpoint.instance.version for endpoint in candidates}) == 1
            for endpoint in candidates:
                endpoint.heard(LoadReport(at=0.0, wait=0.1, in_flight=1.0))
        for candidates in waiting:
            picked = picker.pick(PickInfo(among=candidates), 0.0)
            assert picked in candidates
            counts[picked.instance.version] += 1
    assert abs(counts["stable"] - 50) <= 2


def test_nobody_at_all_is_an_error() -> None:
    everybody = fleet("stable", "canary", "other")
    with pytest.raises(NoEndpoints):
        build(everybody).pick(PickInfo(exclude=everybody), 0.0)


@pytest.mark.parametrize("shares", [{}, {"stable": 0}, {"stable": 1, "canary": -1}])
def test_shares_that_make_no_sense_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(BadOption, match="split"):
        Split(versions=shares)
