"""About, sign-in and refusals: what they say, and what they never say."""

import pytest

from registry.dashboard.access import Session
from registry.dashboard.pages import problem, signin
from registry.dashboard.pages.about import About
from registry.dashboard.shell import shell
from tests.registry.dashboard.drawing import HOSTILE, RENDERER, ask, draw, harmless, links, words, world


def alone(template, variables, seen=None):
    around = shell(seen or world(), name="", here="/", version="", theme="auto", session=None, live=False)
    return RENDERER.alone(template, around, **variables)


def test_about_names_versions_and_how_it_was_started():
    view, html = draw(ask(About), world(about={"Registry": "consul://127.0.0.1:8500", "Note": HOSTILE}))
    versions = {each.name: each.words for each in view.versions}
    assert versions.keys() == {"twostep", "aiohttp", "jinja2", "msgspec", "Python"}
    assert versions["aiohttp"][0].isdigit()
    assert "Registry consul://127.0.0.1:8500" in words(html)
    assert harmless(html)


def test_about_says_who_may_act():
    _, html = draw(ask(About), world())
    assert "Nobody: it is read-only. Start it with --operator-token-file FILE" in words(html)
    assert "/sign-in?back=/about" not in links(html)
    _, html = draw(ask(About), world(can_act=True))
    assert "for 12 h, or until idle for 60 min" in words(html)
    assert "/sign-in?back=/about" in links(html)
    session = Session(name="ada", csrf="c", cookie="k", begun=0.0)
    _, html = draw(ask(About), world(can_act=True), session)
    assert "/sign-in?back=/about" not in links(html)


def test_about_says_what_is_bounded():
    view, _ = draw(ask(About), world(unfollowed=3))
    bounds = {each.name: each.words for each in view.bounds}
    assert bounds["Services followed"] == "0; 3 more are registered"
    assert bounds["Reports of clients"] == "at most 512 KiB and 2,000 instances each"


def test_the_sign_in_form_goes_on_where_one_was():
    back = "/instances?q=" + "a" * 400 + "&zone=eu"
    html = alone("signin.html", signin.variables(back, can_act=True))
    assert f'name="back" value="{back.replace("&", "&amp;")}"' in html
    assert 'action="/sign-in"' in html
    assert 'type="password"' in html
    assert 'autocomplete="current-password"' in html
    assert "drain and undrain" in words(html)
    assert 'role="alert"' not in html[html.index("<main") :]


def test_a_refused_sign_in_says_why_and_keeps_no_token():
    html = alone("signin.html", signin.variables("/", "this is no operator token of this dashboard", can_act=True))
    assert "This is no operator token of this dashboard." in words(html)
    assert 'aria-describedby="refused"' in html
    assert html[html.index('id="token"') :].partition(">")[0].count("value=") == 0


def test_where_nobody_can_sign_in_there_is_no_form():
    html = alone("signin.html", signin.variables("/calls", can_act=False))
    assert 'action="/sign-in"' not in html
    assert "--operator-token-file FILE" in words(html)
    assert links(html) == ["/calls"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 415, 429, 500, 418])
def test_a_refusal_has_a_title_its_sentence_and_a_next_step(status):
    variables = problem.variables(status, "sign in first")
    html = alone("problem.html", variables)
    assert words(html).startswith(f"{variables['title']} {status} Sign in first. ")
    assert links(html) == (["/sign-in?back=%2F"] if status == 401 else ["/"])


def test_a_refusal_leads_back_where_it_began():
    back = "/confirm?kind=drain&id=a"
    assert links(alone("problem.html", problem.variables(409, "the set has changed", back))) == [back]
    html = alone("problem.html", problem.variables(401, "sign in first", back))
    assert links(html) == ["/sign-in?back=%2Fconfirm%3Fkind%3Ddrain%26id%3Da"]


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_no_way_on_leads_out_of_the_dashboard(back):
    assert links(alone("problem.html", problem.variables(409, "x", back))) == ["/"]
    html = alone("signin.html", signin.variables(back, can_act=True))
    assert links(html) == ["/"]
    assert 'name="back" value="/"' in html


def test_titles_are_told_apart():
    titles = [problem.variables(status, "x")["title"] for status in (400, 401, 403, 404, 405, 409, 429, 500)]
    assert len(set(titles)) == len(titles)


def test_hostile_text_is_text():
    assert harmless(alone("problem.html", problem.variables(404, HOSTILE, "/" + HOSTILE[:200])))
    assert harmless(alone("signin.html", signin.variables("/<script>", HOSTILE, can_act=True)))
