"""What the journal keeps, in which order it tells, and what it gives to other programs."""

import csv
import io
import json

import pytest

from registry.dashboard.journal import Journal, as_csv, as_json
from registry.dashboard.model import Event, Kind

NOW = 1_700_000_000.0


def event(words="something", **more):
    return Event(**({"at": NOW, "kind": Kind.HEALTH, "words": words} | more))


def filled(*events, most=100):
    journal = Journal(most)
    for each in events:
        journal.add(each)
    return journal


def words(events):
    return [each.words for each in events]


def test_events_are_numbered_and_told_newest_first():
    journal = filled(event("a"), event("b"), event("c"))
    assert [(each.number, each.words) for each in journal.newest(2)] == [(3, "c"), (2, "b")]
    assert words(journal.newest(2, before=2)) == ["a"]
    assert (journal.last, len(journal)) == (3, 3)


def test_old_events_fall_off_and_numbers_go_on():
    journal = filled(*(event(str(number)) for number in range(1, 6)), most=3)
    assert words(journal.newest(10)) == ["5", "4", "3"]
    assert journal.last == 5


@pytest.mark.parametrize(
    ("number", "told"),
    [(5, []), (4, ["5"]), (2, ["3", "4", "5"]), (0, ["3", "4", "5"]), (99, []), (-7, ["3", "4", "5"])],
)
def test_what_came_since_a_number(number, told):
    journal = filled(*(event(str(each)) for each in range(1, 6)), most=3)
    assert words(journal.since(number)) == told


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"kind": (Kind.GONE,)}, ["d-2 is gone"]),
        ({"kind": ("gone", "action")}, ["DRAINED D-1", "d-2 is gone"]),
        ({"service": "digits"}, ["d-2 is gone", "d-1 is critical"]),
        ({"instance": "d-1"}, ["d-1 is critical"]),
        ({"health": "critical"}, ["d-1 is critical"]),
        ({"q": "d-1"}, ["DRAINED D-1", "d-1 is critical"]),
        ({"q": "ANN"}, ["DRAINED D-1"]),
        ({"q": "new disk"}, ["DRAINED D-1"]),
        ({"q": "digits", "before": 2}, ["d-1 is critical"]),
        ({"q": "nothing of the kind"}, []),
    ],
)
def test_events_are_searched(filters, found):
    journal = filled(
        event("d-1 is critical", service="digits", instance="d-1", health="critical"),
        event("d-2 is gone", kind=Kind.GONE, service="digits", instance="d-2"),
        event("DRAINED D-1", kind=Kind.ACTION, who="ann", why="New disk"),
    )
    assert words(journal.newest(10, **filters)) == found


def test_hostile_text_is_kept_but_bounded():
    journal = filled(event("<script>\x1b" + "w" * 5000, service="s" * 5000, instance="i" * 5000, who="a" * 5000))
    (kept,) = journal.newest(1)
    assert kept.words.startswith("<script>\x1b")
    assert [len(each) for each in (kept.words, kept.service, kept.instance, kept.who)] == [1000, 256, 256, 256]


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_no_cell_of_the_csv_is_a_formula(cell):
    header, row = csv.reader(io.StringIO(as_csv([event(cell, instance=cell, who=cell, why=cell)]), newline=""))
    told = dict(zip(header, row, strict=True))
    assert [told[name] for name in ("words", "instance", "who", "why")] == [f"'{cell}"] * 4


def test_the_csv_has_a_header_and_times_in_utc():
    text = as_csv(filled(event('d-1, "the first"', service="digits", health="critical")).newest(1))
    assert text == (
        "number,at,kind,service,instance,health,words,who,why\r\n"
        '1,2023-11-14T22:13:20.000+00:00,health,digits,,critical,"d-1, ""the first""",,\r\n'
    )


def test_the_json_has_the_fields_of_an_event():
    (told,) = json.loads(as_json(filled(event("a", instance="d-1")).newest(1)))
    assert (told["number"], told["at"], told["kind"], told["instance"]) == (1, NOW, "health", "d-1")
