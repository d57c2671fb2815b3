"""A page that is open tells the truth by itself: what comes, what dies, and that it can no longer know."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.scene import SERVICE, Scene
from tests.browser.visitor import Visit, Visitor, eventually
from tests.support import wait_until

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
        expect(page.locator("main")).to_contain_text(re.compile(r"\d+ s ago"))
        assert page.evaluate("window.__same === true"), path
    for path in ("/", f"/instances/{SERVICE}/second"):
        expect(opened[path].locator("main")).to_contain_text("Cannot connect")
    row = opened["/instances"].locator("table[data-rows] tbody tr").filter(has_text="second")
    expect(row).to_contain_text("critical")
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
    visitor = visit(scene)
    page = visitor.page
    visitor.go("/instances")
    row = page.locator("table[data-rows] tbody tr").filter(has_text="one")
    expect(row).to_contain_text("passing")

    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Paused")).to_have_attribute("aria-pressed", "true")
    scene.say("one", "critical", "it has had enough")
    wait_until(lambda: "critical" in str(scene.twin("/instances")["rows"]), 10, "the dashboard knows")
    page.wait_for_timeout(2_500)  # two looks long, nothing may change: there is no event to wait for
    expect(row).to_contain_text("passing")

    page.get_by_role("button", name="Paused").click()
    expect(row).to_contain_text("critical")


def test_a_stream_for_a_hidden_tab_is_closed_and_the_page_catches_up(scene: Scene, visit: Visit) -> None:
    scene.register("stable", "one", ttl=True)
    visitor = visit(scene)
    page = visitor.page
    visitor.go("/instances")
    expect(page.locator("main")).to_contain_text("passing")

    hide = "(hidden) => { Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, arg=True)
    scene.say("one", "critical", "it has had enough")
    wait_until(lambda: "critical" in str(scene.twin("/instances")["rows"]), 10, "the dashboard knows")
    expect(page.locator("table[data-rows] tbody tr").filter(has_text="one")).to_contain_text("passing")

    page.evaluate(hide, arg=False)
    expect(page.locator("table[data-rows] tbody tr").filter(has_text="one")).to_contain_text("critical")
    eventually(lambda: not page.locator("#banner").is_visible(), visitor, "the banner is gone")


def _picture_of(visitor: Visitor, page: object, name: str) -> None:
    mine, visitor.page = visitor.page, page  # type: ignore[assignment]
    visitor.picture(name)
    visitor.page = mine
