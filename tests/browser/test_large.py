"""250 instances: what is looked at stands in the address, and everything can be done by keyboard."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.scene import Scene
from tests.browser.visitor import Visit
from tests.support import wait_until

pytestmark = pytest.mark.e2e

COUNT = 250
LOAD = {"load": "/load"}  # so that they look like nodes, which may be drained


@pytest.fixture(scope="module")
def fleet(model: Path) -> Iterator[Scene]:
    with Scene(model) as scene:
        scene.start_registry()
        scene.start_dashboard()
        for number in range(COUNT):
            meta = LOAD | {"zone": f"eu-{number % 3}", "version": f"v{number % 2}"}
            scene.register("crowd", f"crowd-{number:03}", meta=meta, tags=("even",) if number % 2 == 0 else ())
        for name in ("alpha", "beta", "gamma"):
            scene.register("trio", name, ttl=True, meta=LOAD)
        wait_until(lambda: scene.twin("/instances")["total"] == COUNT + 3, 20, "the dashboard knows all of them")
        yield scene
        assert scene.complaints() == []


@pytest.fixture
def quiet(fleet: Scene) -> Iterator[None]:
    """Everything passes before and after."""
    yield
    for name in ("alpha", "beta", "gamma"):
        fleet.say(name, "passing")


def rows(page: Page) -> Locator:
    return page.locator("table[data-rows] tbody tr")


def ids(page: Page) -> list[str]:
    return [text.split()[0] for text in rows(page).locator("th").all_inner_texts()]


def test_filter_sort_and_page_stand_in_the_address(fleet: Scene, visit: Visit) -> None:
    visitor = visit(fleet)
    page = visitor.page
    visitor.go("/instances")
    expect(rows(page)).to_have_count(100)
    expect(page.locator("caption")).to_contain_text("1–100 of 253 instances")

    page.get_by_label("Service").select_option("crowd")
    expect(page).to_have_url(re.compile(r"service=crowd"))
    expect(page.locator("caption")).to_contain_text("of 250 instances")
    page.get_by_role("columnheader", name="Instance").get_by_role("link").click()
    expect(page).to_have_url(re.compile(r"service=crowd.*sort=id"))
    assert ids(page)[0] == "crowd-000"
    expect(page.get_by_role("columnheader", name="Instance")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("columnheader", name="Instance").get_by_role("link").click()
    expect(page).to_have_url(re.compile(r"sort=-id"))
    assert ids(page)[0] == "crowd-249"
    page.get_by_role("link", name="Next").click()
    expect(page).to_have_url(re.compile(r"service=crowd.*sort=-id.*page=2"))
    assert ids(page)[0] == "crowd-149"
    visitor.picture("6-page-2")
    address = page.url
    page.get_by_role("link", name="Next").click()
    assert ids(page) == [f"crowd-{number:03}" for number in range(49, -1, -1)]
    page.go_back()
    assert page.url == address
    assert ids(page)[0] == "crowd-149"

    page.get_by_role("searchbox").fill("crowd-01")
    page.keyboard.press("Enter")
    expect(page.locator("caption")).to_contain_text("10 instances that match")
    assert re.search(r"q=crowd-01.*service=crowd.*sort=-id", page.url)
    assert "page=" not in page.url
    other = visitor.context.new_page()
    other.goto(page.url)  # what one sends to a colleague
    assert ids(other) == ids(page)


def test_filtered_to_nothing_says_so_and_offers_the_way_out(fleet: Scene, visit: Visit) -> None:
    visitor = visit(fleet)
    page = visitor.page
    visitor.go("/instances?q=no-such-thing&service=crowd")
    expect(page.locator("main")).to_contain_text("None of the 253 instances matches")
    visitor.picture("6-filtered-to-nothing")
    page.locator("main .empty").get_by_role("link", name="Clear the filter").click()
    expect(rows(page)).to_have_count(100)
    assert page.url == f"{fleet.origin}/instances"
    visitor.go("/instances?page=99")
    expect(page.locator("caption")).to_contain_text("201–253 of 253")


def test_everything_goes_by_keyboard(fleet: Scene, visit: Visit, quiet: None) -> None:
    visitor = visit(fleet)
    page = visitor.page
    visitor.go("/instances?service=trio&sort=id")
    visitor.sign_in("ada")
    expect(rows(page)).to_have_count(3)
    expect(page.locator("html.js")).to_have_count(1)  # from here on keys are heard
    press = page.keyboard.press

    press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    press("Enter")
    expect(page.locator("#main")).to_be_focused()
    press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    press("Escape")
    expect(page.get_by_role("searchbox")).not_to_be_focused()

    press("j")
    expect(page.get_by_role("link", name="alpha", exact=True)).to_be_focused()
    press("j")
    press("j")
    press("k")
    expect(page.get_by_role("link", name="beta", exact=True)).to_be_focused()
    press("x")
    expect(page.get_by_label("Select beta")).to_be_checked()
    expect(page.locator("[data-chosen]")).to_have_text("1 selected")
    visitor.picture("9-by-keyboard")
    press("x")
    expect(page.get_by_label("Select beta")).not_to_be_checked()

    press("p")
    expect(page.get_by_role("button", name="Paused")).to_have_attribute("aria-pressed", "true")
    press("p")
    expect(page.get_by_role("button", name="Pause", exact=True)).to_have_attribute("aria-pressed", "false")
    press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    visitor.picture("9-keys")
    press("Escape")
    expect(page.locator("#help")).to_be_hidden()

    press("Enter")
    expect(page).to_have_url(re.compile(r"/instances/trio/beta"))


def test_focus_and_rows_stay_where_they_are_while_things_change(fleet: Scene, visit: Visit, quiet: None) -> None:
    visitor = visit(fleet)
    page = visitor.page
    visitor.go("/instances?service=trio")
    expect(rows(page)).to_have_count(3)
    assert ids(page) == ["alpha", "beta", "gamma"]
    visitor.mark()
    page.keyboard.press("j")
    page.keyboard.press("j")
    beta = page.get_by_role("link", name="beta", exact=True)
    expect(beta).to_be_focused()

    fleet.say("beta", "warning", "warm")
    expect(rows(page).filter(has_text="beta")).to_contain_text("warning")
    expect(beta).to_be_focused()
    fleet.say("gamma", "critical", "hot")
    expect(rows(page).filter(has_text="gamma")).to_contain_text("critical")
    expect(page.locator("#apply-order")).to_be_visible()
    expect(page.locator("#apply-order")).to_have_text(re.compile(r"Apply new order \(\d+\)"))
    assert ids(page) == ["alpha", "beta", "gamma"]  # nothing moved under the finger
    expect(beta).to_be_focused()
    visitor.picture("9-new-order-offered")

    page.locator("#apply-order").click()
    expect(rows(page).first).to_contain_text("gamma")
    assert ids(page) == ["gamma", "beta", "alpha"]
    expect(page.locator("#apply-order")).to_be_hidden()
    assert visitor.same()


def test_a_row_that_nobody_is_in_takes_its_place_at_once(fleet: Scene, visit: Visit, quiet: None) -> None:
    visitor = visit(fleet)
    page = visitor.page
    visitor.go("/instances?service=trio")
    visitor.mark()
    fleet.say("gamma", "critical", "hot")
    expect(rows(page).first).to_contain_text("gamma")
    assert visitor.same()


def test_draining_all_that_match_is_refused_when_the_set_has_changed(fleet: Scene, visit: Visit) -> None:
    visitor = visit(fleet)
    page = visitor.page
    visitor.go("/instances?service=crowd&q=crowd-00")
    visitor.sign_in("ada")
    page.get_by_role("link", name="Drain all 10 matching").click()
    expect(page.locator("main")).to_contain_text("leaves 240 of 250 passing")
    visitor.picture("6-drain-all-matching")
    fleet.deregister("crowd-009")
    try:
        wait_until(lambda: fleet.twin("/instances")["total"] == COUNT + 2, 10, "the dashboard knows")
        page.get_by_label("Why?").fill("a rack goes")
        page.locator("main form[method=post] button[type=submit]").click()
        expect(page.locator("main")).to_contain_text("the set has changed: it is now 9; look again")
        visitor.picture("6-the-set-has-changed")
    finally:
        fleet.register("crowd", "crowd-009", meta=LOAD | {"zone": "eu-0", "version": "v1"})
        wait_until(lambda: fleet.twin("/instances")["total"] == COUNT + 3, 10, "it is back")
