"""Who may do what, how it looks, and what is left of it all without scripts."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.scene import SERVICE, Scene
from tests.browser.visitor import Visit

pytestmark = pytest.mark.e2e

REFUSED = r"status of 401"


@pytest.fixture(scope="module")
def fleet(model: Path) -> Iterator[Scene]:
    with Scene(model) as scene:
        scene.start_registry()
        scene.start_dashboard()
        scene.add_nodes("first", "second")
        yield scene
        assert scene.complaints() == []


def test_a_wrong_token_is_refused_the_right_one_goes_back_to_where_one_was(fleet: Scene, visit: Visit) -> None:
    visitor = visit(fleet)
    visitor.expected = [REFUSED]
    page = visitor.page
    visitor.go("/events?kind=health")
    visitor.sign_in("ada", "wrong")
    expect(page.get_by_role("alert").filter(has_text="no operator token")).to_be_visible()
    visitor.picture("7-sign-in-refused")
    page.get_by_label("Your name").fill("ada")
    page.get_by_label("Operator token").fill(fleet.token("operator"))
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{fleet.origin}/events?kind=health")
    expect(page.locator("header")).to_contain_text("operator ada")
    cookie = next(each for each in visitor.context.cookies() if "session" in each["name"])
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"

    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("header").get_by_role("link", name="Sign in")).to_be_visible()
    assert [each for each in visitor.context.cookies() if "session" in each["name"]] == []
    visitor.go("/instances")
    expect(page.get_by_label("Select first")).to_be_hidden()
    expect(page.get_by_role("button", name=re.compile("^Drain selected"))).to_have_count(0)


def test_without_operators_there_is_no_control_at_all(model: Path, visit: Visit) -> None:
    with Scene(model) as scene:
        scene.start_registry()
        scene.start_dashboard(operators=False)
        scene.register("tools", "one", meta={"load": "/load"})
        visitor = visit(scene)
        page = visitor.page
        for path in ("/", "/instances", "/instances/tools/one", "/services/tools", "/confirm?kind=drain&id=tools/one"):
            visitor.go(path)
            expect(page.locator("header")).to_contain_text("read-only")
            expect(page.locator("header").get_by_role("link", name="Sign in")).to_have_count(0)
            expect(page.locator("main form[method=post]")).to_have_count(0)
            expect(page.locator("main input[type=checkbox]:visible")).to_have_count(0)
        visitor.picture("7-read-only")
        visitor.go("/sign-in")
        expect(page.locator("main")).to_contain_text("read-only")
        visitor.context.close()


def test_the_theme_is_chosen_and_kept(fleet: Scene, visit: Visit) -> None:
    visitor = visit(fleet)
    page = visitor.page
    visitor.go("/")
    ground = "getComputedStyle(document.body).backgroundColor"
    grounds = {}
    for theme in ("dark", "light"):
        with page.expect_response("**/theme"):
            page.get_by_label("Theme").select_option(theme)
        page.reload()
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        expect(page.get_by_label("Theme")).to_have_value(theme)
        grounds[theme] = page.evaluate(ground)
    assert grounds["dark"] != grounds["light"]
    with page.expect_response("**/theme"):
        page.get_by_label("Theme").select_option("auto")
    page.emulate_media(color_scheme="dark")
    page.reload()
    assert page.evaluate(ground) == grounds["dark"]


def test_what_the_system_asks_for_is_used_until_somebody_chooses(fleet: Scene, visit: Visit) -> None:
    dark = visit(fleet, color_scheme="dark")
    light = visit(fleet, color_scheme="light")
    grounds = set()
    for each in (dark, light):
        each.go("/")
        grounds.add(each.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


def test_everything_works_without_scripts(fleet: Scene, visit: Visit) -> None:
    visitor = visit(fleet, java_script_enabled=False)
    page = visitor.page
    for entry in ("Overview", "Instances", "Calls", "Events", "Look-up"):
        page.goto("/about")
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=entry).click()
        expect(page.locator("h1")).to_be_visible()
        expect(page.locator("nav a[aria-current=page]")).to_have_text(entry)
    page.goto("/instances")
    expect(page.locator("[data-action=pause]")).to_be_hidden()  # it could do nothing
    page.get_by_role("searchbox").fill("second")
    page.get_by_role("button", name="Filter").click()
    expect(page).to_have_url(re.compile("q=second"))
    expect(page.locator("table[data-rows] tbody tr")).to_have_count(1)
    page.get_by_label("Theme").select_option("dark")
    page.get_by_role("button", name="Set").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page).to_have_url(re.compile("q=second"))

    visitor.sign_in("cy")
    expect(page.locator("header")).to_contain_text("operator cy")
    page.get_by_label("Select second").check()
    page.get_by_role("button", name=re.compile("^Drain selected")).click()
    page.get_by_label("Why?").fill("without scripts")
    page.get_by_label("Type the service's name").fill(SERVICE)
    page.screenshot(path=visitor.path("10-no-script-confirm"))
    page.locator("main form[method=post] button[type=submit]").click()
    expect(page).to_have_url(re.compile(r"/orders/"))
    for _ in range(100):
        page.reload()
        if "It is out." in page.locator("#order-progress").inner_text():
            break
        page.wait_for_timeout(200)
    expect(page.locator("#order-progress")).to_contain_text("It is out.")
    page.screenshot(path=visitor.path("10-no-script-order"))
