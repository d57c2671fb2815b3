"""A library's time limits and headers, as a client takes them."""

import pytest
from multidict import CIMultiDict

from smartclient.adapters.calls import UNLIMITED, received, sendable, within


def test_the_read_timeout_is_the_calls() -> None:
    assert within(2.5, CIMultiDict(), otherwise=None) == 2.5
    assert within(2.5, CIMultiDict(), otherwise=60.0) == 2.5


def test_a_body_adds_the_time_it_may_take_to_send() -> None:
    assert within(5.0, CIMultiDict({"content-length": "300000"}), otherwise=None) == pytest.approx(5.3)
    assert within(5.0, CIMultiDict({"Content-Length": b"1000000000"}), otherwise=None) == pytest.approx(1005.0)


def test_a_body_of_unknown_length_takes_as_long_as_it_takes() -> None:
    assert within(5.0, CIMultiDict({"transfer-encoding": "chunked"}), otherwise=None) == UNLIMITED


def test_no_timeout_is_the_adapters_own_if_it_has_one() -> None:
    assert within(None, CIMultiDict(), otherwise=None) == UNLIMITED
    assert within(None, CIMultiDict(), otherwise=60.0) == 60.0


def test_headers_of_one_connection_stay_behind() -> None:
    given = {"Host": "digits.service.consul", "connection": "keep-alive", "Transfer-Encoding": "chunked", "X": b"y\xe9"}
    assert sendable(given.items()) == {"Host": "digits.service.consul", "X": "yé"}


def test_a_coding_that_the_client_has_undone_is_not_told() -> None:
    plain = CIMultiDict([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    coded = CIMultiDict(plain, **{"content-encoding": "GZIP", "content-length": "17"})
    assert received(coded) == list(plain.items())
    assert received(plain) == list(plain.items())
    foreign = CIMultiDict({"Content-Encoding": "aws-chunked", "Content-Length": "17"})
    assert received(foreign) == list(foreign.items())
