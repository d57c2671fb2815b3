"""What becomes of members from one list to the next, and what is said about it."""

import msgspec
import pytest

from registry.consul.reports import CheckReport
from registry.dashboard.fold import cause, fold
from registry.dashboard.model import Kind, Member, Service
from registry.model import Health
from registry.testing import instance

NOW = 1_700_000_000.0
CRITICAL, DRAINING, PASSING, WARNING = Health.CRITICAL, Health.DRAINING, Health.PASSING, Health.WARNING


def check(number, status="passing", output="", **more):
    fields = {"check_id": f"service:digits-{number}", "status": status, "output": output}
    return CheckReport(**(fields | {"service_id": f"digits-{number}"} | more))


def maintenance(number, reason=""):
    return check(number, "critical", check_id=f"_service_maintenance:digits-{number}", notes=reason)


def step(old, *instances, now=NOW, **checks):
    by_id = {f"digits-{key[1:]}": value for key, value in checks.items()}
    return fold(old, instances, by_id, name="digits", index=7, now=now)


def started(*instances, now=NOW, **checks):
    return step(None, *instances, now=now, **checks)[0]


def test_the_first_list_is_taken_as_it_is_and_is_no_news():
    service, events = step(None, instance(1), instance(2, health=CRITICAL), _1=(check(1),))
    assert events == []
    assert (service.name, service.index) == ("digits", 7)
    assert service.members[0] == Member(instance=instance(1), checks=(check(1),), since=NOW, joined=NOW)
    assert service.counts[CRITICAL] == 1


def test_what_did_not_change_stays_the_same_object():
    old = started(instance(1), instance(2), _1=(check(1),))
    # Equal, but other objects, as a decoder makes them.
    new, events = step(old, instance(1), instance(2, weight=3), now=NOW + 5, _1=(check(1),))
    assert events == []
    assert new.members[0] is old.members[0]
    assert new.members[1].instance.weight == 3
    assert (new.members[1].since, new.members[1].joined) == (NOW, NOW)


def test_a_check_that_only_says_something_else_is_no_event():
    old = started(instance(1), _1=(check(1, output="took 3 ms"),))
    new, events = step(old, instance(1), now=NOW + 5, _1=(check(1, output="took 9 ms"),))
    assert events == []
    assert new.members[0] is not old.members[0]
    assert (new.members[0].checks[0].output, new.members[0].since, new.members[0].witnessed) == (
        "took 9 ms",
        NOW,
        False,
    )


def test_who_registers_later_is_told_and_witnessed():
    new, (event,) = step(started(instance(1)), instance(1), instance(2), now=NOW + 5)
    assert (event.kind, event.service, event.instance, event.at) == (Kind.REGISTERED, "digits", "digits-2", NOW + 5)
    assert (event.words, event.health) == ("digits-2 registered at 127.0.0.1:9002", "passing")
    assert (new.members[1].witnessed, new.members[1].joined) == (True, NOW + 5)


def test_who_registers_unwell_is_told_with_the_cause():
    failing = check(2, "critical", "refused")
    _, (event,) = step(Service(name="digits"), instance(2, health=CRITICAL), _2=(failing,))
    assert event.words == "digits-2 registered at 127.0.0.1:9002, critical: check service:digits-2 is critical: refused"


def test_who_goes_is_told_with_what_it_was():
    old = started(instance(1), instance(2, health=CRITICAL))
    new, (event,) = step(old, instance(1), now=NOW + 40)
    assert [each.id for each in new.members] == ["digits-1"]
    assert (event.kind, event.instance, event.health) == (Kind.GONE, "digits-2", "")
    assert event.words == "digits-2 is gone; it was critical for at least 40 s"


def test_a_change_of_health_is_told_with_its_cause_and_its_length():
    old = started(instance(1))
    failing = check(1, "critical", "Get http://127.0.0.1:9001/readyz: connection refused\nand more")
    down, (event,) = step(old, instance(1, health=CRITICAL), now=NOW + 5, _1=(failing,))
    assert event.words == (
        "digits-1 is critical: check service:digits-1 is critical: Get http://127.0.0.1:9001/readyz: connection refused"
    )
    assert (event.kind, event.health) == (Kind.HEALTH, "critical")
    assert (down.members[0].since, down.members[0].witnessed, down.members[0].joined) == (NOW + 5, True, NOW)

    up, (event,) = step(down, instance(1), now=NOW + 45, _1=(check(1),))
    assert (event.words, event.health) == ("digits-1 is passing again after 40 s critical", "passing")
    assert up.members[0].since == NOW + 45


def test_what_was_so_before_anybody_looked_is_at_least_so_long():
    _, (event,) = step(started(instance(1, health=DRAINING)), instance(1), now=NOW + 120)
    assert event.words == "digits-1 is passing again after at least 2 min draining"


def test_each_turn_of_a_flapping_instance_counts_anew():
    service = started(instance(1))
    for at, health in enumerate((CRITICAL, PASSING, CRITICAL, PASSING), 1):
        service, (event,) = step(service, instance(1, health=health), now=NOW + 2 * at)
    assert event.words == "digits-1 is passing again after 2 s critical"
    assert (service.members[0].since, service.members[0].joined) == (NOW + 8, NOW)


@pytest.mark.parametrize(
    ("health", "checks", "said"),
    [
        (PASSING, (check(1, output="ok"),), ""),
        (DRAINING, (check(1), maintenance(1, "new disk")), "in maintenance: new disk"),
        (
            DRAINING,
            (check(1, "critical"), maintenance(1, "new disk")),
            "in maintenance: new disk (and 1 more not passing)",
        ),
        (WARNING, (check(1, "warning", "slow"),), "check service:digits-1 is warning: slow"),
        (
            CRITICAL,
            (check(1, "warning", "slow"), check(1, "critical", "dead", check_id="disk")),
            "check disk is critical: dead (and 1 more not passing)",
        ),
        (
            CRITICAL,
            (check(1, "critical", "gone", check_id="serfHealth", service_id=""),),
            "check serfHealth of its node is critical: gone",
        ),
        (CRITICAL, (), "no check says why"),
    ],
)
def test_the_cause_is_the_worst_of_the_checks(health, checks, said):
    member = Member(instance=instance(1, health=health), checks=checks, since=NOW, joined=NOW)
    assert cause(member) == said


def test_hostile_text_is_made_harmless_and_short():
    evil = instance(1, id="\x1b[31m" + "x" * 5000, health=CRITICAL)
    reports = (check(1, "critical", "\u202eevil\x1b]0;" + "y" * 10_000),)
    old = started(msgspec.structs.replace(evil, health=PASSING))
    _, (event,) = fold(old, (evil,), {evil.id: reports}, name="digits", index=8, now=NOW)
    assert event.words.isprintable()
    assert len(event.words) < 1000
