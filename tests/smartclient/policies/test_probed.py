"""Asking some nodes and choosing among them; times in seconds, the clock at 100."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from registry.testing import instance
from smartclient.breaker import EjectionRule
from smartclient.endpoint import Endpoint, Lease
from smartclient.errors import BadOption
from smartclient.load import LoadReport
from smartclient.policies.probed import FRESH, Probed
from smartclient.policy import ANY, PickInfo

NOW = 100.0


def fleet(count: int, load: str = "/load", probe: float = 0.001) -> list[Endpoint]:
    """Nodes that answer in 100 ms, and in 1 ms when asked for their load."""
    everybody = [Endpoint(instance(n + 1, meta={"load": load}), EjectionRule()) for n in range(count)]
    for endpoint in everybody:
        for _ in range(3):
            endpoint.latency.observe(0.1, NOW)
            endpoint.probe_latency.observe(probe, NOW)
    return everybody


def say(
    endpoint: Endpoint, wait: float | None, *, inside: float | None = None, service: float = 0.1, at: float = NOW
) -> None:
    endpoint.heard(LoadReport(at=at, wait=wait, in_flight=inside, utilization=0.5, rps=0.5 / service))


def chosen(endpoints: Sequence[Endpoint], among: Sequence[Endpoint], picks: int = 20, **options: float) -> Counter[str]:
    """Who is picked out of ``among``, wherever the rotation stands."""
    names: Counter[str] = Counter()
    picker = Probed(**options).build(endpoints, random.Random(1))
    for _ in range(picks):
        names[picker.pick(PickInfo(among=among), NOW).name] += 1
    return names


def test_asked_are_the_rotations_next_and_different_others() -> None:
    picker = Probed(ask=3).build(fleet(6), random.Random(1))
    others = set()
    for _ in range(30):
        first, *rest = picker.candidates(ANY, NOW)
        assert len({first, *rest}) == 3
        assert picker.pick(ANY, NOW) is first, "nobody answered, so the rotation's next stands among equals"
        others |= set(rest)
    assert len(others) == 6


def test_fewer_are_asked_where_there_are_fewer() -> None:
    assert len(Probed(ask=4).build(fleet(3), random.Random(1)).candidates(ANY, NOW)) == 3


def test_one_alone_is_not_asked() -> None:
    assert not Probed().build(fleet(1), random.Random(1)).candidates(ANY, NOW)


def test_nobody_is_asked_who_cannot_answer() -> None:
    assert not Probed().build(fleet(6, load=""), random.Random(1)).candidates(ANY, NOW)


def test_asking_stops_where_answers_take_hardly_longer_than_probes() -> None:
    everybody = fleet(6, probe=0.02)
    assert not Probed().build(everybody, random.Random(1)).candidates(ANY, NOW)


def test_nobody_is_asked_while_all_reports_are_fresh_and_they_decide() -> None:
    everybody = fleet(3)
    for endpoint, wait in zip(everybody, (0.5, 0.0, 0.5), strict=True):
        say(endpoint, wait)
    picker = Probed().build(everybody, random.Random(1))
    later = NOW + 0.9 * FRESH * 0.1
    for _ in range(9):
        assert not picker.candidates(ANY, later)
        assert picker.pick(ANY, later) is everybody[1]
    assert picker.candidates(ANY, NOW + 1.2 * FRESH * 0.1)


def test_the_rotation_stands_while_nobody_is_clearly_better() -> None:
    everybody = fleet(4)
    for endpoint, wait in zip(everybody, (0.000, 0.002, 0.004, 0.006), strict=True):
        say(endpoint, wait)
    names: Counter[str] = Counter()
    picker = Probed().build(everybody, random.Random(1))
    for _ in range(40):
        names[picker.pick(PickInfo(among=everybody), NOW).name] += 1
    assert set(names.values()) == {10}


def test_the_shortest_wait_of_equals_wins() -> None:
    everybody = fleet(4)
    for endpoint, wait in zip(everybody, (0.3, 0.2, 0.05, 0.4), strict=True):
        say(endpoint, wait)
    assert chosen(everybody, everybody) == {"digits-3": 20}
    assert chosen(everybody, everybody[:2]) == {"digits-2": 20}, "only those that answered are looked at"


def test_a_busy_quick_node_may_be_better_than_an_idle_slow_one() -> None:
    slow, quick = fleet(2)
    say(slow, 0.0, service=1.0)
    say(quick, 0.5, service=0.1)
    assert chosen([slow, quick], [slow, quick]) == {"digits-2": 20}
    say(quick, 1.5, service=0.1)
    assert chosen([slow, quick], [slow, quick]) == {"digits-1": 20}


def test_what_was_sent_since_a_report_counts() -> None:
    one, other = fleet(2)
    say(one, 0.0)
    say(other, 0.05)
    assert set(chosen([one, other], [one, other], picks=1)) == {"digits-1"}
    Lease(one, NOW, lambda *_: None)
    assert set(chosen([one, other], [one, other], picks=2)) == {"digits-2"}


def test_where_the_wait_is_unsaid_what_is_inside_decides() -> None:
    one, other = fleet(2)
    say(one, None, inside=5.0)
    say(other, None, inside=1.0)
    assert chosen([one, other], [one, other]) == {"digits-2": 20}


def test_a_newcomers_time_is_stretched() -> None:
    new, old = fleet(2)
    say(new, 0.0)
    say(old, 0.1)
    new.start_slowly(NOW)
    assert chosen([new, old], [new, old]) == {"digits-2": 20}


def test_the_only_one_to_answer_is_taken_as_the_others_did_not() -> None:
    everybody = fleet(3)
    say(everybody[2], 0.5)
    assert chosen(everybody, everybody[2:]) == {"digits-3": 20}


def test_when_nobody_answers_what_the_client_saw_itself_decides() -> None:
    everybody = fleet(3)
    everybody[0].latency.observe(1.0, NOW)
    picker = Probed().build(everybody, random.Random(1))
    assert "digits-1" not in Counter(picker.pick(ANY, NOW).name for _ in range(30))


def test_the_score_is_when_an_answer_would_come_or_what_was_seen() -> None:
    one, other = fleet(2)
    say(one, 0.3, inside=3.0)
    picker = Probed().build([one, other], random.Random(1))
    assert picker.score(one, NOW) == pytest.approx(0.4)
    assert picker.score(other, NOW) == pytest.approx(0.1)


@pytest.mark.parametrize("options", [{"ask": 1}, {"margin": 1.0}, {"margin": -0.1}])
def test_options_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(BadOption, match=f"{next(iter(options))}="):
        Probed(**options)
