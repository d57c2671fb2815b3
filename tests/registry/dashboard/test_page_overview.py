"""The overview: the sentence, what needs a look and in which order, squares and rows, and that it stays small."""

import dataclasses

import msgspec
import pytest

from registry.consul.reports import CheckReport
from registry.dashboard import wire
from registry.dashboard.calls import Calls
from registry.dashboard.journal import Journal
from registry.dashboard.model import Event, Fleet, Kind, Member, NodeLoad, Registry, Service
from registry.dashboard.pages.overview import Overview, squares
from registry.dashboard.series import Series
from registry.model import Health, Instance
from registry.testing import ManualClock
from tests.registry.dashboard import drawing
from tests.registry.dashboard.drawing import HOSTILE, ask, draw, harmless, links, words

CLOCK = ManualClock()
NOW = CLOCK.time()
REFUSED = CheckReport(check_id="http", name="http", status="critical", output="connection refused", service_id="s")
SLOW = CheckReport(check_id="http", name="http", status="warning", output="slow", service_id="s")


class Loads:
    def __init__(self, found=()):
        self.found = dict(found)

    def get(self, service, instance):
        return self.found.get((service, instance))


def member(number, health="passing", *, service="digits", since=60.0, witnessed=True, version="", checks=()):
    name = number if isinstance(number, str) else f"{service}-{number}"
    return Member(
        instance=Instance(
            id=name, service=service, address="10.0.0.1", port=8080, health=Health(health), version=version
        ),
        checks=checks or {"critical": (REFUSED,), "warning": (SLOW,)}.get(health, ()),
        since=NOW - since,
        witnessed=witnessed,
        joined=NOW - 600,
    )


def service(name="digits", *health, **more):
    members = tuple(member(number, each, service=name) for number, each in enumerate(health))
    return Service(name=name, members=members, **more)


def world(*services, loads=(), calls=None, journal=None, series=None, registry=None, unfollowed=0):
    seen = drawing.world(CLOCK, services=services, calls=calls, journal=journal, unfollowed=unfollowed)
    seen = dataclasses.replace(seen, loads=Loads(loads), series=series or Series())
    if registry is None:
        return seen
    return dataclasses.replace(seen, fleet=msgspec.structs.replace(seen.fleet, registry=registry))


def reported(*reports):
    calls = Calls(CLOCK)
    for each in reports:
        calls.take(msgspec.json.encode(each), "127.0.0.1")
    return calls


def report(client="web", name="digits", **more):
    return wire.Report(client=client, service=name, period=5.0, **more)


def overview(*services, **more):
    return ask(Overview).view(world(*services, **more))


def sentence(*services, **more):
    return overview(*services, **more).attention.status.words


def told(view):
    return [(each.health, each.service, each.instance, each.words) for each in view.attention.concerns]


# The sentence


@pytest.mark.parametrize(
    ("services", "health", "expected"),
    [
        ([("a", "passing", "passing"), ("b", "passing")], "passing", "All 3 instances of 2 services are passing."),
        ([("a", "passing")], "passing", "The one instance of 1 service is passing."),
        (
            [("a", "passing", "draining", "passing")],
            "passing",
            "2 of 3 instances of 1 service are passing; 1 is draining, on purpose.",
        ),
        (
            [("a", "passing", "critical", "warning", "draining")],
            "critical",
            "2 of 4 instances need attention: 1 critical, 1 warning.",
        ),
        ([("a", "passing", "warning")], "warning", "1 of 2 instances needs attention: 1 warning."),
        (
            [("a", "critical"), ("b", "passing")],
            "critical",
            "1 of 2 instances needs attention: 1 critical; 1 of 2 services has no passing instance.",
        ),
        ([("a",)], "critical", "There is no instance of any service."),
    ],
)
def test_one_sentence_says_how_the_fleet_fares(services, health, expected):
    status = overview(*(service(*each) for each in services)).attention.status
    assert (status.health, status.words) == (health, expected)


def test_what_is_no_instance_s_fault_is_in_the_sentence_too():
    words = sentence(service("digits", "passing", suspect=True))
    assert words == "The one instance of 1 service is passing; 1 other thing to look at."


def test_a_registry_that_is_away_makes_it_the_last_that_is_known():
    away = Registry(source="consul://127.0.0.1:8500", heard_at=NOW - 90, error="connection refused")
    view = overview(service("digits", "passing"), registry=away)
    assert view.attention.status.words == (
        "The registry does not answer. Last known: the one instance of 1 service is passing."
    )
    assert view.attention.status.health == "warning"
    assert told(view)[0] == ("warning", "", "", "The registry does not answer: connection refused")
    assert view.attention.concerns[0].since == NOW - 90


def test_a_registry_never_heard_of_is_no_empty_fleet():
    never = Registry(source="consul://127.0.0.1:8500", error="connection refused")
    assert sentence(registry=never) == "The registry has not answered yet: connection refused."


# What needs a look


def test_nothing_needs_a_look_when_all_is_well():
    view, html = draw(ask(Overview), world(service("digits", "passing", "draining")))
    assert view.attention.concerns == ()
    assert view.attention.more == 0
    assert "Nothing needs a look." in words(html)


def test_a_service_without_a_passing_instance_goes_before_any_instance():
    view = overview(service("a", "passing", "critical"), service("b", "draining", "warning"))
    assert told(view) == [
        ("critical", "b", "", "No instance of b is passing: 1 warning, 1 draining."),
        ("critical", "a", "a-1", "check http is critical: connection refused"),
        ("warning", "b", "b-1", "check http is warning: slow"),
    ]


def test_instances_come_worst_first_and_then_by_how_long():
    members = (
        member(1, "warning", since=900),
        member(2, "critical", since=10),
        member(3, "critical", since=500, witnessed=False),
        member(4),
    )
    view, html = draw(ask(Overview), world(Service(name="digits", members=members)))
    assert [each.instance for each in view.attention.concerns] == ["digits-3", "digits-2", "digits-1"]
    assert "digits-3 of digits: check http is critical: connection refused · for at least 8 min" in words(html)
    assert "/instances/digits/digits-2" in links(html)


def test_no_more_than_a_dozen_are_told_and_the_rest_is_a_link():
    view, html = draw(ask(Overview), world(service("digits", "passing", *["critical"] * 40)))
    assert len(view.attention.concerns) == 12
    assert view.attention.more == 28
    assert "+28 more" in words(html)
    assert "/instances?health=critical&health=warning" in links(html)


def test_lists_that_may_be_untrue_are_named_with_their_age():
    view = overview(
        service("a", "passing", live=False, error="timed out", last_good_at=NOW - 30),
        service("b", "passing", suspect=True, last_good_at=NOW),
    )
    assert told(view)[0] == ("warning", "a", "", "Its list is not followed now: timed out")
    assert view.attention.concerns[0].since == NOW - 30
    assert told(view)[1][:2] == ("warning", "b")
    assert "More than half of it is missing" in told(view)[1][3]


def test_while_the_registry_is_away_its_lists_are_not_complained_of_one_by_one():
    away = Registry(source="consul://127.0.0.1:8500", heard_at=NOW, error="gone")
    view = overview(*(service(f"s{number}", "passing", live=False) for number in range(5)), registry=away)
    assert len(view.attention.concerns) == 1


def test_an_instance_that_only_clients_find_bad_is_told():
    out = [wire.NodeReport(instance=each, state="ejected") for each in ("digits-0", "digits-1", "gone")]
    calls = reported(report("web", nodes=out), report("app", nodes=out[:1]), report("cli"))
    view = overview(service("digits", "passing", "critical", "passing"), calls=calls)
    assert told(view)[1:] == [("warning", "digits", "digits-0", "2 clients leave it out though its checks pass")]


def test_what_a_silent_client_said_counts_no_more():
    clock = ManualClock()
    calls = Calls(clock)
    calls.take(msgspec.json.encode(report(nodes=[wire.NodeReport(instance="digits-0", state="ejected")])), "h")
    seen = world(service("digits", "passing"), calls=calls)
    assert len(ask(Overview).view(seen).attention.concerns) == 1
    clock._now += 61
    assert ask(Overview).view(dataclasses.replace(seen, now=clock.time())).attention.concerns == ()


@pytest.mark.parametrize(
    ("clients", "nodes", "complains"),
    [(40, 10, True), (40, 30, False), (6, 1, False), (10, 40, False), (40, None, False)],
)
def test_requests_that_no_node_knows_of_are_told(clients, nodes, complains):
    load = {("digits", "digits-0"): NodeLoad(at=NOW, inflight=nodes)}
    view = overview(service("digits", "passing"), calls=reported(report(in_flight=clients)), loads=load)
    expected = [("warning", "digits", "", f"Clients have {clients} requests under way, its nodes know of {nodes}")]
    assert told(view) == (expected if complains else [])


# Squares


def test_squares_are_worst_first_and_bounded():
    view, html = draw(
        ask(Overview),
        world(service("digits", *["passing"] * 300, "critical", "warning", "draining", *["passing"] * 700)),
    )
    (strip,) = view.strips
    assert [health for _, health in strip.squares[:4]] == ["critical", "warning", "draining", "passing"]
    assert len(strip.squares) == 120
    assert strip.rest == {"passing": 883}
    assert "+883 passing 1,000 passing" in words(html)
    assert html.count('<li class="dot" aria-hidden="true">') == 117  # the passing ones of 120
    assert 'href="/instances/digits/digits-300" title="digits-300: critical" aria-label="digits-300: critical"' in html


def test_many_services_share_the_squares():
    view = overview(*(service(f"s{number:02}", *["passing"] * 100) for number in range(50)))
    assert sum(len(each.squares) for each in view.strips) == 600


def test_more_ill_ones_than_squares_are_counted_by_their_health():
    view = overview(service("digits", *["critical"] * 200, *["passing"] * 3))
    assert view.strips[0].rest == {"critical": 80, "passing": 3}


# Rows


def test_a_row_gathers_what_all_sides_say():
    members = (member(0, version="1"), member(1, version="2"), *(member(n, version="3") for n in (2, 3)), member(4))
    calls = reported(report(calls=50, failed=1, in_flight=3, latencies=[(10.0, 40), (100.0, 10)]))
    loads = {
        ("digits", "digits-0"): NodeLoad(at=NOW, queue=3),
        ("digits", "digits-1"): NodeLoad(at=NOW, queue=4),
        ("digits", "digits-2"): NodeLoad(at=NOW - 60, queue=100, error="no answer within 2 s"),
    }
    view, html = draw(ask(Overview), world(Service(name="digits", members=members), calls=calls, loads=loads))
    (row,) = view.rows
    assert (row.figures.rps, row.figures.success, row.figures.in_flight) == (10.0, 0.98, 3)
    assert row.figures.latency.p50 == pytest.approx(10, rel=0.1)
    assert row.queue == 7
    assert row.versions == (("3", 2), ("1", 1), ("2", 1))
    assert row.more_versions == 0
    assert "98 %" in words(html)


def test_what_nobody_has_said_is_a_dash_and_never_a_number():
    view, html = draw(ask(Overview), world(service("digits", "passing")))
    (row,) = view.rows
    assert (row.figures.rps, row.figures.success, row.figures.latency.p99, row.queue) == (None, None, None, None)
    assert "digits 1 – – – – – – –" in words(html)
    assert "nan" not in html.lower()


def test_success_is_never_rounded_up_to_all():
    view = overview(service("digits", "passing"), calls=reported(report(calls=1_000_000, failed=1)))
    assert view.rows[0].figures.success == 0.9999


def test_more_versions_than_fit_are_counted():
    members = tuple(member(number, version=f"v{number}") for number in range(7))
    view, html = draw(ask(Overview), world(Service(name="digits", members=members)))
    assert len(view.rows[0].versions) == 3
    assert view.rows[0].more_versions == 4
    assert "v0 ×1, v1 ×1, v2 ×1 +4" in words(html)


def test_the_small_chart_shows_requests_or_where_nobody_reports_who_passes():
    series = Series()
    for at in range(3):
        series.add("passing:a", NOW - 30 + 10 * at, 5)
        series.add("rps:a", NOW - 30 + 10 * at, None)
        series.add("rps:b", NOW - 30 + 10 * at, 7)
    _, html = draw(ask(Overview), world(service("a", "passing"), service("b", "passing"), series=series))
    assert 'aria-label="passing instances: 5 at last' in html
    assert 'aria-label="requests/s: 7 at last' in html


def test_an_old_list_says_of_when_it_is():
    _, html = draw(ask(Overview), world(service("digits", "passing", live=False, last_good_at=NOW - 40)))
    assert "digitslist of 2023-11-14 22:12:40 UTC" in words(html)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", ["bad", "ill", "slow", "well"]),
        ("sort=nonsense", ["bad", "ill", "slow", "well"]),
        ("sort=-attention", ["well", "slow", "ill", "bad"]),
        ("sort=-name", ["well", "slow", "ill", "bad"]),
        ("sort=-instances", ["ill", "slow", "well", "bad"]),
        ("sort=rps", ["well", "ill", "bad", "slow"]),
        ("sort=-rps", ["ill", "well", "bad", "slow"]),
    ],
)
def test_services_are_sorted_and_unknown_values_come_last(address, expected):
    fleet = [
        service("well", "passing", "passing"),
        service("slow", "warning", "passing"),
        service("ill", "critical", "passing", "passing"),
        service("bad", "critical"),
    ]
    calls = reported(report(name="well", calls=5), report(name="ill", calls=50))
    view = ask(Overview, address).view(world(*fleet, calls=calls))
    assert [each.name for each in view.rows] == expected


def test_heads_of_columns_sort_and_pressed_again_turn_round():
    assert ask(Overview).heading("rps") == {"href": "/?sort=-rps", "sorted": "none"}
    assert ask(Overview, "sort=-rps").heading("rps") == {"href": "/?sort=rps", "sorted": "descending"}
    assert ask(Overview, "sort=rps").heading("rps") == {"href": "/?sort=-rps", "sorted": "ascending"}
    assert ask(Overview).heading("attention") == {"href": "/?sort=-attention", "sorted": "ascending"}
    _, html = draw(ask(Overview, "sort=-rps"), world(service("digits", "passing")))
    assert html.count('aria-sort="descending"') == 1


def test_fifty_services_make_a_page():
    fleet = [service(f"s{number:03}", "passing") for number in range(120)]
    page = ask(Overview, "page=2&sort=name")
    view, html = draw(page, world(*fleet))
    assert (len(view.rows), view.rows[0].name, view.page, view.pages, view.services) == (50, "s050", 2, 3, 120)
    assert "51–100 of 120 services" in words(html)
    assert {"/?sort=name", "/?sort=name&page=3"} <= set(links(html))
    assert ask(Overview, "page=99").view(world(*fleet)).page == 3
    assert ask(Overview, "page=x").view(world(*fleet)).page == 1


@pytest.mark.parametrize(
    ("address", "here"),
    [("", "/"), ("sort=attention&page=1&x=y", "/"), ("page=2&sort=-rps", "/?sort=-rps&page=2"), ("page=-1", "/")],
)
def test_an_address_has_one_form(address, here):
    assert ask(Overview, address).here == here


# Around it


def test_a_first_run_says_how_to_start_a_service():
    view, html = draw(ask(Overview), world())
    assert view.attention.status.words == "No service is registered yet."
    assert "twostep train digits --out models/digits" in words(html)
    assert "twostep node --model models/digits --registry consul://127.0.0.1:8500" in words(html)
    assert "appears here without a reload" in words(html)
    assert ask(Overview).order(view) == []


def test_the_card_of_the_registry_says_what_it_is_and_what_is_left_out():
    registry = Registry(source="consul://10.0.0.9:8500", live=True, leader="10.0.0.9:8300", heard_at=NOW - 2)
    fleet = [service("a", "passing", index=7), service("b", "passing", index=812)]
    view, html = draw(ask(Overview), world(*fleet, registry=registry, unfollowed=3))
    assert (view.registry.index, view.registry.followed, view.registry.unfollowed) == (812, 2, 3)
    said = words(html)
    assert "Stateanswers Heard2 s ago Leader10.0.0.9:8300 Highest index812" in said
    assert "2 followed, 3 not followed" in said


def test_the_last_events_are_there_newest_first():
    journal = Journal()
    for number in range(10):
        journal.add(Event(at=NOW - 100 + number, kind=Kind.HEALTH, words=f"event {number}", service="digits"))
    view, html = draw(ask(Overview), world(service("digits", "passing"), journal=journal))
    assert [each.number for each in view.events] == [10, 9, 8, 7, 6, 5, 4, 3]
    assert "event 9" in words(html)
    assert "/events" in links(html)


# How it lives


def keys(seen):
    page = ask(Overview)
    return {name: part.key for name, part in page.parts(page.view(seen), seen).items()}


def test_time_that_passes_draws_nothing_again():
    seen = world(service("digits", "passing", "critical"))
    assert keys(seen) == keys(dataclasses.replace(seen, now=NOW + 3600))


def test_a_change_draws_only_what_it_touches():
    before = keys(world(service("a", "passing"), service("b", "passing")))
    after = keys(world(service("a", "passing"), service("b", "critical")))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"overview-status", "overview-attention", "strip:b", "row:b"}


def test_a_new_point_draws_the_chart_again():
    series = Series()
    series.add("rps:digits", NOW - 10, 1)
    before = keys(world(service("digits", "passing"), series=series))
    series.add("rps:digits", NOW, 1)
    after = keys(world(service("digits", "passing"), series=series))
    assert {name for name in before if before[name] != after[name]} == {"row:digits"}


def test_the_page_does_not_grow_with_its_instances():
    _, small = draw(ask(Overview), world(service("digits", *["passing"] * 200)))
    _, large = draw(ask(Overview), world(service("digits", *["passing"] * 5000)))
    assert len(large) - len(small) < 200


def test_what_is_hostile_comes_out_as_text():
    check = CheckReport(check_id=HOSTILE, name=HOSTILE, status="critical", output=HOSTILE)
    journal = Journal()
    journal.add(Event(at=NOW, kind=Kind.HEALTH, words=HOSTILE, service=HOSTILE, instance=HOSTILE, who=HOSTILE))
    long = HOSTILE[:1000]
    bad = member(long, "critical", service=long, version=HOSTILE, checks=(check,))
    registry = Registry(source=HOSTILE, heard_at=NOW, error=HOSTILE, leader=HOSTILE)
    hostile = Service(name=long, members=(bad,), live=False, error=HOSTILE)
    _, html = draw(ask(Overview), world(hostile, journal=journal, registry=registry))
    assert harmless(html)
    assert len(html) < 40_000
    first_run = dataclasses.replace(world(), fleet=Fleet(registry=Registry(source=HOSTILE, live=True, heard_at=NOW)))
    assert harmless(draw(ask(Overview), first_run)[1])


def test_a_hostile_name_still_has_one_id_for_row_and_squares():
    assert squares("digits") == "strip:digits"
    assert len(squares(HOSTILE)) < 100
    assert squares(HOSTILE).isprintable()


def test_it_can_be_said_as_json():
    view = overview(service("digits", "passing", "critical"), calls=reported(report(calls=5)))
    said = msgspec.json.decode(msgspec.json.encode(view))
    assert said["counts"] == {"critical": 1, "warning": 0, "draining": 0, "passing": 1}
    assert said["rows"][0]["figures"]["rps"] == 1.0
    assert said["attention"]["concerns"][0]["instance"] == "digits-1"
