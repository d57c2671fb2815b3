import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.embedded.regex import BadPattern, Pattern

ONE = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^a]", "[a-b1]", r"\d", r"\w", r"\S", "^", "$", r"\.", "[[:digit:]]", "é"]
)
MANY = st.recursive(
    ONE,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("(?:{0[0]}|{0[1]})".format),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{2,}", "{0,1}", "*?"])).map(
            lambda parts: f"({parts[0]}){parts[1]}"
        ),
    ),
    max_leaves=8,
)


@given(MANY, st.text("ab1.\né", max_size=8))
def test_it_finds_what_re_finds(pattern, text):
    same = pattern.replace("$", r"\Z").replace("[[:digit:]]", "[0-9]")
    assert Pattern(pattern).search(text) == (re.search(same, text, re.ASCII) is not None)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("(?i)ABC", "xabcx", True),
        ("(?s)a.b", "a\nb", True),
        ("a.b", "a\nb", False),
        (r"\Aa\z", "a", True),
        (r"^a$", "a\n", False),
        ("[]a]", "]", True),
        ("[a-]", "-", True),
        ("a{,2}", "a{,2}", True),
        ("(?P<name>a)b", "ab", True),
        ("", "", True),
    ],
)
def test_details_are_re2s(pattern, text, found):
    assert Pattern(pattern).search(text) is found


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "[", "*", "a**", "a{2}{3}", "a{2,1}", "a{1001}", "(a{500}){500}", "(?=a)", "(?<!a)", r"(a)\1", r"\q",
     r"\pL", "[z-a]", "[[:odd:]]", "\\", "(" * 1000, "(?i:a)", "a" * 5000],
)  # fmt: skip
def test_what_is_no_pattern_or_too_much_is_refused(pattern):
    with pytest.raises(BadPattern):
        Pattern(pattern)


@pytest.mark.timeout(60)
def test_a_pattern_that_holds_re_for_ever_takes_a_moment():
    assert not Pattern("^(a+)+$").search("a" * 4096 + "b")
    assert not Pattern("^(a|a?)*(a|aa)*c$").search("a" * 4096)


def test_what_is_remembered_is_bounded():
    pattern = Pattern("a|b")
    assert not pattern.search("".join(map(chr, range(0x4E00, 0x9FFF))))
    assert len(pattern._next) <= 2000


@given(st.text(r"ab(){}[]^$*+?|\.,-:1dwsAzQE", max_size=30), st.text(max_size=10))
def test_nothing_but_a_bad_pattern_ever_comes_out(pattern, text):
    try:
        Pattern(pattern).search(text)
    except BadPattern:
        pass
