"""Newcomers and returners begin slowly; a list that is all new does not."""

import random

import pytest

from registry.model import Health, Snapshot
from registry.testing import ManualClock, instance
from smartclient.balancer import Balancer
from smartclient.endpoint import SlowStart
from smartclient.policies.rotation import Rotation
from smartclient.stats import Outcome


class World:
    def __init__(self, clock: ManualClock, **options: object) -> None:
        self.clock = clock
        self.balancer = Balancer(
            Rotation(), service="digits", source="scripted://", clock=clock, rng=random.Random(1), **options
        )

    def listed(self, *numbers: int, critical: tuple[int, ...] = ()) -> None:
        instances = tuple(
            instance(number, health=Health.CRITICAL if number in critical else Health.PASSING) for number in numbers
        )
        self.balancer.update(Snapshot(service="digits", index=1, instances=instances, fetched_at=0.0))

    @property
    def shares(self) -> list[float]:
        now = self.clock.monotonic()
        return [endpoint.share(now) for endpoint in self.balancer.endpoints]

    def picked(self, picks: int) -> dict[str, int]:
        before = {endpoint.name: endpoint.picked for endpoint in self.balancer.endpoints}
        for _ in range(picks):
            self.balancer.pick().release(Outcome.OK)
        return {each.name: each.picked - before[each.name] for each in self.balancer.endpoints}


@pytest.fixture
def world(clock: ManualClock) -> World:
    return World(clock)


async def test_a_whole_new_list_has_its_full_share_at_once(world: World) -> None:
    world.listed(1, 2, 3)
    assert world.shares == [1.0] * 3


async def test_a_node_that_joins_gets_a_tenth_and_all_ten_seconds_later(world: World, clock: ManualClock) -> None:
    world.listed(1, 2)
    world.listed(1, 2, 3)
    assert world.shares == [1.0, 1.0, 0.1]
    assert world.picked(210)["digits-3"] == pytest.approx(10, abs=1)
    await clock.advance(5.0)
    assert world.shares[2] == pytest.approx(0.5)
    assert world.picked(250)["digits-3"] == pytest.approx(50, abs=1)
    await clock.advance(5.0)
    assert world.shares == [1.0] * 3
    assert world.picked(300) == dict.fromkeys(("digits-1", "digits-2", "digits-3"), 100)


async def test_a_node_that_the_registry_lists_again_begins_slowly(world: World, clock: ManualClock) -> None:
    world.listed(1, 2, 3)
    world.listed(1, 2, 3, critical=(3,))
    await clock.advance(60.0)
    world.listed(1, 2, 3)
    assert world.shares == [1.0, 1.0, 0.1]


async def test_a_node_that_comes_back_from_ejection_begins_slowly(world: World, clock: ManualClock) -> None:
    world.listed(1, 2, 3)
    ill = next(iter(world.balancer.endpoints))
    while not ill.breaker.ejected:
        lease = world.balancer.pick()
        lease.release(Outcome.RESET if lease.endpoint is ill else Outcome.OK)
    await clock.advance(31.0)
    assert ill.share(clock.monotonic()) == 1.0
    while ill.breaker.ejected:
        world.balancer.pick().release(Outcome.OK)
    assert ill.share(clock.monotonic()) == 0.1


async def test_it_can_be_turned_off(clock: ManualClock) -> None:
    world = World(clock, slow_start=SlowStart(window=0.0))
    world.listed(1, 2)
    world.listed(1, 2, 3)
    assert world.shares == [1.0] * 3


def test_aggression_bends_the_ramp_as_envoys_does() -> None:
    assert SlowStart(window=10.0, aggression=2.0).share(2.5) == pytest.approx(0.5)
    assert SlowStart(window=10.0, floor=0.2).share(0.0) == 0.2
