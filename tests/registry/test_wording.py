import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.wording import escaped, length, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\n\n  first \nsecond", "first"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\tb", "a\\tb"),
        ("right\u202eleft", "right\\u202eleft"),
        ("two\u2028lines", "two"),
        ("Größe 図", "Größe 図"),
        ("", ""),
    ],
)
def test_what_others_wrote_becomes_one_harmless_line(text, shown):
    assert printable(text) == shown


def test_a_long_text_is_cut_and_says_so():
    assert printable("x" * 1_000_000, 10) == "x" * 9 + "…"


@given(st.text(), st.integers(1, 50))
def test_nothing_unprintable_and_nothing_longer_comes_out(text, most):
    shown = printable(text, most)
    assert len(shown) <= most
    assert shown.isprintable()


def test_an_identifier_is_shown_whole_on_one_line():
    assert escaped("a\nb\t" + "c" * 1000) == "a\\nb\\t" + "c" * 1000
    assert escaped("plain") == "plain"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0.0 s"), (0.26, "0.3 s"), (12, "12 s"), (89, "89 s"), (180, "3 min"), (7200, "2 h"), (259_200, "3 d")],
)
def test_a_length_of_time_is_told_in_one_unit(seconds, said):
    assert length(seconds) == said
