import pytest
from multidict import CIMultiDict

from smartclient.stats import Outcome
from smartclient.transport import outcome_of, retry_after


@pytest.mark.parametrize(
    ("status", "headers", "outcome"),
    [
        (200, {}, Outcome.OK),
        (304, {}, Outcome.OK),
        (400, {}, Outcome.OK),
        (422, {}, Outcome.OK),
        (431, {}, Outcome.OK),
        (429, {}, Outcome.OVERLOADED),
        (503, {"retry-after": "1"}, Outcome.OVERLOADED),
        (503, {}, Outcome.SERVER_ERROR),
        (500, {"Retry-After": "1"}, Outcome.SERVER_ERROR),
        (504, {}, Outcome.SERVER_ERROR),
    ],
)
def test_an_answer_is_classified_by_status_and_retry_after(
    status: int, headers: dict[str, str], outcome: Outcome
) -> None:
    assert outcome_of(status, CIMultiDict(headers)) is outcome


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2", 2.0), ("0", 0.0), ("1.5", 1.5), ("-3", 0.0), ("nan", 0.0), ("Fri, 31 Dec 2027 23:59:59 GMT", 0.0)],
)
def test_retry_after_is_seconds(value: str, seconds: float) -> None:
    assert retry_after(CIMultiDict({"Retry-After": value})) == seconds


def test_no_retry_after_is_none() -> None:
    assert retry_after(CIMultiDict()) is None
