"""Filtering, sorting and the facets of the list of instances."""

import csv
import io
import random

import pytest
from multidict import MultiDict

from registry.dashboard import listing, rows
from registry.dashboard.listing import Asked, find, ordered, targets
from registry.dashboard.page import BadAddress
from registry.dashboard.shelf import Shelf
from tests.registry.dashboard.fleet import NOW, Said, fleet, load, many, member, reported, service, world

TWO = fleet(
    service(
        "digits",
        member("digits-1", zone="eu", version="7", tags=("blue",), address="10.0.0.7", node="rack-a"),
        member("digits-2", zone="us", version="8", health="critical", since=10),
        member("digits-3", zone="eu", version="8", health="critical", since=500),
    ),
    service("photos", member("photos-1", "photos", zone="ap", health="draining"), member("photos-2", "photos")),
)


def ids(asked, seen=TWO):
    return [each.id for each in find(seen, asked, Shelf()).members]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (Asked(), ["digits-1", "digits-2", "digits-3", "photos-1", "photos-2"]),
        (Asked(service="photos"), ["photos-1", "photos-2"]),
        (Asked(service="nothing"), []),
        (Asked(zone="eu"), ["digits-1", "digits-3"]),
        (Asked(version="8", health=("critical",)), ["digits-2", "digits-3"]),
        (Asked(health=("critical", "draining")), ["digits-2", "digits-3", "photos-1"]),
        (Asked(tag="blue"), ["digits-1"]),
        (Asked(tag="blu"), []),
        (Asked(q="DIGITS-2"), ["digits-2"]),
        (Asked(q="10.0.0.7:80"), ["digits-1"]),
        (Asked(q="Rack-A"), ["digits-1"]),
        (Asked(q="BLU"), ["digits-1"]),
    ],
)
def test_what_is_asked_for_is_found(asked, found):
    assert ids(asked) == found


def test_an_endless_tag_is_searched_only_at_its_beginning():
    seen = fleet(service("digits", member(tags=("a" * 1_000_000 + "needle",))))
    assert ids(Asked(q="needle"), seen) == []
    assert ids(Asked(q="aaa"), seen) == ["digits-1"]


def test_facets_say_what_a_choice_would_show():
    facets = find(TWO, Asked(service="digits", health=("passing",), zone="eu"), Shelf()).facets
    assert facets.services == (("digits", 3), ("photos", 2))
    assert facets.zones == (("eu", 2), ("us", 1))
    assert facets.versions == (("7", 1), ("8", 2))
    assert facets.health == {"critical": 1, "warning": 0, "draining": 0, "passing": 1}


def test_facets_are_bounded_and_keep_what_is_chosen():
    seen = fleet(
        service("digits", *(member(f"d-{n}", version=f"v{n // 2:03}" if n < 200 else "rare") for n in range(201)))
    )
    versions = find(seen, Asked(version="rare"), Shelf()).facets.versions
    assert len(versions) == 51
    assert ("rare", 1) in versions
    assert find(seen, Asked(zone="gone"), Shelf()).facets.zones == (("gone", 0),)


def test_the_worst_come_first_and_of_those_what_is_so_for_longest():
    found = ordered(find(TWO, Asked(), Shelf()).members, "attention", Said(), reported())
    assert [each.id for each in found] == ["digits-3", "digits-2", "photos-1", "digits-1", "photos-2"]


@pytest.mark.parametrize("key", listing.SORTS)
@pytest.mark.parametrize("minus", ["", "-"])
def test_what_nobody_has_said_comes_last_in_either_direction(key, minus):
    seen = [member("d-1"), member("d-2", zone="b", version="2"), member("d-3", zone="a", version="1")]
    said = {("digits", "d-2"): load(inflight=2, queue=2, rps=2), ("digits", "d-3"): load(inflight=1, queue=1, rps=1)}
    calls = reported(
        {"instance": "d-2", "ok": 50, "latencies": [(80.0, 50)]},
        {"instance": "d-3", "ok": 1, "failed": 1, "latencies": [(10.0, 1)]},
    )
    found = [each.id for each in ordered(seen, minus + key, Said(said), calls)]
    if key in ("attention", "service", "health", "since"):
        assert found == ["d-1", "d-2", "d-3"]
    elif key == "id":
        assert found == (["d-3", "d-2", "d-1"] if minus else ["d-1", "d-2", "d-3"])
    else:
        assert found == (["d-2", "d-3", "d-1"] if minus else ["d-3", "d-2", "d-1"])


def test_what_a_silent_node_said_last_sorts_as_nothing():
    said = {("digits", "d-1"): load(queue=9, error="no answer within 2 s"), ("digits", "d-2"): load(queue=1)}
    found = ordered([member("d-1"), member("d-2")], "-queue", Said(said), reported())
    assert [each.id for each in found] == ["d-2", "d-1"]


def test_an_address_is_read_as_it_was_written():
    for text in ("", "q=a b&service=digits&zone=eu&health=warning&version=7&tag=x&sort=-p99&page=3"):
        query = MultiDict(each.partition("=")[::2] for each in text.split("&") if each)
        asked = listing.read(query)
        assert [(name, str(value)) for name, value in asked.pairs() if value] == list(query.items())


def test_an_address_is_read_leniently_but_for_health():
    asked = listing.read(MultiDict(page="-3", sort="-size", other="x"))
    assert asked == Asked()
    with pytest.raises(BadAddress, match="no such health"):
        listing.read(MultiDict(health="sick"))


def test_targets_are_those_that_an_order_can_be_about():
    seen = [
        member("d-1"),
        member("d-2", twostep=False),
        member("d-3", health="draining"),
        member("d-4", health="critical"),
    ]
    assert targets(seen, "drain") == ("d-1", "d-4")
    assert targets(seen, "undrain") == ("d-3",)


def test_a_name_in_a_form_is_unambiguous_whatever_is_in_it():
    rng = random.Random(7)
    for _ in range(300):
        pair = tuple("".join(rng.choices("a/%:@ ü\u202e\n+&", k=rng.randint(1, 8))) for _ in range(2))
        assert listing.unkey(listing.key(*pair)) == pair
    assert listing.key("digits", "digits-1") == "digits/digits-1"


def test_csv_holds_every_figure_and_no_formula():
    seen = world(
        service("digits", member("=cmd()", zone="+1", version="-2", tags=("a",))),
        loads={("digits", "=cmd()"): load(inflight=3, queue=1)},
        calls=reported({"instance": "=cmd()", "ok": 10, "in_flight": 2, "latencies": [(8.0, 10)]}),
    )
    (line,) = csv.DictReader(io.StringIO(rows.as_csv([rows.row(seen.fleet.services["digits"].members[0], seen)])))
    assert line["id"] == "'=cmd()"
    assert (line["zone"], line["version"]) == ("'+1", "'-2")
    assert (line["in_flight_node"], line["in_flight_clients"], line["queue"]) == ("3", "2", "1")
    assert (line["requests_per_s"], line["success"]) == ("2.0", "1.0")
    assert line["since"] == "2023-11-14T22:12:20+00:00"


def test_five_thousand_are_filtered_without_a_word_of_them_lost():
    seen = fleet(*(many(1000, f"s{number}") for number in range(5)))
    found = find(seen, Asked(q="s3-"), Shelf())
    assert (len(found.members), found.total) == (1000, 5000)
    assert {each.instance.service for each in found.members} == {"s3"}


@pytest.mark.parametrize(
    ("node", "clients", "gap"),
    [(0, 9, True), (9, 0, False), (2, 4, False), (10, 14, False), (None, 9, False), (0, None, False)],
)
def test_a_gap_is_what_clients_have_sent_and_the_node_has_not(node, clients, gap):
    assert rows.apart(node, clients) is gap


def test_a_node_that_never_answered_was_never_heard():
    quiet = load(error="no answer within 2 s")
    nobody = reported().instance("digits", "d-1")
    assert rows.heard_at(quiet, nobody) is None
    assert rows.heard_at(load(inflight=0, at=NOW - 40, error="no answer within 2 s"), nobody) == NOW - 40
    assert rows.heard_at(None, nobody) is None
