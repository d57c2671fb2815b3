import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from registry.lookup.question import LISTING, STREAM, Question, read
from registry.lookup.refused import Refused
from registry.query import Query


def ask(*pairs, known=LISTING):
    return read("digits", MultiDict(pairs), known)


def test_nothing_given_is_the_passing_instances_at_once():
    assert ask() == Question(query=Query("digits"))


def test_every_parameter_is_understood():
    question = ask(
        ("tag", "t"), ("zone", "z"), ("version", "7"), ("meta", "a:b:c"), ("meta", "d:"), ("passing", "0"),
        ("limit", "20"), ("client", "me"), ("index", "5"), ("wait", "1m30s"),
    )  # fmt: skip
    assert question == Question(
        query=Query("digits", tag="t", zone="z", version="7", meta={"a": "b:c", "d": ""}, passing_only=False),
        limit=20,
        client="me",
        index=5,
        wait=90.0,
    )


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("1.5s", 1.5), ("0s", 0.0), ("24h", 600.0)])
def test_durations_are_gos_and_bounded(text, seconds):
    assert ask(("wait", text)).wait == seconds


@pytest.mark.parametrize(
    ("pairs", "word"),
    [
        ([("zoen", "eu")], "known are tag, zone"),
        ([("zone", "a"), ("zone", "b")], "more than once"),
        ([("meta", "novalue")], "key:value"),
        ([("meta", ":v")], "key:value"),
        ([("meta", "a:1"), ("meta", "a:2")], "two values"),
        ([("meta", f"a{number}:1") for number in range(65)], "64"),
        ([("passing", "2")], "1 or 0"),
        ([("limit", "20")], "go together"),
        ([("client", "me")], "go together"),
        ([("limit", "0"), ("client", "me")], "1 to 1000"),
        ([("limit", "1001"), ("client", "me")], "1 to 1000"),
        ([("limit", "-1"), ("client", "me")], "whole number"),
        ([("index", "x")], "whole number"),
        ([("index", "٣")], "whole number"),
        ([("index", "9" * 30)], "whole number"),
        ([("wait", "30")], "duration"),
        ([("wait", "-3s")], "duration"),
        ([("tag", "x" * 600)], "longer"),
    ],
)
def test_what_is_not_understood_is_refused(pairs, word):
    with pytest.raises(Refused, match=word) as caught:
        ask(*pairs)
    assert (caught.value.status, caught.value.reason) == (400, "bad_request")


def test_a_stream_takes_no_wait():
    with pytest.raises(Refused, match="unknown parameter 'wait'"):
        ask(("wait", "3s"), known=STREAM)


@given(st.lists(st.tuples(st.sampled_from([*LISTING, "x"]), st.text())))
def test_anything_is_understood_or_refused(pairs):
    with contextlib.suppress(Refused):
        question = ask(*pairs)
        assert question.limit == 0 or question.client
        assert 0 <= question.wait <= 600
