"""One instance: how it is, what is said of it, what may be done, and what is left when it has gone."""

import re

import pytest
from multidict import MultiDict

from registry.dashboard.access import Session
from registry.dashboard.journal import Journal
from registry.dashboard.model import Event, Kind
from registry.dashboard.page import NoSuchPage
from registry.dashboard.pages.instance import InstancePage
from registry.dashboard.series import Series
from registry.model import Health
from tests.registry.dashboard.drawing import HOSTILE, harmless, links, words
from tests.registry.dashboard.fleet import NOW, check, draw, fleet, load, member, order, reported, service, world

ADA = Session(name="ada", csrf="c", cookie="k", begun=0.0)


def page(own="digits-1", of="digits"):
    return InstancePage({"service": of, "id": own}, MultiDict())


def told(*events):
    journal = Journal()
    for at, kind, said, health in events:
        journal.add(
            Event(at=at, kind=kind, words=said, service="digits", instance="digits-1", health=health, why="new disk")
        )
    return journal


def alone(**fields):
    return service("digits", member(**fields))


def test_one_sentence_says_how_it_is_why_and_since_when():
    ill = alone(health="critical", since=240, checks=[check("critical", "connection refused\nmore"), check()])
    view, html = draw(page(), world(ill))
    assert (view.health, view.witnessed, view.gone) == ("critical", True, False)
    assert "connection refused" in view.cause
    assert "critical for 4 min" in words(html)
    assert "connection refused" in words(html).partition("What it says")[0]


def test_what_was_so_already_may_have_been_so_for_longer():
    found = member()
    seen = world(service("digits", type(found)(instance=found.instance, since=NOW - 60, joined=NOW - 60)))
    assert "or longer: it was so when this dashboard first saw it" in words(draw(page(), seen)[1])


def test_every_check_is_there_the_worst_first_and_open():
    checks = [
        check(output="ok"),
        check("critical", "line 1\nline 2", name="TTL"),
        check("warning", "slow", service_id=""),
    ]
    _, html = draw(page(), world(alone(health="critical", checks=checks)))
    found = re.findall(r"<details( open)?[^>]*>\s*<summary>.*?</span>(.*?)</summary>.*?>([^<]*)</pre>", html, re.DOTALL)
    assert [(opened, name.split("<")[0].strip(), said) for opened, name, said in found] == [
        (" open", "TTL", "line 1\nline 2"),
        (" open", "HTTP", "slow"),
        ("", "HTTP", "ok"),
    ]
    assert "(of the whole machine)" in words(html)


def test_the_output_of_a_check_is_cut_and_says_so():
    view, html = draw(page(), world(alone(checks=[check(output="x" * 30_000), *[check()] * 30])))
    assert len(view.checks[0].output) == 20_000
    assert "30,000 characters in all" in words(html)
    assert "+11 more" in words(html)


def test_facts_are_bounded():
    found = alone(tags=[f"t{n}" for n in range(100)], meta={f"k{n:03}": "v" for n in range(100)}, zone="eu", weight=3)
    view, html = draw(page(), world(found))
    assert (len(view.facts.tags), view.facts.more_tags) == (64, 36)
    assert (len(view.facts.meta), view.facts.more_meta) == (64, 37)
    said = words(html)
    for each in ("Address10.0.0.1:8080", "Machinemachine-1", "Zoneeu", "Version–", "Weight3", "First seen60 min ago"):
        assert each in said


def test_what_it_says_stands_beside_what_its_clients_say():
    nodes = {"instance": "digits-1", "ok": 50, "in_flight": 9, "latencies": [(8.0, 50)], "state": "ejected"}
    said = {("digits", "digits-1"): load(inflight=2, queue=1, wait_ms=12.34, utilization=0.5, capacity_rps=40)}
    view, html = draw(page(), world(alone(), loads=said, calls=reported(nodes)))
    text = words(html)
    for each in (
        "in flight 2",
        "predicted wait 12.3 ms",
        "busy 50 %",
        "requests/s it could do 40",
        "left out by 1 of 1",
    ):
        assert each.replace(" ", "") in text.replace(" ", "")
    assert "The node counts 2 requests under way, its clients 9" in text
    assert [(each.client, each.state) for each in view.callers] == [("ada", "ejected")]
    assert "ejected" in text.partition("Who calls it")[2]


def test_nobody_has_said_anything_yet():
    view, html = draw(page(), world(alone()))
    assert (view.load, view.callers, view.p95) == (None, (), None)
    said = words(html)
    assert "It has not been asked yet." in said
    assert "No client of this service reports." in said
    assert "No client that reports has called it" in said
    assert "Nobody has drained it from here." in said
    assert "nan" not in said.lower().replace("nanosec", "")
    assert "None" not in said


def test_a_silent_node_says_why_and_what_it_said_last():
    said = {("digits", "digits-1"): load(queue=4, at=NOW - 40, error="no answer within 2 s")}
    text = words(draw(page(), world(alone(), loads=said))[1])
    assert "It says nothing now: no answer within 2 s. These are its last words." in text
    assert "Last heard 40 s ago." in text


def test_charts_are_drawn_of_what_was_measured():
    series = Series()
    for step in range(3):
        series.add("wait:digits/digits-1", NOW + 10 * step, 5.0 * step)
        series.add("busy:digits/digits-1", NOW + 10 * step, 0.25)
    view, html = draw(page(), world(alone(), series=series))
    assert [(each.name, len(each.points)) for each in view.charts] == [
        ("wait", 3),
        ("queue", 0),
        ("busy", 3),
        ("p95", 0),
    ]
    assert view.charts[2].points[0][1] == 25
    assert html.count('role="img"') == 4
    assert "Predicted wait" in html


def test_an_operator_may_drain_it_and_call_it_back():
    assert "/confirm?kind=drain&id=digits%2Fdigits-1" in links(draw(page(), world(alone()), ADA)[1])
    out = links(draw(page(), world(alone(health="draining")), ADA)[1])
    assert "/confirm?kind=undrain&id=digits%2Fdigits-1" in out
    assert "/confirm?kind=drain&id=digits%2Fdigits-1" not in out


def test_others_are_told_why_they_may_not():
    _, html = draw(page(), world(alone()))
    assert "/confirm" not in html
    assert "/sign-in?back=%2Finstances%2Fdigits%2Fdigits-1" in links(html)
    assert "read-only: start it with --operator-token-file" in words(draw(page(), world(alone(), can_act=False))[1])
    for session in (None, ADA):
        _, html = draw(page(), world(alone(twostep=False)), session)
        assert "It cannot be drained from here: it is no Twostep node." in words(html)
        assert "/confirm" not in html


def test_the_newest_order_about_it_says_how_far_it_is():
    old, new = order(1, digits_1="done"), order(2, digits_1={"stage": "draining", "inflight": 3}, digits_2="done")
    view, html = draw(page(), world(alone(health="draining"), orders=[old, new]))
    assert (view.order.id, view.order.ended) == ("2", False)
    assert "Drain: it is draining, 3 requests are still inside, 10 s ago." in words(html)
    assert "ada: kernel update" in words(html)
    assert "/orders/2" in links(html)


def test_its_events_are_there_newest_first():
    journal = told(
        (NOW - 90, Kind.HEALTH, "digits-1 is critical: no", "critical"), (NOW - 5, Kind.HEALTH, "fine", "passing")
    )
    view, html = draw(page(), world(alone(), journal=journal))
    assert [each.words for each in view.events] == ["fine", "digits-1 is critical: no"]
    assert '<li class="critical">digits-1 is critical: no (new disk)' in html
    assert "/events?service=digits&instance=digits-1" in links(html)


def test_commands_are_quoted_and_hold_no_token():
    view, html = draw(page(), world(alone(address="10.0.0.1;reboot", meta={"load": "/lo ad"})))
    said = dict(view.curl)
    assert said["what it says of its load"] == "curl -s 'http://10.0.0.1;reboot:8080/lo ad'"
    assert said["drain it"] == (
        'curl -X POST -H "Authorization: Bearer $TOKEN" -d \'{"reason": "say why"}\' '
        "'http://10.0.0.1;reboot:8080/admin/drain'"
    )
    assert "Bearer $TOKEN" in words(html)
    assert dict(page().view(world(alone(twostep=False))).curl) == {
        "whether it answers": "curl -i http://10.0.0.1:8080/"
    }


def test_what_has_gone_has_a_tombstone():
    journal = told(
        (NOW - 300, Kind.HEALTH, "digits-1 is critical: no", "critical"),
        (NOW - 120, Kind.GONE, "digits-1 is gone; it was critical for 3 min", ""),
    )
    view, html = draw(page(), world(service("digits"), journal=journal), ADA)
    assert (view.gone, view.since, view.health, view.facts, view.line) == (True, NOW - 120, "critical", None, None)
    said = words(html)
    assert "It is not registered any more, for 2 min; it was critical when last seen." in said
    assert "digits-1 is gone; it was critical for 3 min" in said
    assert "/confirm" not in html
    assert draw(page(), world(seen=fleet(), journal=journal))[0].gone


@pytest.mark.parametrize(
    ("asked", "seen", "said"),
    [
        (page("digit-1"), world(alone()), "digits has had no instance digit-1 .* Did you mean digits-1?"),
        (page(of="digit"), world(alone()), "There is no service digit here. Did you mean digits?"),
        (page(of="x"), world(alone()), "There is no service x here. All instances are at /instances."),
        (page(), world(seen=fleet(heard=False)), "The registry has not answered yet"),
    ],
)
def test_what_was_never_there_has_a_sentence(asked, seen, said):
    with pytest.raises(NoSuchPage, match=said):
        asked.view(seen)


def test_only_the_panel_that_has_changed_is_drawn_again():
    def keys(**fields):
        seen = world(alone(**fields.pop("of", {})), **fields)
        return {name: part.key for name, part in page().parts(page().view(seen), seen).items()}

    def changed(**fields):
        now = keys(**fields)
        return {name for name in now if now[name] != before[name]}

    at = ("digits", "digits-1")
    before = keys(loads={at: load(inflight=1)})
    assert changed(loads={at: load(inflight=1, at=NOW - 3)}) == set()
    assert changed(loads={at: load(inflight=2)}) == {"instance-says"}
    assert changed(loads={at: load(inflight=1)}, orders=[order(digits_1="asked")]) == {"instance-drain"}
    assert changed(loads={at: load(inflight=1)}, of={"health": Health.DRAINING}) == {
        "instance-status",
        "instance-says",
        "instance-act",
    }


def test_its_address_holds_whatever_its_name_is():
    assert page("a/b c?é", "x").here == "/instances/x/a%2Fb%20c%3F%C3%A9"


def test_hostile_text_comes_out_as_text():
    name = HOSTILE[:200]
    bad = member(
        name, name, health="critical", zone=HOSTILE, version=HOSTILE, tags=(HOSTILE,), node=HOSTILE, address=HOSTILE,
        meta={HOSTILE: HOSTILE, "load": HOSTILE, "scheme": HOSTILE},
        checks=[check(HOSTILE, HOSTILE[:60], name=HOSTILE, notes=HOSTILE)],
    )  # fmt: skip
    journal = Journal()
    journal.add(
        Event(at=NOW, kind=Kind.HEALTH, words=HOSTILE, service=name, instance=name, health=HOSTILE, why=HOSTILE)
    )
    calls = reported({"instance": name, "ok": 1}, service=name, client=name)
    seen = world(
        service(name, bad),
        loads={(name, name): load(error=HOSTILE)},
        journal=journal,
        calls=calls,
        orders=[order(service=name, **{name: {"stage": "refused", "reason": HOSTILE}})],
    )
    view, html = draw(page(name, name), seen, ADA)
    assert view.callers
    assert harmless(html)
