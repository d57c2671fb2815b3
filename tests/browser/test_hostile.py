"""Whatever a node or a check says is text: it runs nothing, turns nothing round and pushes nothing aside."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.scene import Scene
from tests.browser.visitor import Visit
from tests.support import wait_until

pytestmark = pytest.mark.e2e

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
NASTY = f"\"'>{SCRIPT}\u202egnp.exe\u0007 && rm -rf / {{{{7*7}}}}"
LONG = "x" * 900_000
IDS = {
    "script": "nasty-<script>alert(3)</script>",
    "quotes": "nasty-\"'><b>",
    "turned": "nasty-\u202etxt.exe",
    "long": "nasty-" + "y" * 240,
}


@pytest.fixture(scope="module")
def fleet(model: Path) -> Iterator[Scene]:
    with Scene(model) as scene:
        scene.start_registry()
        scene.start_dashboard()
        for name in IDS.values():
            meta = {"load": "/load", "zone": NASTY, "version": NASTY, "note": NASTY}
            scene.register("nasty", name, ttl=True, output=NASTY, meta=meta, tags=(NASTY, "z" * 2000))
        scene.register("nasty", "large", ttl=True, output=LONG)
        scene.register("<script>alert(4)<b>", "harmless", ttl=True, output=NASTY)
        wait_until(lambda: scene.twin("/instances")["total"] == len(IDS) + 2, 20, "the dashboard knows all of them")
        yield scene
        assert scene.complaints() == []


def test_hostile_words_are_shown_as_words(fleet: Scene, visit: Visit) -> None:
    visitor = visit(fleet)
    page = visitor.page
    for name, path in {
        "overview": "/",
        "instances": "/instances",
        "service": "/services/nasty",
        "events": "/events",
        "lookup": "/lookup?service=nasty",
        "asked": "/instances?q=%3Cscript%3Ealert(5)%3C/script%3E%22%27&zone=%E2%80%AE",
    }.items():
        visitor.go(path)
        expect(page.locator("h1").first).to_be_visible()
        assert page.locator("main script, main img, main b:has-text('>')").count() == 0, path
        assert visitor.sideways() == "", path
        assert visitor.spilled() == [], path
        assert "\u202e" not in page.content(), path
        visitor.picture(f"11-hostile-{name}")


@pytest.mark.parametrize("name", IDS)
def test_an_instance_with_a_hostile_name_has_its_page(fleet: Scene, visit: Visit, name: str) -> None:
    visitor = visit(fleet)
    page = visitor.page
    visitor.go("/instances?service=nasty&sort=id")
    place = sorted([*IDS.values(), "large"]).index(IDS[name])
    page.locator("table[data-rows] tbody tr").nth(place).locator("th a").click()
    expect(page.locator("main")).to_contain_text("critical")
    expect(page.locator("main")).to_contain_text("&& rm -rf / {{7*7}}")
    assert page.locator("main script, main img").count() == 0
    assert visitor.sideways() == ""
    assert "\u202e" not in page.content()
    visitor.picture(f"11-hostile-instance-{name}")


def test_a_megabyte_of_output_is_cut_and_stays_in_its_box(fleet: Scene, visit: Visit) -> None:
    visitor = visit(fleet)
    visitor.go("/instances/nasty/large")
    page = visitor.page
    expect(page.locator("main")).to_contain_text("cut here; 900,000 characters in all")
    assert len(page.content()) < 200_000
    assert visitor.sideways() == ""
    assert page.evaluate("document.documentElement.scrollHeight") < 6_000
    visitor.picture("11-hostile-large")


def test_a_page_that_is_not_there_says_so_in_harmless_words(fleet: Scene, visit: Visit) -> None:
    visitor = visit(fleet)
    visitor.expected = [r"status of 40[04]"]
    page = visitor.page
    for path in ("/%3Cscript%3Ealert(6)%3C/script%3E", "/instances/nasty/nobody", "/services/nastie", "/orders/none"):
        visitor.go(path)
        expect(page.locator("h1")).to_contain_text("404")
        assert page.locator("main script").count() == 0
        assert visitor.sideways() == "", path
    visitor.go("/instances?health=%3Cscript%3E")
    expect(page.locator("h1")).to_contain_text("400")
    visitor.go("/services/nastie")
    expect(page.locator("main")).to_contain_text("nasty")  # the name it is like
    visitor.picture("11-no-such-service")
