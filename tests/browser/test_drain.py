"""The verb of the dashboard: take an instance out of service from a page, under traffic, and bring it back."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.scene import SERVICE, Scene, Traffic
from tests.browser.visitor import Visit, eventually

pytestmark = pytest.mark.e2e

NODES = ("first", "second", "third")
REASON = "new disk for the second"
ENDED = 30_000  # milliseconds within which an order has come to its end


@pytest.fixture(scope="module")
def fleet(model: Path) -> Iterator[Scene]:
    with Scene(model) as scene:
        scene.start_registry()
        scene.start_dashboard()
        scene.add_nodes(*NODES)
        yield scene
        assert scene.complaints() == []


def give(page: Page, reason: str, typed: str = "") -> None:
    """Fill in the form on the page that says what an order would do, and send it."""
    page.get_by_label("Why?").fill(reason)
    if typed:
        page.get_by_label("Type the service's name").fill(typed)
    page.locator("main form[method=post] button[type=submit]").click()


def test_draining_moves_the_traffic_and_undraining_brings_it_back(fleet: Scene, visit: Visit) -> None:
    visitor = visit(fleet)
    page = visitor.page
    with Traffic(fleet) as traffic:
        eventually(lambda: set(traffic.answers) == set(NODES), visitor, "every node is used")
        visitor.go("/instances")
        expect(page.get_by_label("Select second")).to_be_hidden()
        visitor.sign_in("ada")
        expect(page.locator("header")).to_contain_text("operator ada")
        assert page.url == f"{fleet.origin}/instances"
        page.get_by_label("Select second").check()
        expect(page.locator("[data-chosen]")).to_have_text("1 selected")
        visitor.picture("3-instances-selected")
        page.get_by_role("button", name=re.compile("^Drain selected")).click()

        # One of three is more than a fifth of the service, so its name is asked for, and the effect is said first.
        expect(page.locator("main")).to_contain_text("leaves 2 of 3 passing")
        visitor.picture("3-confirm")
        give(page, REASON, "something else")
        expect(page.get_by_role("alert")).to_contain_text("type the service's name")
        expect(page.get_by_label("Why?")).to_have_value(REASON)  # what was written is not lost
        visitor.picture("3-confirm-refused")
        traffic.one_slow()
        give(page, REASON, SERVICE)

        expect(page).to_have_url(re.compile(r"/orders/"))
        expect(page.locator("main")).to_contain_text(REASON)
        expect(page.locator("main")).to_contain_text("ada")
        visitor.picture("3-order-under-way")
        visitor.mark()
        expect(page.locator("#order-progress")).to_contain_text("It is out.", timeout=ENDED)
        assert visitor.same()
        visitor.picture("3-order-done")
        assert fleet.state_of("second")["held"]["requests"] == 0

        before = Counter(traffic.answers)
        eventually(lambda: traffic.since(before).total() > 50, visitor, "the others take the traffic")
        assert set(traffic.since(before)) == {"first", "third"}
        assert traffic.failures == []

        visitor.go(f"/instances/{SERVICE}/second")
        expect(page.locator("main")).to_contain_text("draining")
        expect(page.locator("main")).to_contain_text(REASON)
        visitor.picture("3-instance-draining")
        visitor.go("/events")
        drained = page.locator("table[data-rows] tbody tr").filter(has_text=REASON).first
        expect(drained).to_contain_text("ada")
        expect(drained).to_contain_text("second")
        visitor.picture("3-events")

        visitor.go(f"/instances/{SERVICE}/second")
        page.get_by_role("main").get_by_role("link", name=re.compile("^Undrain")).click()
        expect(page.locator("main")).to_contain_text("brings 1 of 3 back")
        give(page, "the disk is in")
        expect(page.locator("#order-progress")).to_contain_text("It is back.", timeout=ENDED)
    assert traffic.failures == []
    # By turns, for a policy that goes by latency keeps away from a node whose last request took seconds.
    with Traffic(fleet, policy="rotation") as anew:
        eventually(lambda: anew.answers["second"], visitor, "the second is used again", seconds=20)


def test_what_a_node_refuses_is_said_with_the_next_step(fleet: Scene, visit: Visit) -> None:
    visitor = visit(fleet)
    page = visitor.page
    visitor.go(f"/instances/{SERVICE}/third")
    visitor.sign_in("bo")
    right = fleet.admin_token.read_text()
    fleet.admin_token.write_text("not-the-token-of-the-nodes\n")
    try:
        page.get_by_role("main").get_by_role("link", name=re.compile("^Drain")).click()
        give(page, "to be refused", SERVICE)
        expect(page.locator("#order-progress")).to_contain_text("refused", timeout=ENDED)
        expect(page.locator("main")).to_contain_text("it refused the dashboard's token (401)")
        visitor.picture("3-order-refused")
    finally:
        fleet.admin_token.write_text(right)
    assert "not-the-token-of-the-nodes" not in page.content()
    assert sorted(fleet.passing()) == sorted(NODES)


def test_traffic_is_seen_on_every_page_about_it(fleet: Scene, visit: Visit) -> None:
    visitor = visit(fleet)
    main = visitor.page.locator("main")
    with Traffic(fleet):
        visitor.go("/calls")
        expect(main).to_contain_text("shop", timeout=20_000)
        expect(main).to_contain_text("100 %", timeout=20_000)
        visitor.picture("calls")
        visitor.go(f"/calls?service={SERVICE}")
        expect(main).to_contain_text("first")
        visitor.picture("calls-of-a-service")
        visitor.go(f"/services/{SERVICE}")
        expect(main).to_contain_text("shop")
        expect(main.locator("svg[role=img]").first).to_be_attached()
        visitor.picture("service")
        visitor.go("/")
        expect(main).to_contain_text("instances of 1 service are passing")
        visitor.picture("overview")
        visitor.go(f"/instances/{SERVICE}/first")
        expect(main).to_contain_text("shop")
        visitor.picture("instance")
        visitor.go("/instances")
        expect(main).to_contain_text("100 %")
        visitor.picture("instances")
