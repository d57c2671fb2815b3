"""What may be drained, and in which words it is refused."""

import pytest

from registry.dashboard.guard import changed, fingerprint, judge, judge_undrain, steerable
from registry.dashboard.model import Member, Service
from registry.model import Health
from registry.testing import instance


def member(number, health=Health.PASSING, **meta):
    return Member(instance=instance(number, health=health, meta={"load": "/load"} | meta), since=0.0, joined=0.0)


def service(*members):
    return Service(name="digits", members=members)


def ten(draining=0, critical=0):
    healths = [Health.DRAINING] * draining + [Health.CRITICAL] * critical
    healths += [Health.PASSING] * (10 - len(healths))
    return service(*(member(number, health) for number, health in enumerate(healths)))


def test_a_small_share_with_a_reason_may_be_drained_and_the_effect_is_said():
    ruling = judge(ten(), ["digits-2", "digits-1", "digits-2"], reason="kernel update")
    assert ruling.allowed
    assert not ruling.needs_name
    assert ruling.ids == ("digits-2", "digits-1")
    assert ruling.effect == "leaves 8 of 10 passing"


def test_more_than_a_fifth_at_once_takes_the_name_of_the_service():
    three = ["digits-1", "digits-2", "digits-3"]
    ruling = judge(ten(), three, reason="rack", typed="digit")
    assert ruling.needs_name
    assert ruling.effect == "leaves 7 of 10 passing"
    assert ruling.refusal == (
        "3 of 10 would be draining at once, more than 20%: type the service's name, digits, to do it all the same"
    )
    confirmed = judge(ten(), three, reason="rack", typed=" digits ")
    assert confirmed.allowed
    assert confirmed.needs_name


def test_those_that_drain_already_count_towards_the_share_and_not_as_passing():
    ruling = judge(ten(draining=2), ["digits-5"], reason="rack")
    assert ruling.refusal.startswith("3 of 10 would be draining at once")
    assert ruling.effect == "leaves 7 of 10 passing"


def test_too_few_left_passing_takes_the_name_of_the_service():
    fleet = ten(critical=7)
    ruling = judge(fleet, ["digits-8"], reason="rack", floor=3)
    assert ruling.refusal.startswith("it would leave 2 of 10 passing, fewer than 3: type")
    assert judge(fleet, ["digits-8"], reason="rack", floor=2).allowed


def test_a_floor_that_is_broken_already_does_not_protect_what_does_not_pass():
    assert judge(ten(critical=10), ["digits-1"], reason="broken").allowed


def test_the_name_is_asked_for_before_there_is_a_reason():
    ruling = judge(ten(), [f"digits-{number}" for number in range(10)], reason="")
    assert ruling.needs_name
    assert ruling.refusal == "say why: a reason is required, others will read it"


@pytest.mark.parametrize("rule", [judge, judge_undrain])
def test_a_reason_is_required_and_bounded(rule):
    fleet, one = (ten(), "digits-1") if rule is judge else (ten(draining=1), "digits-0")
    assert rule(fleet, [one], reason=" \n").refusal.startswith("say why")
    assert rule(fleet, [one], reason="x" * 500).allowed
    assert rule(fleet, [one], reason="x" * 501).refusal == "the reason is 501 characters long: 500 at most"


@pytest.mark.parametrize("rule", [judge, judge_undrain])
def test_what_cannot_be_chosen_is_named(rule):
    assert rule(ten(), [], reason="x").refusal == "nothing is selected: choose the instances first"
    assert rule(ten(), ["digits-77"], reason="x").refusal == "digits-77 is no instance of digits any more: look again"
    several = rule(ten(), [f"gone-{number}" for number in range(5)], reason="x").refusal
    assert several == "gone-0, gone-1, gone-2 and 2 more are not in digits any more: look again"


def test_what_is_no_node_of_ours_cannot_be_drained():
    stranger = Member(instance=instance(11), since=0.0, joined=0.0)
    assert not steerable(stranger)
    assert steerable(member(1))
    ruling = judge(service(member(1), stranger), ["digits-11"], reason="x")
    assert ruling.refusal == "digits-11 cannot be drained from here: it is no Twostep node"


def test_what_drains_already_is_not_drained_again_and_what_does_not_is_not_called_back():
    assert judge(ten(draining=2), ["digits-0", "digits-1"], reason="x").refusal == (
        "digits-0, digits-1 are draining already"
    )
    assert judge_undrain(ten(draining=2), ["digits-0", "digits-9"], reason="x").refusal == "digits-9 is not draining"


def test_calling_back_has_no_floor():
    ruling = judge_undrain(ten(draining=10), [f"digits-{number}" for number in range(10)], reason="done")
    assert ruling.allowed
    assert not ruling.needs_name
    assert ruling.effect == "brings 10 of 10 back"


def test_hostile_ids_stay_on_one_line_and_short():
    refusal = judge(ten(), ["\x1b[2J\n" + "x" * 5000], reason="x").refusal
    assert refusal.isprintable()
    assert len(refusal) < 200


def test_a_set_that_has_changed_since_the_page_was_drawn_is_refused():
    shown = fingerprint(["a", "b", "c"])
    assert changed(["c", "a", "b"], shown) == ""
    assert changed(["a", "b"], shown) == "the set has changed: it is now 2; look again"
    assert changed(["a", "b", "d"], shown) == "the set has changed: it is now 3; look again"


def test_no_two_sets_share_a_fingerprint_by_how_they_are_joined():
    assert fingerprint(["a", "b"]) != fingerprint(["ab"])
    assert fingerprint(["1:a1:b"]) != fingerprint(["a", "b"])
    assert fingerprint(["a\n", "b"]) != fingerprint(["a", "\nb"])
    assert fingerprint(["\ud800"])  # what a form may hold and no UTF-8 can
