"""One service: its sentence, figures, tables, charts and commands; and what is said when it is not there."""

import dataclasses

import msgspec
import pytest
from multidict import MultiDict

from registry.consul.reports import CheckReport
from registry.dashboard import wire
from registry.dashboard.calls import Calls
from registry.dashboard.journal import Journal
from registry.dashboard.model import Event, Kind, Member, NodeLoad, Registry, Service
from registry.dashboard.page import BadAddress, NoSuchPage
from registry.dashboard.pages.service import ServicePage, groups
from registry.dashboard.series import Series
from registry.model import Health, Instance
from registry.testing import ManualClock
from tests.registry.dashboard import drawing
from tests.registry.dashboard.drawing import HOSTILE, draw, harmless, links, words

CLOCK = ManualClock()
NOW = CLOCK.time()


class Loads:
    def __init__(self, found=()):
        self.found = dict(found)

    def get(self, service, instance):
        return self.found.get((service, instance))


def member(number, health="passing", *, service="digits", since=60.0, zone="", version=""):
    name = number if isinstance(number, str) else f"{service}-{number}"
    where = {"address": "10.0.0.1", "port": 8080, "zone": zone, "version": version}
    checks = () if health == "passing" else (CheckReport(status="critical", output=HOSTILE),)
    instance = Instance(id=name, service=service, health=Health(health), **where)
    return Member(instance=instance, checks=checks, since=NOW - since, joined=NOW - 600)


def service(*health, name="digits", **more):
    members = tuple(member(number, each, service=name) for number, each in enumerate(health))
    return Service(name=name, members=members, **more)


def world(*services, loads=(), calls=None, journal=None, series=None, unfollowed=0):
    seen = drawing.world(CLOCK, services=services, calls=calls, journal=journal, unfollowed=unfollowed)
    return dataclasses.replace(seen, loads=Loads(loads), series=series or Series())


def page(name="digits"):
    return ServicePage({"service": name}, MultiDict())


def reported(*reports, clock=CLOCK):
    calls = Calls(clock)
    for each in reports:
        calls.take(msgspec.json.encode(each), "127.0.0.1")
    return calls


def report(client="web", name="digits", **more):
    return wire.Report(client=client, service=name, period=5.0, **more)


def refusal(name, seen):
    with pytest.raises(NoSuchPage) as caught:
        page(name).view(seen)
    return str(caught.value)


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        (["passing", "passing"], "All 2 instances of digits are passing."),
        (["passing"], "The one instance of digits is passing."),
        (["passing", "draining"], "1 of 2 instances of digits are passing; 1 is draining, on purpose."),
        (["passing", "critical", "warning"], "2 of 3 instances of digits need attention: 1 critical, 1 warning."),
        (["critical", "draining"], "No instance of digits is passing: 1 critical, 1 draining."),
        ([], "digits has no instance left."),
    ],
)
def test_one_sentence_says_how_it_fares(health, expected):
    view, html = draw(page(), world(service(*health)))
    assert view.status.words == expected
    assert expected in words(html)


def test_figures_of_clients_and_nodes_stand_side_by_side():
    calls = reported(report(calls=50, failed=1, in_flight=9, latencies=[(10.0, 40), (100.0, 10)]))
    loads = {("digits", f"digits-{number}"): NodeLoad(at=NOW, inflight=3, queue=1) for number in range(2)}
    view, html = draw(page(), world(service("passing", "passing"), calls=calls, loads=loads))
    assert (view.figures.in_flight, view.in_flight_nodes, view.queue) == (9, 6, 2)
    assert "Requests/s10 Success98 %" in words(html)
    assert "Under way, nodes say6 Under way, clients say9 Waiting at nodes2" in words(html)


def test_a_sum_over_nodes_is_of_those_that_say():
    loads = {("digits", "digits-0"): NodeLoad(at=NOW, inflight=3)}
    assert page().view(world(service("passing", "passing"), loads=loads)).in_flight_nodes == 3
    assert page().view(world(service("passing", "passing"))).in_flight_nodes is None


def test_never_heard_is_a_dash_and_says_how_to_turn_reports_on():
    view, html = draw(page(), world(service("passing")))
    assert view.figures.rps is None
    assert (
        "Requests/s– Success– p50– p95– p99– Under way, nodes say– Under way, clients say– Waiting at nodes–"
        in words(html)
    )
    assert "No client has reported calls of this service. How to turn reports on" in words(html)
    assert 'aria-label="No latencies have been reported yet"' in html
    assert "nan" not in html.lower()


def test_latencies_are_drawn_with_their_marks():
    calls = reported(report(calls=50, latencies=[(10.0, 40), (100.0, 10)]))
    _, html = draw(page(), world(service("passing"), calls=calls))
    assert 'aria-label="Latencies of 50 attempts' in html
    assert html.count('class="mark"') == 3


def test_the_last_quarter_of_an_hour_is_drawn_and_said():
    series = Series()
    for number, (rate, p95) in enumerate([(1, 5), (None, None), (3, 2000)]):
        series.add("rps:digits", NOW - 20 + 10 * number, rate)
        series.add("p95:digits", NOW - 20 + 10 * number, p95)
    view, html = draw(page(), world(service("passing"), series=series))
    assert view.lines["rps"] == ((NOW - 20, 1), (NOW - 10, None), (NOW, 3))
    assert 'aria-label="Requests, requests/s: 3 at last, 1 to 3 within 20 s, with gaps"' in html
    assert 'aria-label="p95 latency, ms: 2 s at last' in html
    assert 'aria-label="Passing instances, instances: nothing measured yet"' in html


def test_zones_and_versions_count_their_health():
    members = (
        member(0, zone="eu-1", version="2"),
        member(1, "critical", zone="eu-1", version="1"),
        member(2, zone="eu-2", version="2"),
        member(3),
    )
    view, html = draw(page(), world(Service(name="digits", members=members)))
    assert [(each.name, each.instances) for each in view.zones.shown] == [("eu-1", 2), ("", 1), ("eu-2", 1)]
    assert view.zones.shown[0].counts == {"critical": 1, "warning": 0, "draining": 0, "passing": 1}
    assert [each.name for each in view.versions.shown] == ["2", "", "1"]
    assert "/instances?service=digits&zone=eu-1" in links(html)
    assert "/instances?service=digits&version=2" in links(html)


def test_groups_are_bounded_and_the_rest_is_counted():
    found = groups((f"zone-{number}", Health.PASSING) for number in range(50))
    assert (len(found.shown), found.more) == (20, 30)


def test_policies_are_those_of_clients_that_still_talk():
    clock = ManualClock()
    calls = reported(report("old", policy="gone"), clock=clock)
    clock._now += 30
    for client, policy in (("a", "p2c"), ("b", "p2c"), ("c", "rotation"), ("d", "")):
        calls.take(msgspec.json.encode(report(client, policy=policy)), "h")
    view, html = draw(page(), dataclasses.replace(world(service("passing"), calls=calls), now=clock.time()))
    assert view.policies == (("p2c", 2), ("rotation", 1))
    assert "p2c2 clients rotation1 client" in words(html)


def test_callers_are_the_busiest_and_say_when_they_fell_silent():
    clock = ManualClock()
    calls = reported(report("silent", calls=500), clock=clock)
    clock._now += 40
    left = [wire.NodeReport(instance="digits-0", state="ejected"), wire.NodeReport(instance="digits-1", ok=5)]
    calls.take(msgspec.json.encode(report("web", calls=50, nodes=left)), "h")
    view, html = draw(page(), dataclasses.replace(world(service("passing"), calls=calls), now=clock.time()))
    assert [each.client for each in view.callers] == ["silent", "web"]
    assert "silent – 100 100 % – – – 0 – silent, last heard 40 s ago" in words(html)
    assert "web – 10 100 % – – – 0 1 of 2 now" in words(html)


def test_no_more_than_twenty_callers_are_shown():
    calls = reported(*(report(f"web-{number:02}", calls=number) for number in range(30)))
    view, html = draw(page(), world(service("passing"), calls=calls))
    assert (len(view.callers), view.more_callers, view.callers[0].client) == (20, 10, "web-29")
    assert "+10 more; who calls whom" in words(html)
    assert "/calls?service=digits" in links(html)


def test_instances_are_the_worst_and_the_rest_is_a_link():
    view, html = draw(page(), world(service(*["passing"] * 30, "critical", "draining")))
    assert [each.id for each in view.rows[:3]] == ["digits-30", "digits-31", "digits-0"]
    assert len(view.rows) == 20
    assert page().order(view)[0] == "row:digits/digits-30"
    assert "+12 more" in words(html)
    assert "/instances?service=digits" in links(html)


def test_an_old_list_says_of_when_it_is_and_why():
    _, html = draw(page(), world(service("passing", live=False, last_good_at=NOW - 40, error="timed out")))
    assert "This is the list of 2023-11-14 22:12:40 UTC, 40 s ago: timed out" in words(html)


def test_a_list_that_is_hard_to_believe_says_so():
    _, html = draw(page(), world(service("passing", suspect=True)))
    assert "More than half of it is missing" in words(html)


def test_only_its_own_events_are_shown():
    journal = Journal()
    for number in range(30):
        name = "digits" if number % 2 else "photos"
        journal.add(Event(at=NOW - 100 + number, kind=Kind.HEALTH, words=f"event {number}", service=name))
    view, html = draw(page(), world(service("passing"), journal=journal))
    assert [each.number for each in view.events] == list(range(30, 10, -2))
    assert "/events?service=digits" in links(html)


def test_the_same_list_can_be_asked_for_by_command():
    _, html = draw(page(), world(service("passing")))
    assert "twostep lookup --explain --registry=consul://127.0.0.1:8500 digits" in words(html)
    assert "curl -G http://127.0.0.1:8500/v1/health/service/digits -d passing" in words(html)


def test_a_service_whose_last_instance_went_keeps_its_page():
    _, html = draw(page(), world(service()))
    assert "digits has no instance left." in words(html)
    assert '<table class="data" data-rows' not in html


def test_a_service_that_is_gone_says_what_was_last_heard_of_it():
    journal = Journal()
    journal.add(Event(at=NOW - 300, kind=Kind.GONE, words="digits-1 is gone", service="digits"))
    assert refusal("digits", world(service(name="photos"), journal=journal)) == (
        "There is no service called digits in the registry. "
        "The last that was heard of it, 5 min ago: digits-1 is gone. There are: photos."
    )


def test_a_name_nearly_right_is_answered_with_the_right_one():
    assert "Did you mean digits?" in refusal("digit", world(service(), service(name="photos")))


def test_a_name_like_no_other_is_answered_with_some_that_exist():
    fleet = [service(name=f"model{number:02}") for number in range(30)]
    found = refusal("xyz", world(*fleet, unfollowed=4))
    assert "model00, model01" in found
    assert "and 20 more" in found
    assert "4 more are registered and not followed" in found


def test_without_any_service_or_registry_it_says_that():
    assert "No service is registered yet" in refusal("digits", world())
    seen = world()
    never = msgspec.structs.replace(seen.fleet, registry=Registry(source="consul://127.0.0.1:8500"))
    assert "The registry has not answered yet" in refusal("digits", dataclasses.replace(seen, fleet=never))


def test_a_name_that_no_address_can_carry_is_refused():
    with pytest.raises(BadAddress, match="at most 1,024 characters"):
        page(HOSTILE)


def test_a_hostile_address_makes_a_short_sentence():
    found = refusal(HOSTILE[:1000], world(service()))
    assert len(found) < 300
    assert "\u202e" not in found
    assert "\n" not in found


@pytest.mark.parametrize("name", ["digits", "a b", "a/b", "<b>", "50%", "\udcff"])
def test_its_address_can_be_written_for_any_name(name):
    here = page(name).here
    assert here.isascii()
    assert here.count("/") == 2


def keys(seen):
    own = page()
    return {name: part.key for name, part in own.parts(own.view(seen), seen).items()}


def test_time_that_passes_draws_nothing_again():
    seen = world(service("passing", "critical"), calls=reported(report(calls=5)))
    assert keys(seen) == keys(dataclasses.replace(seen, now=NOW + 3))


def test_a_client_that_falls_silent_is_drawn_again():
    seen = world(service("passing"), calls=reported(report(calls=5, policy="p2c")))
    later = keys(dataclasses.replace(seen, now=NOW + 20))
    assert {name for name, key in keys(seen).items() if later[name] != key} == {"service-policies", "service-callers"}


def test_a_new_point_draws_one_chart_again():
    series = Series()
    series.add("rps:digits", NOW - 10, 1)
    before = keys(world(service("passing"), series=series))
    series.add("rps:digits", NOW, 1)
    after = keys(world(service("passing"), series=series))
    assert {name for name in before if before[name] != after[name]} == {"service-rps"}


def test_the_page_does_not_grow_with_its_instances():
    _, small = draw(page(), world(service(*["passing"] * 200)))
    _, large = draw(page(), world(service(*["passing"] * 5000)))
    assert len(large) - len(small) < 200


def test_what_is_hostile_comes_out_as_text():
    long = HOSTILE[:1000]
    bad = member(long, "critical", service=long, zone=HOSTILE, version=HOSTILE)
    journal = Journal()
    journal.add(Event(at=NOW, kind=Kind.HEALTH, words=HOSTILE, service=long, instance=HOSTILE, why=HOSTILE))
    seen = world(Service(name=long, members=(bad,), live=False, error=HOSTILE), journal=journal)
    _, html = draw(page(long), seen)
    assert harmless(html)
    name = HOSTILE[:60]
    calls = reported(report(name, name=name, policy=HOSTILE[:200], calls=1))
    assert harmless(draw(page(name), world(service("passing", name=name), calls=calls))[1])


def test_it_can_be_said_as_json():
    said = msgspec.json.decode(msgspec.json.encode(page().view(world(service("passing", "critical")))))
    assert said["status"]["health"] == "critical"
    assert said["rows"][0]["id"] == "digits-1"
    assert said["histogram"] == []
