import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.codec import STEP, decode_in_steps, decode_registered, encode, split
from registry.directory import HttpCheck, Registration, TcpCheck, TtlCheck
from registry.errors import InvalidAnswer
from registry.model import Health

BOUNDARY = '},{"Node":{'


def entry(number=1, *, statuses=("passing",), node="n1", address="10.0.0.1", check_ids=None, **service):
    checks = [
        {"CheckID": check_id, "Status": status, "Output": "ignored", "Definition": {}}
        for check_id, status in zip(check_ids or [f"c{n}" for n in range(len(statuses))], statuses, strict=True)
    ]
    fields = {"ID": f"digits-{number}", "Service": "digits", "Address": address, "Port": 9000 + number, "Tags": ["t"]}
    fields |= {"Meta": {"zone": "a", "version": "2"}, "Weights": {"Passing": 10, "Warning": 3}}
    return {"Node": {"Node": node, "Address": "10.9.9.9"}, "Service": fields | service, "Checks": checks}


def body(*entries):
    return json.dumps(entries, separators=(",", ":")).encode()


def decode(answer):
    return walk(answer, STEP)[0]


def one(**changes):
    (found,) = decode(body(entry(**changes)))
    return found


def walk(answer, size):
    steps = decode_in_steps(answer, size)
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value, count
        count += 1


def test_an_entry_becomes_an_instance():
    found = one()
    assert (found.id, found.service, found.endpoint, found.node) == ("digits-1", "digits", "10.0.0.1:9001", "n1")
    assert (found.zone, found.version, found.tags, found.weight) == ("a", "2", ("t",), 10)
    assert found.health is Health.PASSING


def test_what_agents_leave_out_or_null_is_tolerated():
    answer = (
        b'[{"Node":{"Node":"n","Address":"10.9.9.9"},"Service":{"Service":"s","Tags":null,"Meta":null},"Checks":null}]'
    )
    (found,) = decode(answer)
    assert (found.id, found.address, found.port, found.tags, found.meta) == ("s", "10.9.9.9", 0, (), {})
    assert found.weight == 1
    assert found.health is Health.PASSING


def test_an_instance_without_address_has_its_machines():
    assert one(address="").address == "10.9.9.9"


@pytest.mark.parametrize(
    ("statuses", "health"),
    [
        ((), Health.PASSING),
        (("passing", "warning"), Health.WARNING),
        (("warning", "critical", "passing"), Health.CRITICAL),
        (("passing", "no-such-status"), Health.CRITICAL),
    ],
)
def test_health_is_the_worst_check(statuses, health):
    assert one(statuses=statuses).health is health


@pytest.mark.parametrize("check_id", ["_node_maintenance", "_service_maintenance:digits-1"])
def test_a_maintenance_check_is_draining_and_not_broken(check_id):
    assert one(statuses=("critical", "critical"), check_ids=["c", check_id]).health is Health.DRAINING


def test_weight_is_the_one_of_the_present_health():
    assert one(statuses=("warning",)).weight == 3


def test_instances_are_ordered_by_id_whatever_the_answers_order():
    entries = [entry(number) for number in (3, 1, 2)]
    assert decode(body(*entries)) == decode(body(*reversed(entries)))
    assert [each.id for each in decode(body(*entries))] == ["digits-1", "digits-2", "digits-3"]


def test_ids_that_collide_across_machines_are_told_apart():
    found = decode(body(entry(1, node="n1"), entry(1, node="n2"), entry(2)))
    assert [each.id for each in found] == ["digits-1@n1", "digits-1@n2", "digits-2"]


def test_check_output_is_no_difference():
    noisy = entry()
    noisy["Checks"][0]["Output"] = "2026-01-01 00:00:00 fine"
    assert decode(body(noisy)) == decode(body(entry()))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"{}",
        b"[",
        b"<html>",
        b'[{"Node":{}}]',
        b"[1]",
        b'[{"Node":{"Node":"n"},"Service":{"Service":1}}]',
        b"\xff",
    ],
)
def test_an_answer_that_is_not_one_is_refused(answer):
    with pytest.raises(InvalidAnswer):
        decode(answer)


@given(st.binary())
def test_nothing_else_ever_comes_out_of_garbage(answer):
    try:
        decode(answer)
    except InvalidAnswer:
        pass


@given(
    st.lists(st.text(alphabet='ab"\\{}[],:é' + "\u2028", max_size=30), max_size=12, unique=True),
    st.integers(min_value=1, max_value=400),
)
def test_decoding_in_steps_is_decoding(texts, size):
    entries = [entry(number, ID=f"{number}-{text}", Meta={"k": text + BOUNDARY}) for number, text in enumerate(texts)]
    answer = body(*entries)
    whole, _ = walk(answer, 10**9)
    assert walk(answer, size)[0] == whole
    assert len(whole) == len(texts)


def test_a_large_answer_takes_many_small_steps():
    answer = body(*[entry(number) for number in range(5000)])
    found, count = walk(answer, 64 * 1024)
    assert len(found) == 5000
    assert count == pytest.approx(len(answer) / (64 * 1024), rel=0.2)
    assert max(len(part) for part in split(answer, 64 * 1024)) < 66 * 1024


def test_a_cut_inside_an_entry_does_no_harm():
    nested = entry(1, Proxy={"Upstreams": [{"x": {}}, {"Node": {"Node": "not an entry"}}] * 50})
    found, _ = walk(body(nested, entry(2), entry(3)), 300)
    assert [each.id for each in found] == ["digits-1", "digits-2", "digits-3"]


def test_a_truncated_large_answer_is_refused():
    with pytest.raises(InvalidAnswer):
        walk(body(*[entry(number) for number in range(1000)])[:-100], 4096)


REGISTRATION = Registration(
    service="digits", id="d1", address="10.0.0.1", port=9001, tags=("t",), meta={"k": "v"}, zone="a", version="2",
    weight=4, warning_weight=2,
)  # fmt: skip


def test_a_registration_says_all_it_has():
    sent = json.loads(encode(REGISTRATION))
    assert sent == {
        "ID": "d1", "Name": "digits", "Address": "10.0.0.1", "Port": 9001, "Tags": ["t"],
        "Meta": {"k": "v", "zone": "a", "version": "2"}, "Weights": {"Passing": 4, "Warning": 2},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("check", "fields"),
    [
        (HttpCheck(url="http://h/", interval=2.5), {"HTTP": "http://h/", "Interval": "2500ms", "Timeout": "1000ms"}),
        (TcpCheck(address="h:1", timeout=0.25), {"TCP": "h:1", "Interval": "2000ms", "Timeout": "250ms"}),
        (TtlCheck(ttl=15), {"TTL": "15000ms"}),
    ],
)
def test_a_check_starts_passing_and_has_a_name_of_its_own(check, fields):
    registration = Registration(service="s", id="d1", address="h", port=1, check=check, deregister_after=90)
    common = {"CheckID": "service:d1", "Status": "passing", "DeregisterCriticalServiceAfter": "90000ms"}
    assert json.loads(encode(registration))["Check"] == fields | common


def test_what_an_agent_holds_is_alive_unless_an_ordinary_check_is_critical():
    def answer(*checks):
        service = {"ID": "d1", "Service": "digits", "Address": "10.0.0.1", "Port": 9001}
        return json.dumps({"Service": service, "Checks": [{"CheckID": i, "Status": s} for i, s in checks]}).encode()

    held = decode_registered(answer(("service:d1", "passing"), ("_service_maintenance:d1", "critical")))
    assert (held.service, held.address, held.port, held.alive) == ("digits", "10.0.0.1", 9001, True)
    assert not decode_registered(answer(("service:d1", "critical"))).alive
    assert decode_registered(b'{"AggregatedStatus":"critical","Service":null,"Checks":null}') is None
    with pytest.raises(InvalidAnswer):
        decode_registered(b"rpc error")
