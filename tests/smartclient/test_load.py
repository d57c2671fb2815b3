import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartclient.load import LoadReport, from_answer, from_header, from_json


def test_a_header_in_orcas_text_form_is_read() -> None:
    text = "TEXT named_metrics.wait_ms=12.5,named_metrics.inflight=3,application_utilization=0.7,rps_fractional=18.2"
    expected = LoadReport(at=5.0, wait=0.0125, in_flight=3.0, utilization=0.7, rps=18.2)
    assert from_header(text, 5.0) == expected
    assert from_answer({"endpoint-load-metrics": text}, 5.0) == expected


def test_vllms_running_and_waiting_requests_are_its_in_flight() -> None:
    text = "TEXT named_metrics.num_requests_running=3,named_metrics.num_requests_waiting=4"
    assert from_header(text, 0.0) == LoadReport(at=0.0, in_flight=7.0)


@pytest.mark.parametrize("text", ["", "JSON {}", "TEXT", "TEXT a", "TEXT a=b", "TEXT a=nan,b=-1,c=inf", "BIN AAAA"])
def test_what_holds_no_number_is_no_report(text: str) -> None:
    assert from_header(text, 0.0) is None


def test_no_header_is_no_report() -> None:
    assert from_answer({}, 0.0) is None


def test_an_unusable_field_leaves_the_others() -> None:
    text = "TEXT named_metrics.wait_ms=x,named_metrics.inflight=2"
    assert from_header(text, 0.0) == LoadReport(at=0.0, in_flight=2.0)


def test_the_answer_of_a_node_is_read() -> None:
    body = b'{"wait_ms": 12.5, "inflight": 3, "capacity_rps": 26.0, "utilization": 0.7, "rps": 18.2, "new": {}}'
    assert from_json(body, 5.0) == LoadReport(at=5.0, wait=0.0125, in_flight=3.0, utilization=0.7, rps=18.2)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"ok", b'{"wait_ms": "1"}', b'{"wait_ms": -1}', b"\xff", b"null"])
def test_an_answer_without_a_load_is_no_report(body: bytes) -> None:
    assert from_json(body, 0.0) is None


@given(st.text(), st.binary())
def test_nothing_a_node_says_raises(text: str, body: bytes) -> None:
    assert from_header("TEXT " + text, 0.0) is None or text
    assert from_json(body, 0.0) is None or body
