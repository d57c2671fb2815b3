import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.embedded.definitions import BadRequest, check_definition, check_update, seconds, service_definition


def service(**fields):
    return service_definition(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10s", 10),
        ("1m30s", 90),
        ("2500ms", 2.5),
        ("1.5h", 5400),
        ("250us", 250e-6),
        (10_000_000_000, 10),
        ("", 0),
        ("0", 0),
    ],
)
def test_durations_are_gos(text, value):
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["10", "s", "10 s", "-1s", "1s ", "1x", "1sx"])
def test_a_duration_that_is_none_is_refused(text):
    with pytest.raises(BadRequest, match="invalid duration"):
        seconds(text)


@pytest.mark.parametrize("spell", [str, str.lower, str.upper, lambda key: key.replace("Tag", "_tag")])
def test_keys_are_read_however_they_are_spelt(spell):
    fields = {"ID": "d1", "Name": "digits", "Port": 9001, "EnableTagOverride": True}
    record, _ = service(**{spell(key): value for key, value in fields.items()})
    assert (record.id, record.service, record.port, record.enable_tag_override) == ("d1", "digits", 9001, True)


def test_metadata_keys_keep_their_spelling():
    record, _ = service(name="s", meta={"My_Key": "V"})
    assert record.meta == {"My_Key": "V"}


def test_nulls_mean_not_given():
    record, checks = service(
        name="s", id=None, tags=None, meta=None, check=None, checks=None, weights=None, connect=None
    )
    assert (record.id, record.tags, record.weights, checks) == ("s", [], (1, 1), [])


def test_one_check_and_many_are_named_as_consul_names_them():
    _, (only,) = service(name="s", id="i", check={"ttl": "15s"})
    assert (only.id, only.name, only.service_id, only.status) == ("service:i", "Service 's' check", "i", "critical")
    _, many = service(name="s", checks=[{"ttl": "15s"}, {"tcp": "h:1", "interval": "10s", "name": "mine"}])
    assert [(check.id, check.name) for check in many] == [("service:s:1", "Service 's' check"), ("service:s:2", "mine")]


def test_one_empty_check_is_none_and_in_a_list_it_is_a_mistake():
    assert service(name="s", check={})[1] == []
    with pytest.raises(BadRequest, match="TTL must be > 0"):
        service(name="s", checks=[{}])


def test_a_check_keeps_what_it_was_given():
    _, (check,) = service(
        name="s",
        check={
            "CheckID": "c", "HTTP": "http://h/", "Method": "POST", "Header": {"X-A": ["b"]}, "Interval": "5s",
            "Timeout": "2s", "DeregisterCriticalServiceAfter": "90s", "Status": "passing", "TLSSkipVerify": True,
        },
    )  # fmt: skip
    probe = check.probe
    assert (check.id, check.status, probe.kind) == ("c", "passing", "http")
    assert (probe.method, probe.header, probe.interval, probe.timeout) == ("POST", {"X-A": ["b"]}, 5.0, 2.0)
    assert (probe.reap_after, probe.verify_tls) == (90.0, False)


def test_no_check_runs_more_often_than_consul_would():
    assert check_definition(b'{"name":"c","http":"http://h/","interval":"10ms"}').probe.interval == 1.0


def test_tagged_addresses_keep_their_names():
    record, _ = service(name="s", tagged_addresses={"lan_ipv4": {"Address": "10.0.0.1", "Port": 1}})
    assert record.tagged_addresses == {"lan_ipv4": ("10.0.0.1", 1)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Missing service name"),
        ({"name": 1}, "Request decode failed"),
        ({"name": "s", "port": "80"}, "Request decode failed"),
        ({"name": "s", "port": 2**64}, "Request decode failed"),
        ({"name": "s", "bogus": 1}, "bogus"),
        ({"name": "s", "weights": {"passing": 0}}, "Passing must be greater than 0"),
        ({"name": "s", "weights": {"passing": 65536}}, "between 0 and 65535"),
        ({"name": "s", "meta": {"a b": ""}}, "Invalid Service Meta"),
        ({"name": "s", "check": {"ttl": "x"}}, "invalid duration"),
        ({"name": "s", "check": {"ttl": "3000000h"}}, "invalid duration"),
        ({"name": "s", "check": {"ttl": 2**63}}, "invalid duration"),
        ({"name": "s", "check": {"http": "http://h/"}}, "Interval must be > 0"),
        ({"name": "s", "check": {"ttl": "1s", "namespace": "n"}}, "cannot do 'namespace'"),
        ({"name": "s", "check": {"name": "c"}}, "TTL must be > 0"),
        ({"name": "s", "check": {"http": "http://h/", "tcp": "h:1", "interval": "1s"}}, "only one of"),
        ({"name": "s", "check": {"ttl": "1s", "status": "great"}}, "Status for checks"),
        ({"name": "s", "check": {"args": ["rm"], "interval": "1s"}}, "cannot do 'args'"),
        ({"name": "s", "connect": {"sidecar_service": {}}}, "cannot do 'connect'"),
    ],
)
def test_what_cannot_be_used_is_refused(fields, message):
    with pytest.raises(BadRequest, match=message):
        service(**fields)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"3"])
def test_a_body_that_is_no_object_is_refused(body):
    for read in (service_definition, check_definition, check_update):
        with pytest.raises(BadRequest, match="Request decode failed"):
            read(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_nothing_but_a_bad_request_ever_comes_out(value):
    for read in (service_definition, check_definition, check_update):
        try:
            read(json.dumps(value).encode())
        except BadRequest:
            pass


def test_an_update_has_one_of_three_statuses():
    assert check_update(b'{"Status":"warning","Output":"hm"}') == ("warning", "hm")
    with pytest.raises(BadRequest, match="Invalid check status"):
        check_update(b'{"Status":"bad"}')
    with pytest.raises(BadRequest, match="Invalid check status"):
        check_update(b"{}")
