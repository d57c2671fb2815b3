"""What an order would do, and the judgement on it when it is given."""

import re

import pytest
from multidict import MultiDict

from registry.dashboard import guard
from registry.dashboard.access import Session
from registry.dashboard.page import BadAddress
from registry.dashboard.pages.confirm import Confirm, decide
from tests.registry.dashboard.drawing import HOSTILE, harmless, links, words
from tests.registry.dashboard.fleet import draw, fleet, many, member, service, world

ADA = Session(name="ada", csrf="secret-of-ada", cookie="k", begun=0.0)
TEN = many(10)


def page(*ids, **query):
    return Confirm({}, MultiDict([*query.items(), *(("id", each) for each in ids)]))


def three():
    return [f"digits/digits-000{number}" for number in range(3)]


def test_it_says_what_is_left_and_who_is_meant():
    view, html = draw(page(three()[0], kind="drain"), world(TEN), ADA)
    assert (view.effect, view.count, view.needs_name, view.problem) == ("leaves 9 of 10 passing", 1, False, "")
    assert "Draining 1 instance of digits leaves 9 of 10 passing." in words(html)
    assert "/instances/digits/digits-0000" in links(html)
    assert 'id="typed"' not in html


def test_a_large_share_takes_the_services_name():
    view, html = draw(page(*three()), world(TEN), ADA)
    assert view.needs_name
    assert "3 of 10 would be draining at once, more than 20%" in words(html)
    assert "Type the service's name, digits" in words(html)
    assert re.search(r'<input type="text" id="typed"[^>]*required', html)


def test_the_form_names_everybody_and_carries_the_operators_mark():
    _, html = draw(page(*three()), world(TEN), ADA)
    assert '<form class="card" method="post" action="/actions/drain"' in html
    assert (
        '<input type="hidden" name="csrf" value="secret-of-ada">\n  <input type="hidden" name="kind" value="drain">'
        in html
    )
    assert re.findall(r'name="id" value="([^"]*)"', html) == three()
    assert re.search(r'<textarea id="reason" name="reason"[^>]*required', html)
    assert "Drain 3 instances" in words(html)


def test_whoever_may_not_act_sees_the_effect_and_no_form():
    _, html = draw(page(three()[0]), world(TEN))
    assert "leaves 9 of 10 passing" in words(html)
    assert "/actions/" not in html
    assert "/sign-in?back=%2Fconfirm%3Fkind%3Ddrain%26id%3Ddigits%252Fdigits-0000" in links(html)
    _, html = draw(page(three()[0]), world(TEN, can_act=False))
    assert "read-only: start it with --operator-token-file" in words(html)


def test_twenty_are_named_and_the_others_counted():
    view, html = draw(page(*(f"digits/digits-{number:04}" for number in range(25))), world(many(100)), ADA)
    assert len(view.named) == 20
    assert "+5 more" in words(html)
    assert html.count('name="id"') == 25


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (page(), "nothing is selected"),
        (page("digits/digits-0001", "photos/photos-1"), "of several services"),
        (page("nothing/digits-0001"), "there is no service nothing any more"),
        (page("digits/gone"), "gone is no instance of digits any more"),
        (page("photos/photos-2"), "photos-2 cannot be drained from here: it is no Twostep node"),
        (page("photos/photos-1"), "photos-1 is draining already"),
        (page("digits/digits-0001", kind="undrain"), "digits-0001 is not draining"),
        (page(all="1"), "filter by one service first"),
        (page(all="1", service="nothing"), "there is no service nothing any more"),
        (page(all="1", service="digits", fingerprint="0" * 16), "the set has changed: it is now 10"),
        (page(kind="undrain", all="1", service="digits", fingerprint=guard.fingerprint([])), "nothing is selected"),
    ],
)
def test_what_cannot_be_done_is_said_and_not_offered(asked, problem):
    photos = [member("photos-1", "photos", health="draining"), member("photos-2", "photos", twostep=False)]
    seen = world(TEN, service("photos", *photos))
    view, html = draw(asked, seen, ADA)
    assert problem in view.problem
    assert problem in words(html)
    assert "/actions/" not in html
    refused = decide(asked, seen, kind=asked.kind, form={"reason": "why", "typed": view.service}).refused
    assert problem in refused


def test_all_that_match_are_those_of_the_filter_that_can_be_meant():
    seen = world(service("digits", *TEN.members, member("d-out", health="draining"), member("d-web", twostep=False)))
    ids = [each.id for each in TEN.members]
    asked = page(all="1", service="digits", q="d", fingerprint=guard.fingerprint(ids))
    view, html = draw(asked, seen, ADA)
    assert (view.count, view.problem) == (10, "")
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', html)
    assert {("all", "1"), ("service", "digits"), ("q", "d"), ("fingerprint", guard.fingerprint(ids))} <= set(hidden)
    assert "id" not in dict(hidden)
    decision = decide(asked, seen, kind="drain", form={"reason": "why", "typed": "digits"})
    assert (decision.refused, decision.ids) == ("", tuple(ids))
    later = world(service("digits", *TEN.members[1:]))
    assert decide(asked, later, kind="drain", form={"reason": "why", "typed": "digits"}).refused.startswith(
        "the set has changed"
    )


def test_an_order_takes_a_reason_and_where_it_is_grave_the_name():
    small, large, seen = page(three()[0]), page(*three()), world(TEN)
    assert decide(small, seen, kind="drain", form={"reason": " "}).refused.startswith("say why")
    assert decide(small, seen, kind="drain", form={}).refused.startswith("say why")
    done = decide(small, seen, kind="drain", form={"reason": "new disk"})
    assert (done.refused, done.ids, done.service.name) == ("", ("digits-0000",), "digits")
    assert "type the service's name" in decide(large, seen, kind="drain", form={"reason": "new disk"}).refused
    assert (
        "type the service's name" in decide(large, seen, kind="drain", form={"reason": "x", "typed": "digit"}).refused
    )
    assert not decide(large, seen, kind="drain", form={"reason": "new disk", "typed": "digits"}).refused


def test_a_reason_is_as_long_here_as_in_the_browser():
    asked, seen = page(three()[0]), world(TEN)
    text = "\r\n".join(["a" * 99] * 5)  # 499 as a browser counts, 503 as it sends them
    assert not decide(asked, seen, kind="drain", form={"reason": text}).refused
    assert "500 at most" in decide(asked, seen, kind="drain", form={"reason": "a" * 501}).refused


def test_the_floor_is_the_worlds():
    asked, seen = page(three()[0]), world(TEN, floor=10)
    assert "fewer than 10" in draw(asked, seen, ADA)[0].harm
    assert "fewer than 10" in decide(asked, seen, kind="drain", form={"reason": "x"}).refused


def test_undraining_is_its_own_order():
    seen = world(service("digits", member(health="draining"), member("digits-2")))
    asked = page("digits/digits-1", kind="undrain")
    view, html = draw(asked, seen, ADA)
    assert view.effect == "brings 1 of 2 back"
    assert 'action="/actions/undrain"' in html
    assert not decide(asked, seen, kind="undrain", form={"reason": "done"}).refused
    assert "another order" in decide(asked, seen, kind="drain", form={"reason": "done"}).refused


def test_sent_back_it_keeps_what_was_written_and_says_why():
    reason = "kernel\n" + "b" * 400
    view, html = draw(page(three()[0], reason=reason, typed="digts", refused="it was a Tuesday"), world(TEN), ADA)
    assert "Not done: it was a Tuesday" in words(html)
    assert f">\n{reason}</textarea>" in html
    assert view.typed == "digts"


def test_it_goes_back_to_where_it_was_chosen():
    assert "/instances?service=digits" in links(draw(page(three()[0]), world(TEN), ADA)[1])
    asked = page(all="1", service="digits", zone="eu", fingerprint="x")
    assert "/instances?service=digits&zone=eu" in links(draw(asked, world(TEN), ADA)[1])


def test_its_address_is_read_back_as_the_same():
    for asked in (page(*three(), reason="x y"), page(all="1", service="digits", health="warning", fingerprint="f")):
        pairs = [each.partition("=")[::2] for each in asked.here.partition("?")[2].split("&")]
        read = Confirm({}, MultiDict((name, value.replace("%2F", "/").replace("+", " ")) for name, value in pairs))
        assert read.here == asked.here
        assert (read.keys, read.all, read.reason) == (asked.keys, asked.all, asked.reason)


def test_there_are_two_orders_and_no_other():
    with pytest.raises(BadAddress, match="drained or undrained"):
        page(kind="kill")


def test_hostile_text_comes_out_as_text():
    name = "<script>alert('\"x\"')</script>\u202egnp"
    seen = world(service(name, *(member(f"{name}{number}", name) for number in range(3))))
    key = "%3Cscript%3Ealert(%27%22x%22%27)%3C%2Fscript%3E\u202egnp"
    asked = page(f"{key}/{key}0", reason=HOSTILE[:100], typed=HOSTILE[:100], refused=HOSTILE[:900])
    view, html = draw(asked, seen, ADA)
    assert view.problem == ""
    assert 'id="typed"' in html
    text = html.replace(re.search(r"<textarea.*?</textarea>", html, re.DOTALL)[0], "")
    assert harmless(text)
    assert "&lt;script&gt;" in re.search(r"<textarea.*?</textarea>", html, re.DOTALL)[0]


def test_a_fleet_that_has_gone_has_a_sentence():
    view, _ = draw(page(three()[0]), world(seen=fleet()), ADA)
    assert view.problem.endswith("look again")
