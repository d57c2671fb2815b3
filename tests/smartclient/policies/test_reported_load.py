"""Shares by reported load; reports are renewed every half second, the clock begins at 100."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from smartclient.endpoint import Endpoint
from smartclient.errors import BadOption
from smartclient.load import LoadReport
from smartclient.policies.reported_load import BLACKOUT, EXPIRY, ReportedLoad, ReportedLoadPicker
from smartclient.policy import ANY
from smartclient.testing import endpoints

Figures = tuple[float, float]  # requests per second, utilization


class World:
    """A picker and nodes that keep reporting the same."""

    def __init__(self, figures: Sequence[Figures | None], weights: Sequence[int] = (), **options: float) -> None:
        self.now = 100.0
        self.endpoints = endpoints(list(weights) or len(figures))
        self.figures = dict(zip(self.endpoints, figures, strict=True))
        self.policy = ReportedLoad(**options)
        self.picker = self.build()

    def build(self) -> ReportedLoadPicker:
        return self.policy.build(self.endpoints, random.Random(1))

    def go(self, seconds: float, each: Callable[[Endpoint], None] = lambda _: None) -> Counter[str]:
        """Let time pass; what was picked, ten times every half second."""
        names: Counter[str] = Counter()
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            for endpoint, figures in self.figures.items():
                if figures:
                    endpoint.heard(LoadReport(at=self.now, rps=figures[0], utilization=figures[1]))
            for _ in range(10):
                endpoint = self.picker.pick(ANY, self.now)
                each(endpoint)
                names[endpoint.name] += 1
        return names


def share(names: Counter[str], number: int) -> float:
    return names[f"digits-{number}"] / names.total()


def test_who_does_more_for_the_same_busy_share_gets_more() -> None:
    world = World([(100.0, 0.5), (100.0, 0.25), (50.0, 0.5)])  # 200, 400, 100
    world.go(BLACKOUT + 1)
    names = world.go(100)
    assert [share(names, number) for number in (1, 2, 3)] == pytest.approx([2 / 7, 4 / 7, 1 / 7], abs=0.01)


def test_until_the_blackout_is_over_the_rotation_goes_by_the_registrys_weights() -> None:
    world = World([(100.0, 0.5), (100.0, 0.25)], weights=[1, 4])
    names = world.go(BLACKOUT - 1)
    assert share(names, 2) == pytest.approx(0.8, abs=0.02)


def test_who_says_nothing_gets_the_mean_of_the_others() -> None:
    world = World([(100.0, 0.5), (300.0, 0.5), None])  # 200, 600
    world.go(BLACKOUT + 1)
    assert share(world.go(100), 3) == pytest.approx(1 / 3, abs=0.01)


def test_with_one_known_weight_there_is_nothing_to_weigh() -> None:
    world = World([(100.0, 0.5), None, None])
    world.go(BLACKOUT + 1)
    assert set(world.go(30).values()) == {200}


def test_failed_attempts_count_as_work() -> None:
    def fail(endpoint: Endpoint) -> None:
        if endpoint.name == "digits-1":
            endpoint.failed += 1
        else:
            endpoint.ok += 1

    world = World([(100.0, 0.5), (100.0, 0.5)])
    world.go(BLACKOUT + 1, fail)
    assert share(world.go(100, fail), 1) == pytest.approx(0.25, abs=0.01), "100 / (0.5 + 1.0) against 100 / 0.5"
    mild = World([(100.0, 0.5), (100.0, 0.5)], penalty=0.0)
    mild.go(BLACKOUT + 1, fail)
    assert share(mild.go(100, fail), 1) == pytest.approx(0.5, abs=0.01)


def test_an_old_report_counts_no_more_and_what_comes_after_it_begins_anew() -> None:
    world = World([(100.0, 0.5), (100.0, 0.25), (100.0, 0.5)])
    world.go(BLACKOUT + 1)
    fast = world.endpoints[1]
    world.figures[fast] = None
    assert share(world.go(20), 2) == pytest.approx(0.5, abs=0.02), "still what it said last"
    world.go(EXPIRY)
    assert share(world.go(20), 2) == pytest.approx(1 / 3, abs=0.02)
    world.figures[fast] = (100.0, 0.25)
    assert share(world.go(BLACKOUT - 1), 2) == pytest.approx(1 / 3, abs=0.03)
    world.go(2)
    assert share(world.go(20), 2) == pytest.approx(0.5, abs=0.02)


def test_what_was_reported_outlives_a_change_of_the_list() -> None:
    world = World([(100.0, 0.5), (100.0, 0.25), (50.0, 0.5)])
    world.go(BLACKOUT + 1)
    world.picker = world.build()
    assert share(world.go(10), 2) == pytest.approx(4 / 7, abs=0.03)


def test_weights_are_renewed_once_a_second() -> None:
    world = World([(100.0, 0.5), (100.0, 0.5)])
    world.go(BLACKOUT + 1)
    world.endpoints[0].heard(LoadReport(at=world.now, rps=900.0, utilization=0.1))
    soon = Counter(world.picker.pick(ANY, world.now + 0.4).name for _ in range(100))
    later = Counter(world.picker.pick(ANY, world.now + 0.6).name for _ in range(100))
    assert share(soon, 1) == 0.5
    assert share(later, 1) > 0.9


def test_a_penalty_below_zero_is_refused() -> None:
    with pytest.raises(BadOption, match="penalty="):
        ReportedLoad(penalty=-1.0)
