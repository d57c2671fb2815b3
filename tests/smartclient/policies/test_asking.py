import pytest

from registry.testing import instance
from smartclient.breaker import EjectionRule
from smartclient.endpoint import Endpoint
from smartclient.load import LoadReport
from smartclient.policies.asking import WORTH, tells, worth_asking


def node(path: str = "/load") -> Endpoint:
    return Endpoint(instance(1, meta={"load": path} if path else {}), EjectionRule())


def test_who_has_no_path_is_not_asked() -> None:
    assert not worth_asking(node(""), 0.0)


def test_who_is_not_known_yet_is_asked() -> None:
    assert worth_asking(node(), 0.0)
    answered = node()
    answered.latency.observe(0.001, 0.0)
    assert worth_asking(answered, 0.0), "what a probe takes there is to be learned"


@pytest.mark.parametrize(("times", "worth"), [(WORTH * 1.1, True), (WORTH * 0.9, False)])
def test_asking_is_worth_it_where_answers_take_many_times_as_long(times: float, worth: bool) -> None:
    endpoint = node()
    endpoint.probe_latency.observe(0.001, 0.0)
    endpoint.latency.observe(0.001 * times, 0.0)
    assert worth_asking(endpoint, 0.0) is worth


def test_a_report_tells_something_when_it_says_how_much_work_is_there() -> None:
    assert tells(LoadReport(at=0.0, wait=0.0))
    assert tells(LoadReport(at=0.0, in_flight=3.0))
    assert not tells(LoadReport(at=0.0, utilization=0.5, rps=3.0))
    assert not tells(None)
