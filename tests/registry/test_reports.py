import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.consul.codec import decode_in_steps
from registry.consul.reports import CheckReport, decode_checks, decode_services
from registry.errors import InvalidAnswer


def entry(instance_id, node="n1", **check):
    return {"Node": {"Node": node}, "Service": {"ID": instance_id, "Service": "digits"}, "Checks": [check]}


def test_checks_are_told_by_instance():
    body = json.dumps(
        [
            entry("d1", CheckID="mem", Name="Memory", Status="warning", Output="92 %", Notes="n", ServiceID="d1"),
            {**entry("d2"), "Checks": None},
        ]
    ).encode()
    assert decode_checks(body) == {
        "d1": (CheckReport("mem", "Memory", "warning", "92 %", "n", "d1"),),
        "d2": (),
    }


def test_an_id_on_two_nodes_has_the_name_it_has_in_a_snapshot():
    body = json.dumps([entry("d1", "a"), entry("d1", "b"), entry("d2", "b")]).encode()
    with pytest.raises(StopIteration) as done:
        next(decode_in_steps([body]))
    assert set(decode_checks(body)) == {each.id for each in done.value.value} == {"d1@a", "d1@b", "d2"}


@pytest.mark.parametrize(
    ("check_id", "is_one"),
    [("_node_maintenance", True), ("_service_maintenance:d1", True), ("service:d1", False), ("", False)],
)
def test_maintenance_is_known_by_its_id(check_id, is_one):
    assert CheckReport(check_id).maintenance is is_one


def test_services_come_in_order():
    assert decode_services(b'{"b":[],"a":["x"],"c":null}') == ("a", "b", "c")


@given(st.binary(max_size=60) | st.sampled_from([b"null", b"[1]", b"{}", b'[{"Node":{}}]', b'{"a":1}', b"<html>"]))
def test_any_answer_is_read_or_refused(body):
    for decode in (decode_checks, decode_services):
        try:
            decode(body)
        except InvalidAnswer:
            pass
