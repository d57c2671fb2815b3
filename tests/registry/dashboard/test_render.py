"""What a template prints: harmless, cut to a length, and with the words for figures that people expect."""

import re
import subprocess
import sys

import jinja2
import pytest
from markupsafe import Markup

from registry.dashboard import render
from registry.dashboard.render import MOST, MOST_OUTPUT, MOST_SEGMENT, Part, Renderer


@pytest.fixture
def printed():
    renderer = Renderer()

    def printed(template, **variables):
        return renderer._environment.from_string(template).render(variables)

    return printed


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("<b onclick='x'>\"", "&lt;b onclick=&#39;x&#39;&gt;&#34;"),
        ("a\u202eb\u2066", r"a\u202eb\u2066"),
        ("a\x00\x1b[31m\tb\r\n", r"a\x00\x1b[31m\tb\r\n"),
        ("\ud800", r"\ud800"),
        (None, "–"),
        (0, "0"),
        (Markup("<i>"), "<i>"),
        ("x" * MOST, "x" * MOST),
        ("x" * (MOST + 1), "x" * MOST + "…"),
    ],
)
def test_whatever_is_printed_is_fit_to_be_seen(printed, given, shown) -> None:
    assert printed("{{ given }}", given=given) == shown


def test_a_name_that_is_not_there_fails_at_once(printed) -> None:
    with pytest.raises(jinja2.UndefinedError):
        printed("{{ missing }}")
    with pytest.raises(jinja2.UndefinedError):
        Renderer().part(Part("parts/notice.html", {}, None))


def test_what_a_check_said_keeps_its_lines_and_is_cut(printed) -> None:
    assert printed("{{ said | output }}", said="a<\r\nb\u202e\x00") == "a&lt;\nb\\u202e\\x00"
    long = printed("{{ said | output }}", said="x" * 1_000_000)
    assert long == "x" * MOST_OUTPUT + "\n… cut here; 1,000,000 characters in all"
    assert "cut here" not in printed("{{ said | output }}", said="x" * MOST_OUTPUT)


def test_a_name_is_one_segment_of_an_address(printed) -> None:
    assert printed("{{ n | segment }}", n='a/b?c#d"<\u202e\ud800 .') == "a%2Fb%3Fc%23d%22%3C%E2%80%AE%3F%20."
    assert printed("{{ n | segment }}", n="x" * 5000) == "x" * MOST_SEGMENT


@pytest.mark.parametrize(
    ("value", "number", "ms", "percent"),
    [
        (None, "–", "–", "–"),
        (0.0, "0", "0 ms", "0 %"),
        (0.9999999, "1", "1 ms", "99.99 %"),
        (1.0, "1", "1 ms", "100 %"),
        (0.0421, "0.042", "0 ms", "4.21 %"),
        (12.345, "12.3", "12.3 ms", "100 %"),
        (1234.5, "1,234", "1.2 s", "100 %"),
    ],
)
def test_figures_have_their_units_and_the_unknown_is_a_dash(value, number, ms, percent) -> None:
    assert (render.number(value), render.ms(value), render.percent(value)) == (number, ms, percent)


def test_moments_are_the_same_for_everybody() -> None:
    assert render.clock(1_700_000_000) == "2023-11-14 22:13:20 UTC"
    assert render.clock(None) == render.ago(None, 5.0) == "–"
    assert (render.ago(10.0, 99.0), render.ago(10.0, 9.0)) == ("89 s ago", "0.0 s ago")


def test_no_template_marks_text_as_safe_or_holds_a_script_or_a_style() -> None:
    renderer = Renderer()
    names = renderer._environment.list_templates()
    assert len(names) > 20
    for name in names:
        source = renderer._environment.loader.get_source(renderer._environment, name)[0]
        assert not re.search(r"\|\s*safe\b", source), name
        assert " style=" not in source, name
        assert "<style" not in source, name
        assert source.replace('<script type="module" src="/static/app.js"></script>', "").count("<script") == 0, name


def test_without_jinja2_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['jinja2'] = None\nimport registry.dashboard.render"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("jinja2 is not installed; run: pip install 'twostep[dashboard]'")
