"""One order and how far its instances have come."""

import pytest
from multidict import MultiDict

from registry.dashboard.orders import Stage, Step
from registry.dashboard.page import NoSuchPage
from registry.dashboard.pages.order import OrderPage, words
from tests.registry.dashboard.drawing import HOSTILE, harmless, links
from tests.registry.dashboard.drawing import words as read
from tests.registry.dashboard.fleet import NOW, draw, order, world


def page(number="1", **query):
    return OrderPage({"id": number}, MultiDict(query))


def test_it_says_who_why_and_how_far_each_is():
    given = order(
        d_1="waiting", d_2="asked", d_3={"stage": "draining", "inflight": 3}, d_4={"stage": "done", "inflight": 0}
    )
    view, html = draw(page(), world(orders=[given]))
    assert (view.done, view.ended, view.total, view.ended_at) == (1, 1, 4, None)
    assert view.result == "1 of 4 is out."
    assert [each.took for each in view.lines] == [None, None, None, 50.0]
    said = read(html)
    for each in (
        "ada",
        "kernel update",
        "waits for its turn",
        "is asked to drain",
        "draining, 3 requests are still inside",
    ):
        assert each in said
    assert '<progress class="progress" max="4" value="1"' in html
    assert "/instances/digits/d-3" in links(html)
    assert "/instances?service=digits" in links(html)


@pytest.mark.parametrize("kind", ["drain", "undrain"])
@pytest.mark.parametrize("stage", list(Stage))
def test_every_stage_has_its_words(kind, stage):
    said = words(kind, Step(stage=stage, at=NOW, inflight=2, reason="no answer within 5 s"))
    assert len(said.split()) > 2
    if stage in ("refused", "gone", "overdue"):
        assert "no answer within 5 s" in said


@pytest.mark.parametrize(
    ("kind", "stages", "result"),
    [
        ("drain", {"d_1": "done"}, "It is out."),
        ("drain", {"d_1": "done", "d_2": "done"}, "All 2 are out."),
        ("undrain", {"d_1": "done", "d_2": "done"}, "All 2 are back."),
        ("drain", {"d_1": "done", "d_2": "draining"}, "1 of 2 is out."),
        ("drain", {"d_1": "waiting", "d_2": "refused"}, "0 of 2 are out; 1 refused."),
        ("drain", {"d_1": "done", "d_2": "overdue", "d_3": "gone"}, "Ended: 1 of 3 is out; 1 overdue, 1 gone."),
    ],
)
def test_the_result_is_one_sentence(kind, stages, result):
    assert page().view(world(orders=[order(1, kind, **stages)])).result == result


def test_when_the_last_has_ended_it_says_when():
    given = order(d_1={"stage": "done", "at": NOW - 30}, d_2={"stage": "done", "at": NOW - 12})
    view, html = draw(page(), world(orders=[given]))
    assert view.ended_at == NOW - 12
    assert "All 2 are out. It ended 12 s ago." in read(html)


def test_of_a_large_order_what_went_wrong_stands_on_top():
    stages = {f"d_{number:03}": "done" for number in range(150)}
    stages |= {f"e_{number:03}": {"stage": "refused", "reason": "no answer within 5 s"} for number in range(12)}
    view, html = draw(page(), world(orders=[order(**stages)]))
    assert (len(view.lines), view.pages, len(view.failed), view.failures) == (100, 2, 10, 12)
    assert "refused: no answer within 5 s" in read(html)
    assert "+2 more" in read(html)
    assert "/orders/1?page=2" in links(html)
    view, html = draw(page(page="2"), world(orders=[order(**stages)]))
    assert len(view.lines) == 62
    assert "/orders/1" in links(html)


def test_a_row_is_drawn_again_only_when_its_instance_has_come_further():
    keys = []
    for stage in ("draining", "done"):
        seen = world(orders=[order(d_1=stage, d_2="draining")])
        keys.append({name: part.key for name, part in page().parts(page().view(seen), seen).items()})
    assert {name for name in keys[0] if keys[0][name] != keys[1][name]} == {"order-progress", "row:digits/d-1"}


def test_an_order_that_is_not_there_has_a_sentence():
    with pytest.raises(NoSuchPage, match="There is no order 7, or no more: the last hundred"):
        page("7").view(world(orders=[order()]))


def test_hostile_text_comes_out_as_text():
    given = order(service=HOSTILE[:200], **{HOSTILE[:200]: {"stage": "refused", "reason": HOSTILE}})
    _, html = draw(page(), world(orders=[given]))
    assert harmless(html)
