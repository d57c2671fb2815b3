"""Zone preference; a is the client's own zone."""

import random
from collections.abc import Sequence

import pytest

from registry.testing import instance
from smartclient.breaker import EjectionRule, Reach
from smartclient.endpoint import Endpoint
from smartclient.errors import BadOption, NoEndpoints
from smartclient.load import LoadReport
from smartclient.policies.probed import Probed
from smartclient.policies.rotation import Rotation
from smartclient.policies.zone import STANDS, Zone, ZonePicker
from smartclient.policy import ANY, PickInfo


def fleet(zones: str, weights: Sequence[int] = ()) -> list[Endpoint]:
    given = weights or [1] * len(zones)
    return [
        Endpoint(instance(n, zone=zone, weight=given[n], meta={"load": "/load"}), EjectionRule())
        for n, zone in enumerate(zones)
    ]


def local_share(picker: ZonePicker, info: PickInfo = ANY, now: float = 0.0, picks: int = 1000) -> float:
    return sum(picker.pick(info, now).instance.zone == "a" for _ in range(picks)) / picks


def build(everybody: Sequence[Endpoint], **options: float) -> ZonePicker:
    return Zone(Rotation, zone="a", **options).build(everybody, random.Random(1))


def test_all_stays_in_the_zone_while_all_is_well() -> None:
    assert local_share(build(fleet("aabbcc"))) == 1.0
    assert local_share(build(fleet("abbbbbbbb"))) == 1.0, "few nodes for few clients, as far as anybody knows"


def test_what_the_zone_lost_spills_over() -> None:
    everybody = fleet("aaabbbccc")
    everybody[0].breaker.eject(0.0, random.Random(1))
    share = (2 / 8) / (3 / 9)
    assert local_share(build(everybody)) == pytest.approx(share, abs=0.002)


def test_capacity_is_counted_by_weight() -> None:
    everybody = fleet("aaabbb", [4, 1, 1, 2, 2, 2])
    everybody[0].breaker.eject(0.0, random.Random(1))
    assert local_share(build(everybody)) == pytest.approx((2 / 8) / (6 / 12), abs=0.002)


def test_what_is_lost_elsewhere_makes_nobody_leave() -> None:
    everybody = fleet("aaabbb")
    everybody[5].breaker.eject(0.0, random.Random(1))
    assert local_share(build(everybody)) == 1.0


def test_where_more_of_the_clients_than_of_the_nodes_are_in_the_zone_the_rest_spills_over() -> None:
    assert local_share(build(fleet("aabbbb"), clients=0.5)) == pytest.approx((2 / 6) / 0.5, abs=0.002)


def test_a_zone_that_is_out_leaves_all_to_the_others_and_has_it_back_at_once() -> None:
    everybody = fleet("aabbbb")
    for endpoint in everybody[:2]:
        endpoint.breaker.cool(5.0, 0.0)
    picker = build(everybody)
    assert local_share(picker) == 0.0
    assert local_share(picker, now=5.0 + STANDS) >= 0.999


def test_one_call_that_has_tried_all_of_the_zone_goes_elsewhere() -> None:
    everybody = fleet("aabbbb")
    picker = build(everybody)
    assert local_share(picker, PickInfo(exclude=everybody[:2]), picks=10) == 0.0
    assert local_share(picker) == 1.0


def test_spilt_calls_take_turns_with_local_ones() -> None:
    everybody = fleet("aabbbb")
    picker = build(everybody, clients=2 / 3)
    zones = [picker.pick(ANY, 0.0).instance.zone for _ in range(100)]
    assert {(one, other) for one, other in zip(zones[::2], zones[1::2], strict=True)} in ({("a", "b")}, {("b", "a")})


@pytest.mark.parametrize(("zones", "reach"), [("aabbb", Reach.WELL), ("aabbbb", Reach.EJECTED), ("bbbbbb", Reach.WELL)])
def test_zones_play_no_part_with_few_nodes_or_in_panic_or_without_any_here(zones: str, reach: Reach) -> None:
    expected = zones.count("a") / len(zones)
    assert local_share(build(fleet(zones)), PickInfo(reach=reach), picks=900) == pytest.approx(expected, abs=0.002)


def test_asked_are_those_of_the_zone_and_one_of_them_is_taken_even_if_the_turn_has_passed() -> None:
    everybody = fleet("aaabbb")
    picker = Zone(Probed, zone="a", clients=1.0).build(everybody, random.Random(1))
    for _ in range(20):
        candidates = picker.candidates(ANY, 0.0)
        assert len({endpoint.instance.zone for endpoint in candidates}) == 1
        for endpoint in candidates:
            endpoint.heard(LoadReport(at=0.0, wait=0.1, in_flight=1.0))
        picker.pick(ANY, 0.0)
        assert picker.pick(PickInfo(among=candidates), 0.0) in candidates


def test_nobody_at_all_is_an_error() -> None:
    everybody = fleet("aabbbb")
    with pytest.raises(NoEndpoints):
        build(everybody).pick(PickInfo(exclude=everybody), 0.0)


def test_the_score_is_that_of_the_policy_it_wraps() -> None:
    everybody = fleet("aabbbb")
    everybody[0].latency.observe(0.2, 0.0)
    picker = Zone(zone="a").build(everybody, random.Random(1))
    assert picker.score(everybody[0], 0.0) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("options", "match"),
    [({}, "zone"), ({"zone": "a", "clients": 0.0}, "clients="), ({"zone": "a", "clients": 1.5}, "clients=")],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(BadOption, match=match):
        Zone(**options)
