"""A page that is open tells the truth by itself: what comes, what dies, and that it can no longer know."""

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.scene import SERVICE, Scene
from tests.browser.visitor import THEMES, Visit, Visitor

pytestmark = pytest.mark.e2e

# Looking at every second, a second for the list, and a check's interval of one.
SEEN = 8_000
# What a browser says of a stream that breaks off.
CUT = r"ERR_(CONNECTION_REFUSED|INCOMPLETE_CHUNKED_ENCODING|CONNECTION_RESET|EMPTY_RESPONSE)"
PAGES = ("/", "/instances", f"/services/{SERVICE}", "/calls", "/events", f"/lookup?service={SERVICE}", "/about")


def test_the_first_run_says_how_to_start_and_the_first_node_appears_by_itself(scene: Scene, visit: Visit) -> None:
    visitor = visit(scene)
    page = visitor.page
    visitor.go("/")
    expect(page.locator("main")).to_contain_text("twostep train digits --out models/digits")
    expect(page.locator("main")).to_contain_text(f"twostep node --model models/digits --registry {scene.address}")
    visitor.picture("1-first-run")
    visitor.mark()

    scene.add_nodes("first")

    expect(page.locator("main")).to_contain_text("passing", timeout=SEEN)
    expect(page.get_by_role("link", name=SERVICE, exact=True).first).to_be_visible(timeout=SEEN)
    assert visitor.same()
    visitor.picture("1-first-node")


def test_a_node_that_is_killed_is_critical_with_its_cause_on_every_open_page(scene: Scene, visit: Visit) -> None:
    scene.add_nodes("first", "second")
    visitor = visit(scene)
    opened = {}
    for path in ("/", "/instances", f"/instances/{SERVICE}/second"):
        opened[path] = visitor.context.new_page()
        opened[path].goto(path)
        expect(opened[path].locator("main")).to_contain_text("passing")
        opened[path].evaluate("window.__same = true")

    scene.kill_node("second")

    for path, page in opened.items():
        expect(page.locator("main")).to_contain_text("critical", timeout=SEEN)
        expect(page.locator("main")).to_contain_text(re.compile(r"\b\d+ s\b"))
        assert page.evaluate("window.__same === true"), path
    for path in ("/", f"/instances/{SERVICE}/second"):
        expect(opened[path].locator("main")).to_contain_text("Cannot connect")
    checks = opened[f"/instances/{SERVICE}/second"].locator("#instance-checks details")
    expect(checks.filter(has_text="critical").locator("pre")).to_be_visible()  # what is wrong is unfolded
    for name, path in (("overview", "/"), ("instances", "/instances"), ("instance", f"/instances/{SERVICE}/second")):
        visitor.page = opened[path]
        visitor.picture(f"2-killed-{name}")


def test_while_the_registry_is_away_every_page_says_how_old_its_data_are(scene: Scene, visit: Visit) -> None:
    scene.add_nodes("first")
    visitor = visit(scene)
    page = visitor.page
    visitor.go("/instances")
    expect(page.locator("#fresh")).to_have_class(re.compile(r"\blive\b"))
    visitor.mark()

    scene.kill_registry()

    expect(page.locator("#notice")).to_contain_text("The registry does not answer", timeout=SEEN)
    expect(page.locator("#fresh")).to_have_class(re.compile(r"\bold\b"), timeout=20_000)
    expect(page.locator("#fresh .words")).to_contain_text(re.compile(r"data of .*\d+ s (old|ago)"))
    expect(page.locator("body")).to_have_class(re.compile("stale"))
    expect(page.locator("main")).to_contain_text("first")  # the last list stays
    for theme in THEMES:
        visitor.wear(theme)
        assert visitor.barriers() == []  # old, and still to be read
    visitor.picture("4-registry-away-instances")
    other = visitor.context.new_page()
    for path in PAGES:
        other.goto(path)
        expect(other.locator("#fresh .words")).to_contain_text(re.compile(r"data of .*\d+ s (old|ago)"))
        expect(other.locator("#notice")).to_contain_text("What you see is the last list there was")
    other.goto("/")
    _picture_of(visitor, other, "4-registry-away-overview")
    other.close()

    scene.start_registry()

    expect(page.locator("#fresh")).to_have_class(re.compile(r"\blive\b"), timeout=20_000)
    expect(page.locator("#notice")).not_to_contain_text("does not answer")
    expect(page.locator("body")).not_to_have_class(re.compile("stale"))
    assert visitor.same()
    visitor.go("/events")
    expect(page.locator("main")).to_contain_text("registry lost")
    expect(page.locator("main")).to_contain_text("registry back")
    visitor.picture("4-registry-back-events")


def test_an_open_page_says_that_the_dashboard_is_gone_and_goes_on_with_the_next(scene: Scene, visit: Visit) -> None:
    scene.register("stable", "one")
    visitor = visit(scene)
    visitor.expected = [CUT]
    page = visitor.page
    visitor.go("/instances")
    expect(page.locator("main")).to_contain_text("one")
    expect(page.locator("#banner")).to_be_hidden()
    visitor.mark()

    assert scene.stop_dashboard() < 3.0  # an open stream keeps nobody

    expect(page.locator("#banner")).to_contain_text("The dashboard does not answer since", timeout=10_000)
    expect(page.locator("body")).to_have_class(re.compile("stale"))
    visitor.picture("5-dashboard-gone")

    scene.register("stable", "two")
    scene.start_dashboard()

    expect(page.locator("#banner")).to_be_hidden(timeout=15_000)
    expect(page.locator("main")).to_contain_text("two", timeout=15_000)
    assert visitor.same()


def test_a_page_held_still_stays_as_it_is_until_it_goes_on(scene: Scene, visit: Visit) -> None:
    scene.register("stable", "one", ttl=True)
    held, other = visit(scene), visit(scene)
    for each in (held, other):
        each.go("/instances")
        expect(row(each, "one")).to_contain_text("passing")

    held.page.get_by_role("button", name="Pause").click()
    expect(held.page.get_by_role("button", name="Paused")).to_have_attribute("aria-pressed", "true")
    for status in ("critical", "warning"):  # when the other has seen the second, this one has been sent the first
        scene.say("one", status, "it has had enough")
        expect(row(other, "one")).to_contain_text(status)
    expect(row(held, "one")).to_contain_text("passing")

    held.page.get_by_role("button", name="Paused").click()
    expect(row(held, "one")).to_contain_text("warning")


def test_a_tab_that_is_not_seen_has_no_stream_and_catches_up(scene: Scene, visit: Visit) -> None:
    scene.register("stable", "one", ttl=True)
    hidden, other = visit(scene), visit(scene)
    for each in (hidden, other):
        each.go("/instances")
        expect(row(each, "one")).to_contain_text("passing")

    hide = "(hidden) => { Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    hidden.page.evaluate(hide, arg=True)
    for status in ("critical", "warning"):
        scene.say("one", status, "it has had enough")
        expect(row(other, "one")).to_contain_text(status)
    expect(row(hidden, "one")).to_contain_text("passing")

    hidden.page.evaluate(hide, arg=False)
    expect(row(hidden, "one")).to_contain_text("warning")
    expect(hidden.page.locator("#banner")).to_be_hidden()


def row(visitor: Visitor, name: str) -> Locator:
    return visitor.page.locator("table[data-rows] tbody tr").filter(has_text=name)


def _picture_of(visitor: Visitor, page: object, name: str) -> None:
    mine, visitor.page = visitor.page, page  # type: ignore[assignment]
    visitor.picture(name)
    visitor.page = mine
