import math

import pytest

from smartclient.endpoint import Lease
from smartclient.load import LoadReport
from smartclient.policies.service import BUSY, FADE, TELLING, ServiceTimes
from smartclient.testing import endpoints


def report(wait: float | None = 0.0, in_flight: float | None = 0.0, **more: float) -> LoadReport:
    return LoadReport(at=100.0, wait=wait, in_flight=in_flight, **more)


def test_the_time_for_a_request_is_busy_time_by_requests() -> None:
    (endpoint,) = endpoints(1)
    services = ServiceTimes()
    services.learn(endpoint, report(utilization=0.6, rps=12.0))
    assert services.service(endpoint, 100.0) == pytest.approx(0.05)


def test_it_fades_so_that_who_was_slow_is_tried_again() -> None:
    (endpoint,) = endpoints(1)
    services = ServiceTimes()
    services.learn(endpoint, report(utilization=0.6, rps=12.0))
    assert services.service(endpoint, 100.0 + FADE) == pytest.approx(0.05 / math.e)


@pytest.mark.parametrize(
    "more", [{}, {"utilization": 0.5}, {"utilization": TELLING / 2, "rps": 1.0}, {"utilization": 0.5, "rps": 0.0}]
)
def test_what_tells_nothing_is_not_learned(more: dict[str, float]) -> None:
    (endpoint,) = endpoints(1)
    endpoint.latency.observe(0.3, 100.0)
    services = ServiceTimes()
    services.learn(endpoint, report(**more))
    assert services.service(endpoint, 100.0) == pytest.approx(0.3), "its answers' time takes the place"


def test_an_answer_comes_after_the_wait_what_was_sent_since_and_its_own_time() -> None:
    (endpoint,) = endpoints(1)
    services, said = ServiceTimes(), report(wait=0.2, in_flight=4.0, utilization=1.0, rps=20.0)
    assert services.until_answer(endpoint, said, 100.0) == pytest.approx(0.25)
    Lease(endpoint, 100.0, lambda *_: None)
    assert services.until_answer(endpoint, said, 100.0) == pytest.approx(0.30)


def test_where_no_wait_is_said_it_is_what_is_inside_times_the_time_for_each() -> None:
    (endpoint,) = endpoints(1)
    said = report(wait=None, in_flight=3.0, utilization=1.0, rps=20.0)
    assert ServiceTimes().until_answer(endpoint, said, 100.0) == pytest.approx(0.2)


def test_a_node_with_somebody_inside_is_not_idle_however_overdue_he_is() -> None:
    (endpoint,) = endpoints(1)
    said = report(wait=0.0, in_flight=1.0, utilization=1.0, rps=20.0)
    assert ServiceTimes().until_answer(endpoint, said, 100.0) == pytest.approx(0.05 * (1 + BUSY))


def test_who_left_the_list_is_forgotten() -> None:
    stays, leaves = endpoints(2)
    services = ServiceTimes()
    for endpoint in (stays, leaves):
        services.learn(endpoint, report(utilization=0.6, rps=12.0))
    services.keep([stays])
    assert services.service(stays, 100.0) > 0.0
    assert services.service(leaves, 100.0) == 0.0
