import itertools
import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.consul import codec
from registry.consul.codec import (
    LARGEST_ENTRY,
    STEP,
    decode_datacenter,
    decode_in_steps,
    decode_registered,
    encode,
    split,
)
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


def pieces(answer, size=4096):
    """As they come from a socket."""
    return [answer[start : start + size] for start in range(0, len(answer), size)]


def walk(answer, size):
    steps = decode_in_steps(pieces(answer), size)
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
    assert max(len(part) for part in split(pieces(answer), 64 * 1024)) < 70 * 1024


def test_a_cut_inside_an_entry_does_no_harm():
    nested = entry(1, Proxy={"Upstreams": [{"x": {}}, {"Node": {"Node": "not an entry"}}] * 50})
    found, _ = walk(body(nested, entry(2), entry(3)), 300)
    assert [each.id for each in found] == ["digits-1", "digits-2", "digits-3"]


def test_a_truncated_large_answer_is_refused():
    with pytest.raises(InvalidAnswer):
        walk(body(*[entry(number) for number in range(1000)])[:-100], 4096)


@pytest.fixture
def decoded(monkeypatch):
    """The sizes of all that was handed to the JSON decoder."""
    sizes = []

    def note(part):
        sizes.append(len(part))
        return decoder.decode(part)

    decoder = codec._ENTRIES
    monkeypatch.setattr(codec, "_ENTRIES", SimpleNamespace(decode=note))
    return sizes


GOOD = b",".join([body(entry(1, Proxy={"Config": "x" * 2000}))[1:-1]] * 40) + b","
TIMES = 100_000_000 // len(GOOD)
HOSTILE = {  # pieces of about 100 MB each: what comes first, what is repeated, what comes last
    "truncated": (b"[", GOOD, GOOD[:-100]),
    "broken near the start": (b"[" + GOOD + b"{!,", GOOD, b"null]"),
    "broken at the end": (b"[", GOOD, b"{!]"),
    "a wrong type at the end": (b"[", GOOD, body(entry(2, Port="x"))[1:]),
    "no list at all": (b"<html>", b"x" * len(GOOD), b"</html>"),
    "one long string": (b'["', b"x" * len(GOOD), b'"]'),
    "nested lists": (b"[", b"[" * len(GOOD), b""),
    "one endless entry, with places to cut": (b'[{"X":[', b'{"Y":[{"a":{},"Z":{"Node":{}}},' * 4000, b""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hundred_hostile_megabytes_are_refused_in_small_steps_and_never_decoded_again(decoded, name):
    first, repeated, last = HOSTILE[name]
    steps = decode_in_steps(itertools.chain([first], itertools.repeat(repeated, TIMES), [last]))
    with pytest.raises(InvalidAnswer):
        list(steps)
    assert max(decoded, default=0) <= LARGEST_ENTRY
    assert sum(decoded) < TIMES * len(GOOD) + 3 * LARGEST_ENTRY


def test_what_was_read_of_a_broken_answer_is_let_go_in_steps_too():
    answer = body(*[entry(number) for number in range(20_000)])[:-1]
    taken = 0
    steps = decode_in_steps(pieces(answer, 65536))
    with pytest.raises(InvalidAnswer):
        for taken, _ in enumerate(steps, 1):  # noqa: B007 - how many there were before the error
            pass
    assert taken >= len(answer) // STEP + 3


def test_an_entry_larger_than_a_step_is_put_together_again():
    large = entry(1, Meta={"k": "v" * 300_000}, Proxy={"Upstreams": [{"x": {}}, {"Node": {"Node": "none"}}] * 20_000})
    found, _ = walk(body(entry(0), large, entry(2)), 64 * 1024)
    assert [each.id for each in found] == ["digits-0", "digits-1", "digits-2"]


@pytest.mark.parametrize("size", [100, STEP])
def test_an_instance_that_stands_in_the_list_twice_makes_it_no_list(size):
    with pytest.raises(InvalidAnswer, match="twice"):
        walk(body(entry(1), entry(2), entry(1)), size)


@pytest.mark.parametrize(("port", "seen"), [(0, 0), (65535, 65535), (65536, 0), (-1, 0), (2**62, 0)])
def test_a_port_that_is_none_costs_nobody_the_list(port, seen):
    assert one(Port=port).port == seen


@pytest.mark.parametrize(("weight", "seen"), [(0, 0), (-3, 0), (65536, 65535)])
def test_a_weight_out_of_bounds_is_brought_back_into_them(weight, seen):
    assert one(Weights={"Passing": weight, "Warning": 1}).weight == seen


@pytest.mark.parametrize("field", ["Port", "Weights"])
def test_a_number_beyond_all_bounds_is_refused(field):
    value = {"Port": 10**30, "Weights": {"Passing": 10**30}}[field]
    with pytest.raises(InvalidAnswer):
        one(**{field: value})


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
        (
            HttpCheck(url="https://h/", tls_skip_verify=True),
            {"HTTP": "https://h/", "Interval": "2000ms", "Timeout": "1000ms", "TLSSkipVerify": True},
        ),
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


def test_the_datacenter_of_an_agent_is_read():
    assert decode_datacenter(b'{"Config":{"Datacenter":"dc1","Server":true},"Stats":{}}') == "dc1"
    with pytest.raises(InvalidAnswer):
        decode_datacenter(b'{"Config":null}')
