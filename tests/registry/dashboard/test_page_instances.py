"""The list of instances, as data and as a page."""

import re

import pytest
from multidict import MultiDict

from registry.dashboard import guard
from registry.dashboard.access import Session
from registry.dashboard.pages import instances
from registry.dashboard.pages.instances import Instances
from tests.registry.dashboard.drawing import HOSTILE, ask, harmless, links, words
from tests.registry.dashboard.fleet import NOW, draw, fleet, load, many, member, reported, service, world

ADA = Session(name="ada", csrf="c", cookie="k", begun=0.0)
FIVE = [
    service("digits", *(member(f"digits-{n}", zone="eu" if n < 3 else "us") for n in range(1, 5))),
    service("photos", member("photos-1", "photos", health="critical", twostep=False)),
]


def drawn(address="", seen=None, session=None):
    return draw(ask(Instances, address), seen or world(*FIVE), session)


def test_a_row_holds_what_the_node_says_beside_what_its_clients_say():
    calls = reported(
        {"instance": "digits-1", "ok": 50, "in_flight": 9, "latencies": [(8.0, 49), (64.0, 1)], "state": "ejected"}
    )
    seen = world(*FIVE, loads={("digits", "digits-1"): load(inflight=2, queue=1, rps=99)}, calls=calls)
    view, html = drawn("service=digits&sort=id", seen)
    row = view.rows[0]
    assert (row.id, row.inflight_node, row.inflight_clients, row.gap) == ("digits-1", 2, 9, True)
    assert (row.queue, row.rps, row.success, row.ejected_by, row.clients) == (1, 10.0, 1.0, 1, 1)
    assert row.p50 < row.p99
    assert "≠ 2 / 9, far apart" in words(html)
    assert "1 of 1" in words(html)
    assert 'title="The node counts 2 requests under way, its clients 9' in html


def test_the_rate_is_the_nodes_own_while_no_client_reports():
    view, html = drawn("service=digits&sort=id", world(*FIVE, loads={("digits", "digits-1"): load(rps=7)}))
    assert (view.rows[0].rps, view.rows[0].success, view.rows[0].clients) == (7, None, 0)
    assert "nan" not in words(html).lower()
    assert "None" not in words(html)


def test_never_heard_is_a_dash_fresh_is_now_and_late_has_its_age():
    said = {
        ("digits", "digits-1"): load(inflight=1),
        ("digits", "digits-2"): load(inflight=1, at=NOW - 40, error="no answer within 2 s"),
    }
    view, html = drawn("service=digits&sort=id", world(*FIVE, loads=said))
    assert [each.late for each in view.rows] == [False, True, False, False]
    last = re.findall(r'<td class="num">((?:(?!<td).)*)</td>\s*</tr>', html, re.DOTALL)
    assert last[0] == "now"
    assert ">40 s ago<" in last[1]
    assert "no answer within 2 s" in html.partition('id="row:digits/digits-2"')[2].partition("</tr>")[0]
    assert last[2] == "–"


def test_hearing_again_what_was_heard_changes_no_row():
    page = ask(Instances, "service=digits")
    keys = []
    for at in (NOW, NOW - 4):
        seen = world(*FIVE, loads={("digits", "digits-1"): load(inflight=1, at=at)})
        keys.append({name: part.key for name, part in page.parts(page.view(seen), seen).items()})
    assert keys[0] == keys[1]
    seen = world(*FIVE, loads={("digits", "digits-1"): load(inflight=2)})
    now = {name: part.key for name, part in page.parts(page.view(seen), seen).items()}
    assert [name for name in now if now[name] != keys[0][name]] == ["row:digits/digits-1"]


def test_a_hundred_are_on_a_page_and_the_caption_says_which():
    seen = world(many(312))
    view, html = drawn("page=2", seen)
    assert (len(view.rows), view.first, view.last, view.pages) == (100, 101, 200, 4)
    assert "101–200 of 312 instances; worst first" in words(html)
    assert {"/instances", "/instances?page=3"} <= set(links(html))
    view, html = drawn("page=99", seen)
    assert (view.page, len(view.rows), view.last) == (4, 12, 312)
    assert "/instances?page=5" not in links(html)


def test_the_caption_says_of_how_many_when_filtered():
    _, html = drawn("zone=eu")
    assert "1–2 of 2 instances that match, of 5 in all" in words(html)


def test_filtered_to_nothing_there_is_a_way_back():
    _, html = drawn("zone=mars", session=ADA)
    assert "None of the 5 instances matches. Clear the filter" in words(html)
    assert "/instances" in links(html)
    assert "<table" not in html
    assert 'id="bulk"' not in html


def test_before_the_first_instance_it_says_where_to_read_on():
    _, html = drawn(seen=world())
    assert "No instance has registered yet" in words(html)
    assert "/" in links(html)


def test_a_filter_is_in_the_form_and_in_every_link():
    page = ask(Instances, "q=a b&service=digits&zone=eu&health=warning&tag=x&sort=-p99&page=2")
    assert page.here == "/instances?q=a+b&service=digits&zone=eu&health=warning&tag=x&sort=-p99&page=2"
    assert page.csv == "/instances.csv?q=a+b&amp;service=digits&amp;zone=eu&amp;health=warning&amp;tag=x&amp;sort=-p99"
    _, html = drawn("q=a&health=critical&tag=x&sort=-p99")
    assert '<input type="search" id="q" name="q" value="a">' in html
    assert '<input type="hidden" name="health" value="critical">' in html
    assert '<input type="hidden" name="sort" value="-p99">' in html
    assert 'name="tag" value="x"' in html
    assert "/instances?q=a&tag=x&sort=-p99" in links(html)  # the chip that is on, turned off


def test_columns_are_sorted_by_links_that_say_which_way():
    _, html = drawn("sort=-p99")
    assert '<th scope="col" class="num" aria-sort="descending"><a href="/instances?sort=p99">p99' in html
    assert html.count("aria-sort") == 1
    assert "/instances?sort=-rps" in links(html)
    assert "/instances?sort=zone" in links(html)
    assert "/instances" in links(html)  # worst first again
    _, html = drawn("sort=zone")
    assert 'aria-sort="ascending"><a href="/instances?sort=-zone"' in html


def test_chips_count_what_a_click_would_show():
    view, html = drawn("service=digits&health=critical")
    assert view.facets.health == {"critical": 0, "warning": 0, "draining": 0, "passing": 4}
    assert re.search(r'href="/instances\?service=digits" aria-current="true"><span class="health critical">', html)
    assert "/instances?service=digits&health=critical&health=passing" in links(html)


def test_boxes_are_there_for_everybody_and_what_they_are_for_only_for_operators():
    _, html = drawn()
    assert 'class="data readonly"' in html
    assert "/confirm" not in html
    _, acting = drawn(session=ADA)
    assert 'class="data"' in acting
    assert '<form id="bulk" class="bar" method="get" action="/confirm"' in acting
    assert acting.count('name="id"') == html.count('name="id"') == 4  # photos-1 takes no orders
    assert 'value="digits/digits-1" form="bulk" aria-label="Select digits-1"' in acting


def test_all_that_match_go_by_the_mark_of_what_is_shown():
    view, html = drawn("service=digits&zone=eu", session=ADA)
    mark = guard.fingerprint(["digits-1", "digits-2"])
    assert (view.drain.count, view.drain.fingerprint, view.undrain.count) == (2, mark, 0)
    assert "Drain all 2 matching…" in words(html)
    assert f"/confirm?kind=drain&all=1&fingerprint={mark}&service=digits&zone=eu" in links(html)
    assert "Undrain all" not in words(html)
    view, html = drawn("zone=eu", session=ADA)
    assert view.drain is None
    assert "Filter by one service to drain all that match." in words(html)


def test_what_is_found_is_looked_for_again_when_the_fleet_has_changed():
    page = ask(Instances, "service=digits")
    assert page.view(world(*FIVE)).matching == 4
    assert page.view(world(seen=fleet(version=2))).matching == 0


def test_an_export_holds_all_that_match_and_not_the_page():
    text = instances.as_csv(MultiDict(service="digits", page="2"), world(many(250), many(3, "photos")))
    assert text.count("\n") == 251
    assert text.startswith("service,id,health,since,address")


@pytest.mark.parametrize("sort", ["", "sort=-rps"])
def test_hostile_text_comes_out_as_text(sort):
    name = HOSTILE[:200]
    bad = member(name, name, zone=HOSTILE, version=HOSTILE, tags=(HOSTILE,), node=HOSTILE, address=HOSTILE)
    calls = reported({"instance": "x", "ok": 1}, client="<script>")
    seen = world(service(name, bad), loads={(name, name): load(error=HOSTILE)}, calls=calls)
    _, html = drawn(f"q=<script>&{sort}", seen, ADA)
    assert harmless(html)


def test_what_has_no_sane_name_cannot_be_chosen():
    _, html = drawn(seen=world(service("digits", member("d" * 5000), member("d-2"))), session=ADA)
    assert html.count('name="id"') == 1


def test_a_page_of_a_thousand_is_no_larger_than_one_of_a_hundred():
    few, plenty = (drawn("service=digits", world(many(count)))[1] for count in (100, 1000))
    assert len(plenty) < len(few) * 1.05
