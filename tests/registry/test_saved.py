import os
import stat
import time

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.coldstart import files as saved
from registry.coldstart.files import SavedLists, decode, encode
from registry.model import Health, Snapshot
from registry.query import Query
from registry.testing import instance

SOURCE = "consul://10.0.0.1:8500"
DIGITS = Query("digits", passing_only=False)
NOW = 1_700_000_000.0


def listing(*numbers, **changes):
    instances = tuple(instance(number, **changes) for number in numbers)
    return Snapshot(service="digits", index=7, instances=instances, fetched_at=NOW, stale_for=0.5, source=SOURCE)


FULL = listing(
    1, 2, health=Health.WARNING, zone="a", version="3", weight=4, tags=("x",), meta={"zone": "a", "k": "v"}, node="n"
)
GOOD = b"".join(encode(SOURCE, DIGITS, FULL))


@pytest.fixture
def lists(tmp_path):
    return SavedLists(tmp_path / "lists", SOURCE)


def test_what_was_written_is_read_again_whole(lists):
    lists.write(DIGITS, FULL, NOW)
    assert lists.read(DIGITS) == FULL


def test_ten_thousand_instances_come_back_and_take_about_two_megabytes(lists):
    many = listing(*range(10_000))
    many = msgspec.structs.replace(many, instances=tuple(sorted(many.instances, key=lambda each: each.id)))
    lists.write(DIGITS, many, NOW)
    assert lists.read(DIGITS) == many
    assert lists.path(DIGITS).stat().st_size < 3_000_000


def test_only_the_user_can_read_what_is_kept(lists):
    lists.write(DIGITS, FULL, NOW)
    assert stat.S_IMODE(lists.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(lists.path(DIGITS).stat().st_mode) == 0o600
    assert [each.name for each in lists.folder.iterdir()] == [lists.path(DIGITS).name]


def test_each_registry_and_each_question_has_a_file_of_its_own(lists):
    questions = [
        DIGITS,
        Query("digits"),
        Query("Digits", passing_only=False),
        Query("digits", tag="a"),
        Query("digits", zone="a"),
        Query("digits", version="a"),
        Query("digits", meta={"a": "b"}),
    ]
    there = {SavedLists(lists.folder, source).path(each) for each in questions for source in (SOURCE, "lookup://b")}
    assert len(there) == 2 * len(questions)
    assert lists.path(Query("d", meta={"a": "1", "b": "2"})) == lists.path(Query("d", meta={"b": "2", "a": "1"}))


@pytest.mark.parametrize("service", ["../../etc/passwd", "a\0b", "ü" * 300, ".", "\udc80", "con:*?", "-rf"])
def test_an_odd_service_name_stays_inside_the_folder(lists, service):
    query = Query(service)
    path = lists.path(query)
    assert path.parent == lists.folder
    assert len(path.name.encode()) < 100
    lists.write(query, FULL, NOW)
    assert lists.read(query) in (None, msgspec.structs.replace(FULL, service=service))


def test_nothing_kept_is_no_list_and_no_word(lists, caplog):
    assert lists.read(DIGITS) is None
    assert not caplog.records


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\n",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        GOOD[: len(GOOD) // 2],
        GOOD.splitlines(keepends=True)[0],
        GOOD + GOOD.splitlines(keepends=True)[1],
        GOOD.replace(b'"version":1', b'"version":2'),
        GOOD.replace(b"twostep-list", b"other-list"),
        GOOD.replace(b'"port":9001', b'"port":70000'),
        GOOD.replace(b'"port":9001', b'"port":"9001"'),
        GOOD.replace(b'"weight":4', b'"weight":-1'),
        GOOD.replace(b'"fetched_at":1700000000.0', b'"fetched_at":1e300'),
        GOOD.replace(b'"index":7', b'"index":1000000000000000000000'),
        GOOD.replace(b"digits-2", b"digits-1"),
        GOOD.replace(SOURCE.encode(), b"consul://10.0.0.2:8500"),
        GOOD.replace(b'"passing_only":false', b'"passing_only":true'),
        b"\xff" * 100,
        b"<html>\x1b[31m",
    ],
)
def test_a_damaged_or_foreign_file_is_no_list_and_one_log_line(lists, caplog, damaged):
    assert damaged != GOOD
    lists.write(DIGITS, FULL, NOW)
    lists.path(DIGITS).write_bytes(damaged)
    assert lists.read(DIGITS) is None
    (record,) = caplog.records
    assert "digits" in record.message
    assert record.message.isprintable()
    lists.write(DIGITS, FULL, NOW)
    assert lists.read(DIGITS) == FULL


@given(st.binary(max_size=200), st.integers(0, len(GOOD)), st.integers(0, len(GOOD)))
def test_any_content_is_a_list_or_a_value_error(noise, start, end):
    try:
        found = decode(GOOD[:start] + noise + GOOD[end:], SOURCE, DIGITS)
    except ValueError:
        return
    assert all(0 <= each.port <= 65535 for each in found.instances)
    assert list(found.instances) == sorted(found.instances, key=lambda each: each.id)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(msgspec.json.decode(GOOD.splitlines()[0]))), json)
def test_any_value_in_the_head_is_a_list_or_a_value_error(field, value):
    head, *rows = GOOD.splitlines(keepends=True)
    changed = msgspec.json.decode(head) | {field: value}
    try:
        found = decode(msgspec.json.encode(changed) + b"\n" + b"".join(rows), SOURCE, DIGITS)
    except ValueError:
        return
    assert 0 <= found.fetched_at < 1e11


def test_a_link_a_pipe_and_a_file_of_somebody_else_are_not_read(lists, monkeypatch, caplog):
    lists.write(DIGITS, FULL, NOW)
    path = lists.path(DIGITS)
    elsewhere = path.rename(path.with_name("elsewhere"))
    path.symlink_to(elsewhere)
    assert lists.read(DIGITS) is None
    path.unlink()
    os.mkfifo(path)
    assert lists.read(DIGITS) is None
    path.unlink()
    elsewhere.rename(path)
    assert lists.read(DIGITS) == FULL
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert lists.read(DIGITS) is None
    assert len(caplog.records) == 3


def test_a_list_above_the_bound_is_neither_written_nor_read(lists, monkeypatch, caplog):
    lists.write(DIGITS, FULL, NOW)
    monkeypatch.setattr(saved, "LARGEST", 500)
    assert lists.read(DIGITS) is None
    assert "larger than 500 bytes" in caplog.records[-1].message
    lists.write(DIGITS, listing(*range(1000, 2000)), NOW)
    assert "too large" in caplog.records[-1].message.lower()
    monkeypatch.undo()
    assert lists.read(DIGITS) == FULL
    assert len(list(lists.folder.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_told_of_once(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    lists = SavedLists(tmp_path / "file" / "lists", SOURCE)
    for _ in range(3):
        lists.write(DIGITS, FULL, NOW)
    (record,) = caplog.records
    assert "Not a directory" in record.message
    assert lists.read(DIGITS) is None


def test_a_failed_write_leaves_the_list_before_it(lists, monkeypatch):
    lists.write(DIGITS, FULL, NOW)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    lists.write(DIGITS, listing(3), NOW)
    assert lists.read(DIGITS) == FULL
    assert len(list(lists.folder.iterdir())) == 1


def test_lists_of_last_month_and_half_written_ones_are_swept_away(lists):
    lists.folder.mkdir()
    for name, age in (("old.1.list", 31), ("young.1.list", 29), ("killed.1.new", 1), ("busy.1.new", 0), ("notes", 99)):
        path = lists.folder / name
        path.touch()
        os.utime(path, (time.time() - age * 86_400,) * 2)
    lists.write(DIGITS, FULL, time.time())
    left = {path.name for path in lists.folder.iterdir()} - {lists.path(DIGITS).name}
    assert left == {"young.1.list", "busy.1.new", "notes"}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.permutations(range(6)), st.integers(1, 6))
def test_order_does_not_matter_and_instances_are_sorted(order, count):
    rows = tuple(instance(number) for number in order[:count])
    content = b"".join(encode(SOURCE, DIGITS, msgspec.structs.replace(FULL, instances=rows)))
    assert [each.id for each in decode(content, SOURCE, DIGITS).instances] == sorted(each.id for each in rows)
