import json
from datetime import datetime

import msgspec
import pytest

from registry.directory import WatchStatus
from registry.model import Health, Snapshot
from registry.query import Query
from registry.show.changes import Lines, age, document, freshness
from registry.testing import instance

NOW = 1_700_000_000.0
LIVE = WatchStatus(live=True)
LOST = WatchStatus(live=False, failures=1, last_error="connection\x1b[31m refused\nmore")


def listing(*instances, saved=False, at=NOW):
    return Snapshot(service="digits", index=3, instances=instances, fetched_at=at, saved=saved)


def clock(seconds):
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S")


@pytest.mark.parametrize(
    ("snapshot", "said"),
    [
        (listing(), "fresh"),
        (listing(at=NOW + 5), "fresh"),
        (msgspec.structs.replace(listing(), stale_for=20.0), "20 s old"),
        (listing(saved=True, at=NOW - 7200), "from disk, as it was 2 h ago"),
    ],
)
def test_the_age_of_a_list_is_said(snapshot, said):
    assert freshness(snapshot, NOW) == said


def test_the_document_says_age_and_origin():
    made = document(listing(instance(1), saved=True, at=NOW - 60), NOW)
    assert (made["saved"], made["age_s"], made["instances"][0]["endpoint"]) == (True, 60.0, "127.0.0.1:9001")
    assert age(msgspec.structs.replace(listing(at=NOW - 1), stale_for=2.0), NOW) == 3.0


def test_changes_are_lines_with_times():
    lines = Lines(Query("digits"), as_json=False)
    assert list(lines.of_list(listing(instance(1), instance(2, zone="a", weight=3)), NOW)) == [
        f"{clock(NOW)} + digits-1  127.0.0.1:9001  passing",
        f"{clock(NOW)} + digits-2  127.0.0.1:9002  passing  zone a  weight 3",
        f"{clock(NOW)} = 2 instances of digits",
    ]
    later = listing(instance(1, weight=2), instance(2, zone="a", weight=3, health=Health.CRITICAL))
    assert list(lines.of_list(later, NOW + 65)) == [
        f"{clock(NOW + 65)} ~ digits-1  127.0.0.1:9001  (weight 1 → 2)",
        f"{clock(NOW + 65)} - digits-2  127.0.0.1:9002  (health passing → critical)",
        f"{clock(NOW + 65)} = 1 instance of digits",
    ]
    assert list(lines.of_list(later, NOW + 70)) == []


def test_a_list_from_disk_is_called_so_and_its_end_is_told():
    lines = Lines(Query("digits"), as_json=False)
    assert list(lines.of_list(listing(instance(1), saved=True, at=NOW - 180), NOW))[-1] == (
        f"{clock(NOW)} = 1 instance of digits, from disk, as it was 3 min ago"
    )
    assert list(lines.of_list(listing(instance(1)), NOW)) == [f"{clock(NOW)} = 1 instance of digits"]


def test_an_outage_is_told_once_with_its_reason_and_its_length():
    lines = Lines(Query("digits"), as_json=False)
    assert list(lines.of_status(WatchStatus(live=False), NOW)) == []
    (lost,) = lines.of_status(LOST, NOW)
    assert lost == f"{clock(NOW)} ! registry lost, the list stands: connection\\x1b[31m refused"
    assert list(lines.of_status(LOST, NOW + 1)) == []
    assert list(lines.of_status(LIVE, NOW + 30)) == [f"{clock(NOW + 30)} ! registry back after 30 s"]
    assert list(lines.of_status(LIVE, NOW + 31)) == []


def test_a_list_in_doubt_is_told_once():
    lines = Lines(Query("digits"), as_json=False)
    doubted = WatchStatus(live=True, suspect=True)
    assert len(list(lines.of_status(doubted, NOW))) == 1
    assert list(lines.of_status(doubted, NOW)) == []
    assert list(lines.of_status(LIVE, NOW)) == []
    assert len(list(lines.of_status(doubted, NOW))) == 1


def test_json_lines_carry_an_iso_time_the_list_and_what_changed():
    lines = Lines(Query("digits"), as_json=True)
    list(lines.of_list(listing(instance(1), instance(2, health=Health.CRITICAL)), NOW))
    (line,) = lines.of_list(listing(instance(1, weight=2), instance(2, health=Health.CRITICAL)), NOW + 1)
    said = json.loads(line)
    assert datetime.fromisoformat(said["time"]).timestamp() == NOW + 1
    assert datetime.fromisoformat(said["time"]).utcoffset() is not None
    assert (said["event"], [each["id"] for each in said["instances"]]) == ("list", ["digits-1"])
    assert said["changes"] == [{"change": "changed", "id": "digits-1", "what": ["weight 1 → 2"]}]
    (lost,) = map(json.loads, lines.of_status(LOST, NOW))
    assert (lost["event"], lost["error"]) == ("lost", "connection\\x1b[31m refused")
    (back,) = map(json.loads, lines.of_status(LIVE, NOW + 2.5))
    assert (back["event"], back["after_s"]) == ("back", 2.5)
