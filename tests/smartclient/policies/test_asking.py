import pytest

from registry.testing import instance
from smartclient.breaker import EjectionRule
from smartclient.endpoint import Endpoint, Lease
from smartclient.load import LoadReport
from smartclient.policies.asking import AGAIN, WORTH, tells, worth_asking


def node(path: str = "/load") -> Endpoint:
    return Endpoint(instance(1, meta={"load": path} if path else {}), EjectionRule())


def test_who_has_no_path_is_not_asked() -> None:
    assert not worth_asking(node(""), 0.0)


def test_who_is_not_known_yet_is_asked() -> None:
    assert worth_asking(node(), 0.0)
    answered = node()
    answered.latency.observe(0.001, 0.0)
    assert worth_asking(answered, 0.0), "what a probe takes there is to be learned"


def known(answer: float, probe: float = 0.001) -> Endpoint:
    """A node that has answered calls and probes for a while."""
    endpoint = node()
    for _ in range(10):
        endpoint.latency.observe(answer, 0.0)
        endpoint.probe_latency.observe(probe, 0.0)
    return endpoint


@pytest.mark.parametrize(("times", "worth"), [(WORTH * 1.1, True), (WORTH * 0.9, False)])
def test_asking_is_worth_it_where_answers_take_many_times_as_long(times: float, worth: bool) -> None:
    assert worth_asking(known(0.001 * times), 0.0) is worth


def test_peaks_of_a_busy_machine_change_nothing() -> None:
    slow, quick = known(0.05), known(0.001)
    for _ in range(2):
        slow.probe_latency.observe(0.005, 0.0)
    quick.latency.observe(0.05, 0.0)
    assert worth_asking(slow, 0.0)
    assert not worth_asking(quick, 0.0)


def test_now_and_then_one_is_asked_all_the_same() -> None:
    assert worth_asking(known(0.001), AGAIN)


def test_a_quick_node_that_hangs_is_asked() -> None:
    endpoint = known(0.001)
    Lease(endpoint, 0.0, lambda *_: None)
    assert not worth_asking(endpoint, 0.01)
    assert worth_asking(endpoint, 1.0)


def test_a_report_tells_something_when_it_says_how_much_work_is_there() -> None:
    assert tells(LoadReport(at=0.0, wait=0.0))
    assert tells(LoadReport(at=0.0, in_flight=3.0))
    assert not tells(LoadReport(at=0.0, utilization=0.5, rps=3.0))
    assert not tells(None)
