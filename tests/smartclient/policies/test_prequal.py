"""The hot and the cold; times in seconds, the clock at 100."""

import random
from collections.abc import Sequence

import pytest

from registry.testing import instance
from smartclient.breaker import EjectionRule
from smartclient.endpoint import Endpoint, Lease
from smartclient.errors import BadOption
from smartclient.load import LoadReport
from smartclient.policies.pool import OLDEST, POOL, Pool, Recent
from smartclient.policies.prequal import LATELY, Prequal
from smartclient.policy import ANY, PickInfo
from smartclient.stats import Outcome

NOW = 100.0


def fleet(count: int) -> list[Endpoint]:
    everybody = [Endpoint(instance(n + 1, meta={"load": "/load"}), EjectionRule()) for n in range(count)]
    for endpoint in everybody:
        endpoint.latency.observe(0.1, NOW)
        endpoint.probe_latency.observe(0.001, NOW)
    return everybody


def say(endpoint: Endpoint, wait: float, inside: float, at: float = NOW) -> None:
    endpoint.heard(LoadReport(at=at, wait=wait, in_flight=inside, utilization=0.5, rps=5.0))


def pick(endpoints: Sequence[Endpoint], **options: float) -> Endpoint:
    return Prequal(**options).build(endpoints, random.Random(1)).pick(PickInfo(among=endpoints), NOW)


def test_the_quickest_of_the_cold_is_taken_even_if_it_has_more_inside() -> None:
    everybody = fleet(4)
    for endpoint, wait, inside in zip(everybody, (0.3, 0.1, 0.2, 0.0), (1, 2, 1, 9), strict=True):
        say(endpoint, wait, inside)
    assert pick(everybody, quantile=0.6) is everybody[1], "the fourth would be quicker but is hot"


def test_when_all_are_hot_the_one_with_the_fewest_inside_is_taken() -> None:
    everybody = fleet(3)
    policy = Prequal(quantile=0.0)
    picker = policy.build(everybody, random.Random(1))
    for inside in (1.0, 1.0):
        say(everybody[0], 0.0, inside)
        picker.pick(PickInfo(among=everybody[:1]), NOW)
    for endpoint, wait, inside in zip(everybody, (0.5, 0.4, 0.3), (4, 3, 5), strict=True):
        say(endpoint, wait, inside)
    assert picker.pick(PickInfo(among=everybody), NOW) is everybody[1]


def test_what_was_sent_since_counts_as_inside_and_in_time() -> None:
    one, other = fleet(2)
    say(one, 0.0, 0)
    say(other, 0.05, 1)
    assert pick([one, other], quantile=1.0) is one
    Lease(one, NOW, lambda *_: None)
    Lease(one, NOW, lambda *_: None)
    assert pick([one, other], quantile=1.0) is other


def test_with_fewer_than_two_reports_chance_decides() -> None:
    everybody = fleet(3)
    picker = Prequal().build(everybody, random.Random(1))
    say(everybody[0], 0.0, 0)
    assert len({picker.pick(PickInfo(among=everybody[:1]), NOW) for _ in range(30)}) == 3


def test_old_reports_are_no_use() -> None:
    everybody = fleet(2)
    for endpoint, wait in zip(everybody, (0.0, 9.0), strict=True):
        say(endpoint, wait, 1.0, at=NOW - OLDEST * 1.1)
    picker = Prequal().build(everybody, random.Random(1))
    assert len({picker.pick(PickInfo(among=everybody), NOW) for _ in range(30)}) == 2


def test_reports_that_come_with_answers_are_found_without_asking() -> None:
    everybody = fleet(2)
    picker = Prequal(ask=0).build(everybody, random.Random(1))
    for _ in range(10):
        lease = Lease(picker.pick(ANY, NOW), NOW, lambda *_: None)
        lease.endpoint.heard(LoadReport(at=NOW, wait=0.5 if lease.endpoint is everybody[0] else 0.0, in_flight=1.0))
    assert {picker.pick(ANY, NOW) for _ in range(20)} == {everybody[1]}


def test_asked_are_only_those_not_heard_from_lately() -> None:
    everybody = fleet(6)
    picker = Prequal().build(everybody, random.Random(1))
    assert 1 <= len(picker.candidates(ANY, NOW)) <= 3
    for endpoint in everybody:
        say(endpoint, 0.0, 0.0)
    assert not picker.candidates(ANY, NOW + 0.9 * LATELY * 0.1)
    assert picker.candidates(ANY, NOW + 1.2 * LATELY * 0.1)


def test_nobody_is_asked_who_cannot_answer() -> None:
    everybody = [Endpoint(instance(n), EjectionRule()) for n in range(3)]
    assert not Prequal().build(everybody, random.Random(1)).candidates(ANY, NOW)


def test_the_score_is_when_an_answer_would_come_and_none_where_nothing_was_said() -> None:
    one, other = fleet(2)
    say(one, 0.3, 3.0)
    picker = Prequal().build([one, other], random.Random(1))
    assert picker.score(one, NOW) == pytest.approx(0.4)
    assert picker.score(other, NOW) is None


def test_a_pool_holds_a_few_those_heard_from_last() -> None:
    pool, everybody = Pool(), fleet(POOL + 4)
    for endpoint in everybody:
        say(endpoint, 0.0, 0.0)
        assert pool.add(endpoint)
        assert not pool.add(endpoint), "nothing new"
    assert pool.fresh(NOW) == everybody[4:]
    say(everybody[4], 0.0, 0.0, at=NOW + 0.1)
    pool.add(everybody[4])
    assert pool.fresh(NOW) == [*everybody[5:], everybody[4]]


def test_a_pool_waits_for_those_picked_until_they_have_answered() -> None:
    pool, (endpoint, other) = Pool(), fleet(2)
    lease = Lease(endpoint, NOW, lambda *_: None)
    pool.awaited.append(endpoint)
    pool.look()
    assert list(pool.awaited) == [endpoint]
    say(endpoint, 0.0, 0.0)
    pool.look()
    assert not pool.awaited
    assert pool.fresh(NOW) == [endpoint]
    lease.release(Outcome.OK)
    pool.awaited.append(other)
    pool.look()
    assert not pool.awaited, "nothing is under way there, so nothing will come"


def test_a_pool_forgets_who_left_the_list() -> None:
    pool, (stays, leaves) = Pool(), fleet(2)
    for endpoint in (stays, leaves):
        say(endpoint, 0.0, 0.0)
        pool.add(endpoint)
        pool.awaited.append(endpoint)
    pool.keep([stays])
    assert pool.fresh(NOW) == [stays]
    assert list(pool.awaited) == [stays]


def test_a_quantile_is_of_the_last_values() -> None:
    recent = Recent()
    assert recent.quantile(0.5) == float("inf")
    for value in range(1000):
        recent.add(float(value))
    assert recent.quantile(0.0) == 1000 - 128
    assert recent.quantile(0.5) == 1000 - 64
    assert recent.quantile(1.0) == 999


@pytest.mark.parametrize("options", [{"quantile": 1.1}, {"ask": -1}])
def test_options_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(BadOption, match=f"{next(iter(options))}="):
        Prequal(**options)
