import msgspec
import pytest

from registry.consul.reports import CheckReport
from registry.model import Health, Snapshot
from registry.query import Query
from registry.show.explain import cells, changes, differences, explain, similar
from registry.testing import instance

SERF = CheckReport("serfHealth", "Serf Health Status", "passing", "Agent alive and reachable")


def why(query, one, *checks):
    (explained,) = explain(query, [one], {one.id: checks})
    return explained.included, list(explained.why)


def test_one_that_is_in_needs_no_reason():
    own = CheckReport("service:digits-1", "Service 'digits' check", "passing", "", "", "digits-1")
    assert why(Query("digits"), instance(1), SERF, own) == (True, [])


def test_the_failing_check_is_named_with_the_first_line_of_its_output():
    one = instance(1, health=Health.CRITICAL)
    own = CheckReport("mem", "Memory", "critical", "\n92 % used\nand more", "", "digits-1")
    assert why(Query("digits"), one, SERF, own) == (False, ["check mem (Memory) is critical: 92 % used"])


def test_the_name_consul_gives_by_itself_is_left_out():
    own = CheckReport("service:digits-1", "Service 'digits' check", "critical", "refused", "", "digits-1")
    assert why(Query("digits"), instance(1, health=Health.CRITICAL), own)[1] == [
        "check service:digits-1 is critical: refused"
    ]


def test_a_check_of_the_machine_is_told_as_such():
    dead = CheckReport("serfHealth", "Serf Health Status", "critical", "Agent not live or unreachable")
    assert why(Query("digits"), instance(1, health=Health.CRITICAL), dead)[1] == [
        "check serfHealth (Serf Health Status) of its node is critical: Agent not live or unreachable"
    ]


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (CheckReport("_service_maintenance:d", "", "critical", "", "restart", "d"), "in maintenance: restart"),
        (CheckReport("_service_maintenance:d", "", "critical", "", "", "d"), "in maintenance"),
        (CheckReport("_node_maintenance", "", "critical", "", "new disk"), "its node is in maintenance: new disk"),
    ],
)
def test_maintenance_comes_first_with_its_reason(check, said):
    own = CheckReport("a", "", "critical", "", "", "d")
    reasons = why(Query("digits"), instance(1, health=Health.DRAINING), own, check)[1]
    assert reasons == [said, "check a is critical"]


def test_every_filter_that_leaves_it_out_is_told_and_health_not_twice():
    query = Query("digits", tag="gpu", zone="a", version="2", meta={"k": "v"})
    one = instance(1, health=Health.WARNING, zone="b", version="1", tags=("cpu",))
    included, reasons = why(query, one, CheckReport("x", "", "warning", "slow", "", "d"))
    assert not included
    assert reasons == [
        "check x is warning: slow",
        "its zone is b, not a",
        "its version is 1, not 2",
        "it has no tag gpu (it has cpu)",
        "its metadata k is not given, not v",
    ]


def test_without_checks_the_health_is_all_there_is_to_say():
    assert why(Query("digits"), instance(1, health=Health.CRITICAL)) == (False, ["it is critical"])
    assert why(Query("digits", passing_only=False), instance(1, health=Health.WARNING)) == (True, ["it is warning"])


def test_what_others_wrote_is_harmless():
    evil = "\x1b]0;owned\x07\x1b[2J\u202e" + "x" * 1_000_000 + "\nline"
    check = CheckReport(evil, evil, evil, evil, evil, evil)
    drained = CheckReport("_service_maintenance:d", evil, "critical", evil, evil, "d")
    one = instance(1, id=evil, zone=evil, tags=(evil,), health=Health.CRITICAL, meta={evil: evil})
    query = Query("digits", tag="t", zone="z", meta={evil: "x"})
    (explained,) = explain(query, [one], {evil: (check, drained)})
    for text in (*explained.why, *cells(one), *differences(one, instance(1))):
        assert text.isprintable()
    assert all(len(text) < 1000 for text in explained.why)


def test_cells_are_whole_so_that_a_program_can_use_them():
    one = instance(1, id="a\tb" + "c" * 500)
    assert cells(one) == ("a\\tb" + "c" * 500, "127.0.0.1:9001", "passing", "-", "-", "1", "-")


def test_what_changed_in_an_instance_is_told_field_by_field():
    old = instance(1, weight=2, zone="a", version="1", meta={"zone": "a", "version": "1", "gpu": "t4"})
    new = instance(1, health=Health.CRITICAL, port=80, version="1", tags=("x",), node="n", meta={"cpu": "8"})
    assert list(differences(old, new)) == [
        "health passing → critical",
        "weight 2 → 1",
        "endpoint 127.0.0.1:9001 → 127.0.0.1:80",
        "zone a → none",
        "node none → n",
        "tags none → x",
        "meta cpu none → 8",
        "meta gpu t4 → none",
    ]
    assert list(differences(old, old)) == []


def listing(*instances):
    return Snapshot(service="digits", index=1, instances=instances, fetched_at=0.0)


def test_changes_are_those_of_the_answer_with_the_cause_from_the_whole_list():
    old = listing(instance(1), instance(2), instance(3, health=Health.CRITICAL), instance(4), instance(6, zone="x"))
    new = listing(
        instance(1, weight=5),
        instance(2, health=Health.DRAINING),
        instance(3),
        instance(5),
        instance(6, zone="x", weight=2, health=Health.WARNING),
    )
    told = [(each.word, each.instance.id, list(each.what)) for each in changes(Query("digits"), old, new)]
    assert told == [
        ("changed", "digits-1", ["weight 1 → 5"]),
        ("removed", "digits-2", ["health passing → draining"]),
        ("added", "digits-3", ["health critical → passing"]),
        ("removed", "digits-4", ["gone"]),
        ("added", "digits-5", []),
        ("removed", "digits-6", ["health passing → warning", "weight 1 → 2"]),
    ]


def test_what_happens_outside_the_answer_is_no_change():
    old = listing(instance(1, health=Health.CRITICAL), instance(2, zone="b"))
    new = listing(msgspec.structs.replace(old.instances[0], weight=9), instance(3, zone="b"))
    assert changes(Query("digits", zone="a"), old, new) == ()


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("digts", ["digits", "digits-gpu"]),
        ("PHOTOS", ["photos"]),
        ("digits-gpu-2", ["digits-gpu", "digits"]),
        ("gpu", ["digits-gpu"]),
        ("zzz", []),
        ("digits", ["digits-gpu"]),
    ],
)
def test_a_name_that_is_not_there_suggests_those_that_are(asked, meant):
    assert similar(asked, ["consul", "digits", "digits-gpu", "photos"]) == meant
