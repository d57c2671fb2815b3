"""Calls: who calls whom, from clients' own reports, and what is said of those that are silent."""

import msgspec
from multidict import MultiDict

from registry.dashboard.calls import Calls
from registry.dashboard.pages.calls import CallsPage
from registry.dashboard.wire import NodeReport, Report
from registry.testing import ManualClock
from tests.registry.dashboard.drawing import HOSTILE, ask, draw, harmless, links, words, world


def report(client="web-1", service="digits", **more):
    facts = {
        "period": 5.0,
        "policy": "rotation-p2c",
        "calls": 500,
        "failed": 5,
        "in_flight": 3,
        "retries": 10,
        "budget_left": 20.0,
        "latencies": [(8.0, 490), (100.0, 10)],
        "nodes": [
            NodeReport(instance="d1", ok=300, latencies=[(8.0, 300)]),
            NodeReport(instance="d2", ok=150, failed=50, state="ejected", latencies=[(100.0, 200)]),
        ],
    }
    return msgspec.json.encode(Report(client=client, service=service, **(facts | more)))


def heard(clock, *reports):
    calls = Calls(clock)
    for number, each in enumerate(reports):
        calls.take(each, f"10.0.0.{number}")
    return calls


def test_before_any_report_it_says_how_to_turn_them_on():
    view, html = draw(ask(CallsPage), world())
    assert view.callers == ()
    said = words(html)
    assert 'AsyncSmartClient("digits", reporter="http://HOST:PORT")' in said
    assert "TWOSTEP_DASHBOARD=http://HOST:PORT" in said
    assert "<table" not in html


def test_a_caller_has_its_figures_and_whom_it_leaves_out():
    clock = ManualClock()
    view, html = draw(ask(CallsPage), world(clock, calls=heard(clock, report())))
    (caller,) = view.callers
    assert (caller.client, caller.service, caller.policy) == ("web-1", "digits", "rotation-p2c")
    assert (caller.rps, caller.success, caller.retries, caller.budget_left) == (100.0, 0.99, 2.0, 20.0)
    assert caller.p50 is not None
    assert caller.p99 is not None
    assert caller.p50 < 10 < 90 < caller.p99
    assert (caller.leaves_out, caller.instances, caller.named) == (1, 2, ("d2",))
    said = words(html)
    assert "1 client reports calls." in said
    assert "100 99 %" in said
    assert "1 of 2: d2" in said
    assert "/instances/digits/d2" in links(html)
    assert "Choose a service to see" in said


def test_a_success_that_is_not_all_is_never_shown_as_all():
    clock = ManualClock()
    view = ask(CallsPage).view(world(clock, calls=heard(clock, report(calls=1_000_000, failed=1))))
    assert view.callers[0].success == 0.9999


def test_what_was_never_measured_is_a_dash():
    clock = ManualClock()
    idle = report(calls=0, failed=0, latencies=[], nodes=[], budget_left=None)
    view, html = draw(ask(CallsPage), world(clock, calls=heard(clock, idle)))
    assert (view.callers[0].success, view.callers[0].p50, view.callers[0].budget_left) == (None, None, None)
    assert "–" in words(html)
    assert "none of 0" in words(html)
    assert "None" not in words(html)
    assert "nan" not in html


def test_after_fifteen_seconds_without_a_report_a_client_is_silent():
    clock = ManualClock()
    calls, page = heard(clock, report("web-1"), report("web-2")), ask(CallsPage)
    at_once = page.view(world(clock, calls=calls))
    assert at_once.silent == 0
    clock._now += 15.0  # only what is read moves; nobody sleeps
    assert page.view(world(clock, calls=calls)).silent == 0
    clock._now += 25.0
    seen = world(clock, calls=calls)
    view, html = draw(page, seen)
    assert view.silent == 2
    assert view.callers[0].rps == 100.0
    assert "2 of them are silent now, and the figures are the last they said" in words(html)
    assert "silent, heard 40 s ago" in words(html)
    key = page.parts(view, seen)["row:digits/web-1"].key
    assert key != page.parts(at_once, seen)["row:digits/web-1"].key


def test_a_service_has_its_clients_by_instances_what_is_left_out_first():
    clock = ManualClock()
    calls = heard(clock, report("web-1"), report("web-2", calls=50), report("batch", service="cats"))
    view, html = draw(ask(CallsPage, "service=digits"), world(clock, calls=calls))
    assert [each.client for each in view.callers] == ["web-1", "web-2"]
    assert [(each.client, each.instance, each.state) for each in view.pairs] == [
        ("web-1", "d2", "ejected"),
        ("web-2", "d2", "ejected"),
        ("web-1", "d1", ""),
        ("web-2", "d1", ""),
    ]
    assert (view.pairs[0].rps, view.pairs[0].success) == (40.0, 0.75)
    assert view.services == ("cats", "digits")
    assert "2 clients report calls of digits" in words(html)
    assert {"/calls", "/calls?service=cats"} <= set(links(html))


def test_filtered_to_nothing_offers_everybody():
    clock = ManualClock()
    view, html = draw(ask(CallsPage, "service=moon"), world(clock, calls=heard(clock, report())))
    assert (view.found, view.total, view.pairs) == (0, 1, ())
    assert "No client has reported calls of moon. Show all callers" in words(html)


def test_many_clients_and_instances_stay_a_page():
    clock = ManualClock()
    nodes = [NodeReport(instance=f"d{n:04}", ok=n + 1, state="ejected" if n < 300 else "") for n in range(1000)]
    calls = heard(clock, *(report(f"web-{n:03}", nodes=nodes if n < 3 else nodes[:2]) for n in range(150)))
    seen = world(clock, calls=calls)
    view, html = draw(ask(CallsPage, "service=digits"), seen)
    assert (len(view.callers), view.found, view.pages) == (100, 150, 2)
    assert (view.callers[0].leaves_out, len(view.callers[0].named)) == (300, 5)
    assert "and 295 more" in words(html)
    assert 0 < len(view.pairs) <= 50
    assert view.more_pairs == 3 * 1000 + 147 * 2 - len(view.pairs)
    assert "/calls?service=digits&page=2" in links(html)
    second, _ = draw(ask(CallsPage, "service=digits&page=99"), seen)
    assert (second.page, len(second.callers)) == (2, 50)


def test_a_client_that_has_moved_is_one_row():
    clock = ManualClock()
    calls = Calls(clock)
    calls.take(report("web-1"), "10.0.0.1")
    clock._now += 100.0
    calls.take(report("web-1", policy="rotation"), "10.0.0.2")
    view, _ = draw(ask(CallsPage), world(clock, calls=calls))
    assert [(each.client, each.policy, each.silent) for each in view.callers] == [("web-1", "rotation", False)]


def test_addresses_in_one_form():
    assert ask(CallsPage, "page=1&x=2").here == "/calls"
    assert ask(CallsPage, "page=-3").here == "/calls"
    assert ask(CallsPage, "page=2&service= digits").here == "/calls?service=digits&page=2"


def test_hostile_text_is_text():
    clock = ManualClock()
    name = HOSTILE[:250]
    nodes = [NodeReport(instance=name, ok=1, state="ejected")]
    calls = heard(clock, report(name, service=name, policy=name, nodes=nodes))
    _, html = draw(CallsPage({}, MultiDict(service=name)), world(clock, calls=calls))
    assert harmless(html)
    _, html = draw(CallsPage({}, MultiDict(service=HOSTILE)), world(clock))
    harmless(html)
