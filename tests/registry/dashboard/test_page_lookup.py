"""Look-up: what a client would get, in order, and why the others are out."""

import shlex

import msgspec
from multidict import MultiDict

from registry.consul.reports import CheckReport
from registry.dashboard.model import Member, Service
from registry.dashboard.pages import lookup
from registry.dashboard.pages.lookup import Lookup
from registry.model import Health, Instance
from registry.testing import ManualClock
from tests.registry.dashboard.drawing import HOSTILE, ask, draw, harmless, links, words, world

CLOCK = ManualClock()


def member(name, health=Health.PASSING, *checks, **more):
    instance = Instance(id=name, service="digits", address="10.0.0.1", port=8080, health=health, **more)
    return Member(instance=instance, checks=checks, since=0.0, joined=0.0)


def digits(*members, **more):
    facts = {"name": "digits", "index": 42, "last_good_at": CLOCK.time() - 30} | more
    return Service(members=tuple(sorted(members, key=lambda each: each.id)), **facts)


REFUSED = CheckReport(check_id="service:d2", status="critical", output="connection refused", service_id="d2")
FLEET = digits(
    member("d1", zone="eu", tags=("blue",)),
    member("d2", Health.CRITICAL, REFUSED, zone="eu"),
    member("d3", zone="us", version="2"),
    member("d0", zone="eu", meta={"gpu": "a100"}),
)


def test_what_a_client_gets_comes_first_by_id_and_the_rest_has_its_reason():
    page = ask(Lookup, "service=digits")
    view, html = draw(page, world(services=[FLEET]))
    assert [(each.place, each.id) for each in view.instances] == [(1, "d0"), (2, "d1"), (3, "d3"), (None, "d2")]
    assert view.instances[-1].why == ("check service:d2 is critical: connection refused",)
    assert page.order(view) == ("row:d0", "row:d1", "row:d3", "row:d2")
    said = words(html)
    assert "A client gets 3 of 4 instances of digits." in said
    assert "The registry last answered for it 30 s ago, at index 42." in said
    assert "/instances/digits/d2" in links(html)


def test_filters_are_those_of_clients_and_say_what_they_leave_out():
    view = ask(Lookup, "service=digits&zone=eu&tag=BLUE").view(world(services=[FLEET]))
    out = {each.id: each.why for each in view.instances if each.place is None}
    assert [each.id for each in view.instances if each.place] == ["d1"]
    assert out["d3"] == ("its zone is us, not eu", "it has no tag BLUE")
    assert out["d2"] == ("check service:d2 is critical: connection refused", "it has no tag BLUE")
    by_meta = ask(Lookup, "service=digits&meta=gpu=a100").view(world(services=[FLEET]))
    assert [each.id for each in by_meta.instances if each.place] == ["d0"]


def test_none_in_is_said_and_so_is_an_empty_service():
    _, html = draw(ask(Lookup, "service=digits&version=9"), world(services=[FLEET]))
    assert "A client gets none of the 4 instances of digits" in words(html)
    _, html = draw(ask(Lookup, "service=digits"), world(services=[digits()]))
    assert "A client gets nothing: digits has no instance." in words(html)


def test_a_name_that_is_none_brings_the_ones_like_it():
    seen = world(services=[FLEET, Service(name="cats")], unfollowed=7)
    view, html = draw(ask(Lookup, "service=digit"), seen)
    assert (view.known, view.similar) == (False, ("digits",))
    assert "There is no service digit. Did you mean digits?" in words(html)
    assert "7 more services are registered than this dashboard follows" in words(html)
    assert "/lookup?service=digits" in links(html)
    _, html = draw(ask(Lookup, "service=zebra"), seen)
    assert "No name is like it" in words(html)


def test_without_a_question_there_are_services_to_choose_from():
    view, html = draw(ask(Lookup), world(services=[FLEET]))
    assert "Choose a service." in words(html)
    assert "/lookup?service=digits" in links(html)
    assert '<option value="digits">' in html
    assert (view.twostep, view.curl) == ("", "")
    _, html = draw(ask(Lookup), world())
    assert "No service is registered yet." in words(html)


def test_a_list_that_may_be_old_says_why_and_of_when_it_is():
    lost = digits(member("d1"), live=False, error="connection refused")
    _, html = draw(ask(Lookup, "service=digits"), world(services=[lost]))
    assert "This may be out of date: connection refused. The list is of 30 s ago." in words(html)
    _, html = draw(ask(Lookup, "service=digits"), world(services=[FLEET], live=False))
    assert "This may be out of date: the registry does not answer." in words(html)
    _, html = draw(ask(Lookup, "service=digits"), world(services=[digits(suspect=True)]))
    assert "believed when a second one agrees" in words(html)
    never = digits(live=False, last_good_at=None, error="no leader")
    _, html = draw(ask(Lookup, "service=digits"), world(services=[never]))
    assert "The list is of –." in words(html)


def test_a_thousand_instances_are_a_hundred_rows_of_each_kind():
    many = [member(f"d{n:04}", Health.PASSING if n % 4 else Health.CRITICAL, *[REFUSED] * 20) for n in range(1000)]
    view, html = draw(ask(Lookup, "service=digits"), world(services=[digits(*many)]))
    assert (view.included, view.excluded, len(view.instances)) == (750, 250, 200)
    assert "+650 more are in." in words(html)
    assert "+150 more are out." in words(html)
    assert len(view.instances[-1].why) == lookup.MOST_REASONS + 1
    assert view.instances[-1].why[-1] == "and 14 more"
    assert len(msgspec.json.encode(view)) < 500_000


def test_a_row_is_drawn_again_only_when_it_says_something_else():
    page = ask(Lookup, "service=digits")
    before, after = world(services=[digits(member("d1"))]), world(services=[digits(member("d0"), member("d1"))])
    keys = [page.parts(page.view(each), each)["row:d1"].key for each in (before, before, after)]
    assert keys[0] == keys[1]
    assert keys[1] != keys[2]  # it has another place


def test_the_equivalent_commands_ask_the_same():
    view = ask(Lookup, "service=digits&zone=eu&tag=blue&meta=gpu=a100").view(world(services=[FLEET]))
    assert view.twostep == (
        "twostep lookup --explain --registry=consul://127.0.0.1:8500 --tag=blue --zone=eu --meta=gpu=a100 digits"
    )
    assert shlex.split(view.curl) == [
        "curl", "-G", "http://127.0.0.1:8500/v1/health/service/digits", "-d", "passing", "--data-urlencode", "tag=blue",
        "--data-urlencode", 'filter=Service.Meta["zone"] == "eu" and Service.Meta["gpu"] == "a100"',
    ]  # fmt: skip


def test_nothing_in_an_address_gets_out_of_its_quotes():
    view = ask(Lookup, "service=-x; $(reboot)'&zone=a\"b").view(world())
    split = shlex.split(view.twostep)
    assert split[-2:] == ["--", "-x; $(reboot)'"]
    assert '--zone=a"b' in split
    assert shlex.split(view.curl)[2] == "http://127.0.0.1:8500/v1/health/service/-x%3B%20%24%28reboot%29%27"
    assert shlex.split(view.curl)[-1] == 'filter=Service.Meta["zone"] == "a\\"b"'


def test_one_address_for_the_same_question():
    assert ask(Lookup, "zone=eu&service= digits &x=1&meta=a=b").here == "/lookup?service=digits&zone=eu&meta=a%3Db"
    assert ask(Lookup).here == "/lookup"


def test_hostile_text_is_text():
    said = CheckReport(check_id=HOSTILE, name=HOSTILE, status=HOSTILE, output=HOSTILE, service_id="d1")
    bad = member(HOSTILE, Health.CRITICAL, said, zone=HOSTILE, version=HOSTILE, tags=(HOSTILE,), node=HOSTILE)
    seen = world(services=[digits(bad, member("<script>")), Service(name="<script>")])
    query = MultiDict(service="digits", zone="<script>", tag=HOSTILE, meta="=x")
    _, html = draw(Lookup({}, query), seen)
    assert harmless(html)
    _, html = draw(Lookup({}, MultiDict(service=HOSTILE)), seen)
    assert harmless(html)
