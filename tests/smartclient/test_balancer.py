import random
from collections import Counter

import pytest

from registry.model import Health, Instance, Snapshot
from registry.testing import ManualClock, instance
from smartclient.balancer import REMEMBER, Balancer
from smartclient.errors import NoEndpoints, ServiceUnknown
from smartclient.policies.rotation import Rotation
from smartclient.policy import PickInfo
from smartclient.stats import Outcome


def snapshot(*instances: Instance) -> Snapshot:
    return Snapshot(service="digits", index=1, instances=instances, fetched_at=0.0, source="scripted://")


class Fleet:
    """A balancer over instances 1…count, driven by hand."""

    def __init__(self, clock: ManualClock, count: int) -> None:
        self.clock = clock
        self.balancer = Balancer(Rotation(), service="digits", source="scripted://", clock=clock, rng=random.Random(3))
        self.instances = [instance(number + 1) for number in range(count)]
        self.balancer.update(snapshot(*self.instances))

    def picks(self, count: int, outcome: Outcome = Outcome.OK) -> Counter[str]:
        names: Counter[str] = Counter()
        for _ in range(count):
            lease = self.balancer.pick()
            names[lease.endpoint.name] += 1
            lease.release(outcome)
        return names

    def break_(self, *names: str, outcome: Outcome = Outcome.CONNECT_ERROR, rounds: int = 40) -> None:
        """Use the fleet while the named ones fail."""
        for _ in range(rounds):
            lease = self.balancer.pick()
            lease.release(outcome if lease.endpoint.name in names else Outcome.OK, 2.0)

    def state(self) -> dict[str, str]:
        return {each["id"]: each["state"] for each in self.balancer.snapshot()["endpoints"]}


@pytest.fixture
def three(clock: ManualClock) -> Fleet:
    return Fleet(clock, 3)


def test_sixty_picks_over_three_nodes_are_twenty_each(three: Fleet) -> None:
    assert three.picks(60) == {"digits-1": 20, "digits-2": 20, "digits-3": 20}


def test_a_dead_node_gets_three_attempts_and_is_left_out(three: Fleet) -> None:
    three.break_("digits-2", rounds=300)
    shown = {each["id"]: each for each in three.balancer.snapshot()["endpoints"]}
    assert shown["digits-2"]["picked"] == 3
    assert shown["digits-2"]["state"] == "ejected"


async def test_one_probe_brings_it_back(three: Fleet) -> None:
    three.break_("digits-2")
    await three.clock.advance(31.0)
    first = [three.balancer.pick() for _ in range(9)]
    assert Counter(lease.endpoint.name for lease in first)["digits-2"] == 1
    for lease in first:
        lease.release(Outcome.OK)
    await three.clock.advance(10.0)  # it begins slowly
    assert three.picks(60)["digits-2"] in (20, 21)


def test_no_more_than_half_are_ejected(clock: ManualClock) -> None:
    fleet = Fleet(clock, 7)
    fleet.break_(*(f"digits-{number}" for number in range(1, 7)), rounds=500)
    assert Counter(fleet.state().values())["ejected"] == 3


def test_a_lone_node_may_be_ejected_and_is_used_all_the_same(clock: ManualClock) -> None:
    fleet = Fleet(clock, 1)
    fleet.break_("digits-1", rounds=3)
    assert fleet.state() == {"digits-1": "ejected"}
    assert fleet.picks(1) == {"digits-1": 1}
    assert fleet.balancer.panics == 1
    assert fleet.state() == {"digits-1": "closed"}, "its answer shows that it is back"


def test_panic_uses_those_that_cool_down_when_most_do(three: Fleet) -> None:
    three.break_("digits-1", outcome=Outcome.OVERLOADED, rounds=3)
    assert set(three.picks(30)) == {"digits-2", "digits-3"}
    three.break_("digits-2", outcome=Outcome.OVERLOADED, rounds=2)
    assert set(three.picks(30)) == {"digits-1", "digits-2", "digits-3"}


def test_panic_over_overload_leaves_the_dead_out(three: Fleet) -> None:
    three.break_("digits-1", rounds=20)
    three.break_("digits-2", outcome=Outcome.OVERLOADED, rounds=2)
    assert set(three.picks(30)) == {"digits-2", "digits-3"}


async def test_a_cool_down_ends_by_itself(three: Fleet) -> None:
    three.break_("digits-1", outcome=Outcome.OVERLOADED, rounds=3)
    await three.clock.advance(2.0)
    assert three.picks(60)["digits-1"] in (20, 21)


def test_a_retry_goes_to_a_node_not_tried_even_an_ejected_one(three: Fleet) -> None:
    three.break_("digits-1")
    tried = []
    for expected in ({"digits-2", "digits-3"}, {"digits-2", "digits-3"}, {"digits-1"}):
        lease = three.balancer.pick(PickInfo(exclude=tried))
        assert lease.endpoint.name in expected
        assert lease.endpoint not in tried
        tried.append(lease.endpoint)
    assert three.balancer.pick(PickInfo(exclude=tried)).endpoint.name != "digits-1", "then the well ones again"


def test_pushback_tells_whether_another_node_may_be_asked_now(three: Fleet) -> None:
    lease = three.balancer.pick()
    assert three.balancer.pushback([lease.endpoint]) is None
    lease.release(Outcome.OVERLOADED, 5.0)
    assert three.balancer.pushback([lease.endpoint]) is None
    tried = [lease.endpoint]
    for wait in (3.0, 4.0):
        lease = three.balancer.pick(PickInfo(exclude=tried))
        tried.append(lease.endpoint)
        lease.release(Outcome.OVERLOADED, wait)
    assert three.balancer.pushback(tried) == 3.0
    assert three.balancer.pushback(tried[:1]) == 3.0, "untried ones that asked for quiet are not asked at once"


def test_retry_after_zero_still_leaves_the_node_alone_for_a_moment(three: Fleet) -> None:
    lease = three.balancer.pick()
    lease.release(Outcome.OVERLOADED, 0.0)
    assert lease.endpoint.name not in three.picks(20)


def test_an_unchanged_instance_keeps_its_record_and_the_rest_is_new(three: Fleet) -> None:
    three.picks(30)
    three.balancer.update(snapshot(instance(1), instance(2, address="10.0.0.2"), instance(4)))
    picked = {each["endpoint"]: each["picked"] for each in three.balancer.snapshot()["endpoints"]}
    assert picked == {"127.0.0.1:9001": 10, "10.0.0.2:9002": 0, "127.0.0.1:9004": 0}


async def test_a_flap_keeps_the_record_and_is_probed_at_once(three: Fleet) -> None:
    three.break_("digits-2")
    three.balancer.update(snapshot(instance(1), instance(3)))
    await three.clock.advance(5.0)
    three.balancer.update(snapshot(*three.instances))
    assert three.state()["digits-2"] == "probation"
    assert {each["id"]: each["failed"] for each in three.balancer.snapshot()["endpoints"]}["digits-2"] == 3


async def test_after_some_minutes_away_it_is_a_new_one(three: Fleet) -> None:
    three.break_("digits-2")
    three.balancer.update(snapshot(instance(1), instance(3)))
    await three.clock.advance(REMEMBER + 1)
    three.balancer.update(snapshot(instance(1), instance(3)))
    three.balancer.update(snapshot(*three.instances))
    assert three.state()["digits-2"] == "closed"


def test_what_is_in_flight_to_a_node_that_left_ends_in_peace(three: Fleet) -> None:
    leases = [three.balancer.pick() for _ in range(3)]
    three.balancer.update(snapshot(instance(1)))
    for lease in leases:
        lease.release(Outcome.RESET)
    assert three.picks(5) == {"digits-1": 5}


def test_a_new_weight_is_taken_over(three: Fleet) -> None:
    three.balancer.update(snapshot(instance(1, weight=4), instance(2), instance(3)))
    assert three.picks(60) == {"digits-1": 40, "digits-2": 10, "digits-3": 10}


async def test_draining_and_critical_ones_get_nothing_and_warning_ones_their_weight(three: Fleet) -> None:
    three.balancer.update(
        snapshot(
            instance(1, health=Health.DRAINING),
            instance(2, health=Health.CRITICAL),
            instance(3, weight=3),
            instance(4, health=Health.WARNING, weight=1),
        )
    )
    await three.clock.advance(10.0)  # a new one begins slowly
    assert three.picks(40) == {"digits-3": 30, "digits-4": 10}


def test_when_all_are_critical_they_are_used_for_want_of_better(three: Fleet) -> None:
    three.balancer.update(
        snapshot(*(instance(number, health=Health.CRITICAL) for number in (1, 2)), instance(3, health=Health.DRAINING))
    )
    assert three.picks(10) == {"digits-1": 5, "digits-2": 5}


def test_an_unknown_service_is_told_with_the_registry_and_the_next_step(three: Fleet) -> None:
    three.balancer.update(snapshot())
    with pytest.raises(ServiceUnknown, match=r"no instance of 'digits' is registered at scripted://; .*twostep node"):
        three.balancer.pick()
    with pytest.raises(ServiceUnknown):
        three.balancer.ensure_any()


def test_a_service_that_only_drains_is_told_with_what_was_seen(three: Fleet) -> None:
    three.balancer.update(snapshot(*(instance(number, health=Health.DRAINING) for number in (1, 2))))
    with pytest.raises(NoEndpoints, match=r"seen: 2 draining.*twostep lookup digits --all") as caught:
        three.balancer.pick()
    assert not isinstance(caught.value, ServiceUnknown)
