"""Events: what is shown of the journal, and how one gets from page to page."""

import csv
import io

import pytest
from multidict import MultiDict

from registry.dashboard.journal import Journal
from registry.dashboard.model import Event, Kind
from registry.dashboard.page import BadAddress
from registry.dashboard.pages.events import Events, as_csv
from registry.testing import ManualClock
from tests.registry.dashboard.drawing import HOSTILE, ask, draw, harmless, links, words, world

CLOCK = ManualClock()


def journal(*events, count=0):
    found = Journal()
    for number in range(count):
        kind = Kind.HEALTH if number % 2 else Kind.REGISTERED
        words = f"event {number} happens"
        found.add(
            Event(at=CLOCK.time() - 1000 + number, kind=kind, words=words, service="digits", instance=f"d-{number}")
        )
    for each in events:
        found.add(each)
    return found


CRITICAL = Event(
    at=CLOCK.time() - 40,
    kind=Kind.HEALTH,
    words="digits-3 is critical: connection refused",
    service="digits",
    instance="digits-3",
    health="critical",
)
DRAINS = Event(at=CLOCK.time(), kind=Kind.ACTION, words="ada drains digits-2", who="ada", why="kernel update")


def test_before_anything_has_happened_it_says_so():
    view, html = draw(ask(Events), world())
    assert view.events == ()
    assert "Nothing has happened since this dashboard was started" in words(html)
    assert "<table" not in html


def test_the_newest_is_first_with_its_links_who_and_why():
    page = ask(Events)
    view, html = draw(page, world(journal=journal(CRITICAL, DRAINS)))
    assert [each.number for each in view.events] == [2, 1]
    assert page.order(view) == ("row:2", "row:1")
    assert html.index('id="row:2"') < html.index('id="row:1"')
    assert "/instances/digits/digits-3" in links(html)
    assert "/services/digits" in links(html)
    said = words(html)
    assert "40 s ago 2023-11-14 22:12:40 UTC health critical digits-3 is critical: connection refused" in said
    assert "ada drains digits-2 – – ada kernel update" in said


def test_a_hundred_to_a_page_and_older_ones_by_number():
    seen = world(journal=journal(count=250))
    page = ask(Events, "kind=health&kind=registered&q=happens")
    view, html = draw(page, seen)
    assert len(view.events) == 100
    assert view.older == 151
    older = next(each for each in links(html) if "before=" in each)
    assert older == "/events?q=happens&kind=registered&kind=health&before=151"
    second, html = draw(ask(Events, older.partition("?")[2]), seen)
    assert [second.events[0].number, second.events[-1].number] == [150, 51]
    assert "/events?q=happens&kind=registered&kind=health" in links(html)
    last, html = draw(ask(Events, "before=51"), seen)
    assert (len(last.events), last.older) == (50, None)
    assert 'rel="next"' not in html


def test_new_events_make_a_new_order_and_leave_old_rows_alone():
    kept, page = journal(CRITICAL), ask(Events)
    seen = world(journal=kept)
    before = page.view(seen)
    kept.add(DRAINS)
    after = page.view(seen)
    assert page.order(after) == ("row:2", *page.order(before))
    assert page.parts(after, seen)["row:1"].key == page.parts(before, seen)["row:1"].key


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("q=REFUSED", [1]),
        ("kind=action", [2]),
        ("kind=action&kind=health", [2, 1]),
        ("service=digits", [1]),
        ("instance=digits-3", [1]),
        ("health=critical", [1]),
        ("health=passing", []),
        ("before=nonsense&unknown=1", [2, 1]),
    ],
)
def test_filters_narrow(query, numbers):
    view = ask(Events, query).view(world(journal=journal(CRITICAL, DRAINS)))
    assert [each.number for each in view.events] == numbers


def test_filtered_to_nothing_offers_to_clear_the_filter():
    view, html = draw(ask(Events, "q=moon"), world(journal=journal(CRITICAL)))
    assert view.events == ()
    assert "No event matches. Clear the filter" in words(html)
    assert links(html).count("/events") == 2


def test_past_the_oldest_it_says_that_the_oldest_are_forgotten():
    _, html = draw(ask(Events, "before=1"), world(journal=journal(CRITICAL)))
    assert "There are no older events" in words(html)


@pytest.mark.parametrize("query", ["kind=rain", "health=fine"])
def test_a_word_that_is_none_is_refused_with_those_there_are(query):
    with pytest.raises(BadAddress, match=r"There is no such (kind|health); take one of: .*(gone|draining)"):
        ask(Events, query)


def test_one_address_for_the_same_question_however_it_is_written():
    assert (
        ask(Events, "kind=health&kind=gone&service= digits &x=1").here == "/events?kind=gone&kind=health&service=digits"
    )
    assert (
        ask(Events, "kind=gone&kind=health&service=digits&before=0").here
        == ask(Events, "service=digits&kind=health&kind=gone").here
    )


def test_chips_turn_a_kind_on_and_off():
    chips = {each.name: each for each in ask(Events, "kind=gone&q=a").chips}
    assert chips["gone"].on
    assert chips["gone"].href == "/events?q=a"
    assert not chips["health"].on
    assert chips["health"].href == "/events?q=a&amp;kind=gone&amp;kind=health"


def test_the_export_holds_everything_that_matches():
    seen = world(journal=journal(count=250))
    page = ask(Events, "kind=health&before=50")
    assert page.csv == "/events.csv?kind=health"
    rows = list(csv.DictReader(io.StringIO(as_csv(MultiDict(kind="health"), seen))))
    assert len(rows) == 125
    assert rows[0]["words"] == "event 249 happens"


def test_hostile_text_is_text():
    made = Event(
        at=CLOCK.time(), kind=Kind.ACTION, words=HOSTILE, service=HOSTILE, instance=HOSTILE, who=HOSTILE, why=HOSTILE
    )
    _, html = draw(Events({}, MultiDict(q="<script>")), world(journal=journal(made)))
    assert harmless(html)
    _, html = draw(Events({}, MultiDict(q=HOSTILE, service=HOSTILE, instance="\ud800")), world(journal=journal(made)))
    assert harmless(html)
