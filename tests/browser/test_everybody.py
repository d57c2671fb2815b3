"""Every page in both themes can be used by everybody, as far as axe-core can tell, and fits a telephone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.scene import SERVICE, Scene, Traffic
from tests.browser.visitor import NARROW, THEMES, Visit, Visitor, eventually
from tests.support import wait_until

pytestmark = pytest.mark.e2e

PAGES = {
    "overview": "/",
    "service": f"/services/{SERVICE}",
    "instances": "/instances",
    "instances-filtered": "/instances?health=critical",
    "instances-nothing": "/instances?q=nothing-like-it",
    "instance": f"/instances/{SERVICE}/first",
    "instance-critical": "/instances/mixed/bad",
    "instance-draining": f"/instances/{SERVICE}/second",
    "confirm": f"/confirm?kind=drain&id={SERVICE}/first",
    "calls": "/calls",
    "calls-service": f"/calls?service={SERVICE}",
    "events": "/events",
    "lookup": "/lookup",
    "lookup-service": f"/lookup?service={SERVICE}",
    "about": "/about",
    "sign-in": "/sign-in",
    "missing": "/nothing-here",
}


# What looks different to somebody who has not signed in.
TO_ALL = ("overview", "instances", "instance", "confirm", "sign-in")


@pytest.fixture(scope="module")
def fleet(model: Path) -> Iterator[Scene]:
    """A bit of everything: two nodes under traffic, one of them drained, and others in every state of health."""
    with Scene(model) as scene:
        scene.start_registry()
        scene.start_dashboard()
        scene.register("mixed", "good", ttl=True, meta={"zone": "eu-1", "version": "7"}, tags=("gpu",))
        scene.register("mixed", "so-so", ttl=True)
        scene.register("mixed", "bad", ttl=True)
        scene.add_nodes("first", "second")
        scene.say("so-so", "warning", "the disk is 91 % full")
        scene.say("bad", "critical", "HTTP GET http://127.0.0.1:9/readyz: connection refused\nand a second line of it")
        with Traffic(scene):
            wait_until(lambda: scene.twin("/calls")["callers"], 30, "the client has reported")
            yield scene
        assert scene.complaints() == []


@pytest.fixture(scope="module")
def order(fleet: Scene, browser: Browser) -> str:
    """The path of an order that has been carried out."""
    visitor = Visitor(browser, fleet)
    page = visitor.page
    visitor.go(f"/confirm?kind=drain&id={SERVICE}/second")
    visitor.sign_in("ada")
    page.get_by_label("Why?").fill("a new disk")
    page.get_by_label("Type the service's name").fill(SERVICE)
    page.locator("main form[method=post] button[type=submit]").click()
    expect(page.locator("#order-progress")).to_contain_text("It is out.", timeout=30_000)
    path = page.url.removeprefix(fleet.origin)
    visitor.context.close()
    return path


def test_axe_finds_no_serious_barrier_on_any_page(fleet: Scene, order: str, visit: Visit) -> None:
    visitor = visit(fleet)
    visitor.expected = [r"status of 404"]
    visitor.go("/")
    barriers = []
    for signed_in in (False, True):
        if signed_in:
            visitor.go("/")
            visitor.sign_in("ada")
            eventually(lambda: "operator ada" in visitor.page.content(), visitor, "signed in")
        every = {**PAGES, "order": order}
        for name in every if signed_in else TO_ALL:
            visitor.go(every[name])
            for theme in THEMES:
                visitor.wear(theme)
                barriers += [f"{name} {theme}: {each}" for each in visitor.barriers()]
            if signed_in:
                visitor.picture(f"12-{name}")
    assert not barriers, "\n".join(sorted(set(barriers)))


def test_no_page_is_wider_than_a_telephone(fleet: Scene, order: str, visit: Visit) -> None:
    visitor = visit(fleet, viewport=NARROW)
    visitor.expected = [r"status of 404"]
    visitor.go("/")
    visitor.sign_in("ada")
    wide = {}
    for name, path in {**PAGES, "order": order}.items():
        visitor.go(path)
        if found := visitor.sideways():
            wide[name] = found
        visitor.page.screenshot(path=visitor.path(f"390-{name}"), full_page=True)
    assert wide == {}
