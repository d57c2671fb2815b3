"""Choices that are kept for the next start."""

import os

import pytest

from node.runtimes.select import cache as caches
from node.runtimes.select.cache import Cache, key, user_folder
from node.runtimes.select.choosing import Candidate, ChoiceReport, Trial

INT8 = Candidate("litert", "int8")
REPORT = ChoiceReport(chosen=INT8, trials=(Trial(candidate=INT8, ms={1: 2.0, 32: 30.0}, piece=4),), samples="noise")


@pytest.fixture
def file(tmp_path):
    """A converted model."""
    path = tmp_path / "made" / "model-int8.tflite"
    path.parent.mkdir()
    path.write_bytes(b"a converted model")
    return path


def test_what_was_kept_is_found_with_its_file(tmp_path, file):
    cache = Cache([tmp_path / "a" / ".runtimes"])
    assert cache.find("k") is None
    cache.keep("k", REPORT, file)
    file.unlink()
    report, found = cache.find("k")
    assert report.cached
    assert (report.chosen, report.trials) == (REPORT.chosen, REPORT.trials)
    assert found.read_bytes() == b"a converted model"
    assert cache.find("another") is None


def test_a_choice_without_a_file_is_kept_too(tmp_path):
    cache = Cache([tmp_path])
    cache.keep("k", REPORT, None)
    assert cache.find("k")[1] is None


def test_where_one_folder_takes_nothing_the_next_does(tmp_path, file):
    (tmp_path / "occupied").touch()
    Cache([tmp_path / "occupied", tmp_path / "user"]).keep("k", REPORT, file)
    assert Cache([tmp_path / "user"]).find("k") is not None
    assert Cache([tmp_path / "occupied", tmp_path / "user"]).find("k") is not None


def test_where_nothing_can_be_written_nothing_happens(tmp_path, file):
    (tmp_path / "occupied").touch()
    cache = Cache([tmp_path / "occupied"])
    cache.keep("k", REPORT, file)
    assert cache.find("k") is None


@pytest.mark.parametrize("damage", ["truncated", "gone", "garbled"])
def test_a_damaged_entry_is_none_and_can_be_replaced(tmp_path, file, damage):
    cache = Cache([tmp_path / "cache"])
    cache.keep("k", REPORT, file)
    stored = cache.find("k")[1]
    if damage == "truncated":
        stored.write_bytes(b"a conv")
    elif damage == "gone":
        stored.unlink()
    else:
        (stored.parent / "choice.json").write_bytes(b"{")
    assert cache.find("k") is None
    cache.keep("k", REPORT, file)
    assert cache.find("k")[1].read_bytes() == b"a converted model"


def test_an_entry_that_names_a_file_elsewhere_is_none(tmp_path, file):
    cache = Cache([tmp_path / "cache"])
    cache.keep("k", REPORT, file)
    choice = tmp_path / "cache" / "k" / "choice.json"
    choice.write_text(choice.read_text().replace(file.name, f"../../made/{file.name}"))
    assert cache.find("k") is None


def test_nothing_half_written_stays(tmp_path, file, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(caches.shutil, "copyfile", full)
    Cache([tmp_path / "cache"]).keep("k", REPORT, file)
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_oldest_entries_go(tmp_path, file):
    cache = Cache([tmp_path / "cache"])
    for number in range(40):
        cache.keep(f"k{number}", REPORT, file)
        os.utime(tmp_path / "cache" / f"k{number}", (number, number))
    cache.keep("newest", REPORT, file)
    left = {each.name for each in (tmp_path / "cache").iterdir()}
    assert len(left) == 32
    assert {"newest", "k39"} <= left
    assert "k0" not in left


def test_the_key_is_the_facts_in_whatever_order():
    assert key({"a": 1, "b": (2, 3)}) == key({"b": (2, 3), "a": 1})
    assert key({"a": 1}) != key({"a": 2})


def test_the_users_folder_is_where_such_folders_are(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_folder() == tmp_path / "twostep" / "runtimes"
    Cache([user_folder()]).keep("k", REPORT, None)
    assert (tmp_path / "twostep" / "runtimes").stat().st_mode & 0o777 == 0o700
