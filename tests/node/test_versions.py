"""When a model folder is worth another look: new versions that are whole, and nothing that is still being copied."""

import os
import shutil

import pytest

from node.repository import Wanted
from node.testing import write_model
from node.versions import Watcher
from tests.node.versioned import add_version, publish_next


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path / "digits")


@pytest.fixture
def watch(folder):
    """Make a started watcher."""

    def started(wanted=None, where=None):
        watcher = Watcher(where or folder, wanted or Wanted())
        watcher.start()
        return watcher

    return started


def looks(watcher, times=3):
    return [set(watcher.due()) for _ in range(times)]


def test_nothing_is_due_while_nothing_changes(watch):
    assert looks(watch(), 5) == [set()] * 5


def test_a_new_version_is_due_once_when_two_looks_have_seen_the_same(watch, folder):
    watcher = watch()
    add_version(folder, 2)
    assert looks(watcher, 5) == [set(), {1, 2}, set(), set(), set()]


def test_a_published_version_is_due(watch, folder):
    watcher = watch()
    assert publish_next(folder).name == "2"
    assert looks(watcher) == [set(), {1, 2}, set()]


def test_what_came_before_the_first_look_but_after_the_start_is_new(watch, folder):
    watcher = watch()
    add_version(folder, 2)
    add_version(folder, 3)
    assert looks(watcher) == [set(), {1, 2, 3}, set()]


def test_a_copy_that_goes_on_is_not_read_before_it_stands_still(watch, folder, tmp_path):
    watcher = watch()
    source = write_model(tmp_path / "elsewhere", version=2) / "2"
    target = folder / "2"
    target.mkdir()
    (target / "model.keras").touch()
    assert not watcher.due()
    for size in range(1, 4):
        (target / "model.keras").write_bytes(b"n" * size)
        assert not watcher.due()
    shutil.copy(source / "model.keras", target)
    assert not watcher.due()
    shutil.copy(source / "model.json", target)
    assert looks(watcher) == [set(), {1, 2}, set()]


def test_a_version_that_is_still_copied_is_not_among_those_to_choose_from(watch, folder):
    watcher = watch()
    add_version(folder, 2)
    assert not watcher.due()
    (folder / "3").mkdir()
    (folder / "3" / "model.keras").write_bytes(b"half")
    assert set(watcher.due()) == {1, 2}
    (folder / "3" / "model.keras").write_bytes(b"half and more")
    assert looks(watcher) == [set(), {1, 2, 3}, set()]


def test_one_that_failed_is_due_again_only_after_its_files_have_changed(watch, folder):
    watcher = watch()
    (folder / "2").mkdir()
    (folder / "2" / "model.keras").write_bytes(b"broken")
    assert looks(watcher, 10).count({1, 2}) == 1
    (folder / "2" / "model.keras").write_bytes(b"mended")
    assert looks(watcher) == [set(), {1, 2}, set()]


def test_files_of_the_same_size_written_later_are_a_change(watch, folder):
    watcher = watch()
    file = folder / "1" / "model.keras"
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))
    assert looks(watcher) == [set(), {1}, set()]


def test_a_version_that_is_half_there_at_the_start_is_due_when_it_is_whole(watch, folder):
    (folder / "2").mkdir()
    (folder / "2" / "model.keras").write_bytes(b"half")
    watcher = watch()
    (folder / "2" / "model.keras").write_bytes(b"whole")
    assert looks(watcher) == [set(), {1, 2}, set()]


def test_a_version_that_goes_away_is_nothing_to_do(watch, folder):
    add_version(folder, 2)
    watcher = watch()
    shutil.rmtree(folder / "2")
    assert looks(watcher) == [set()] * 3


def test_a_folder_that_goes_away_and_comes_back_is_nothing_to_do(watch, folder):
    watcher = watch()
    folder.rename(folder.parent / "away")
    assert looks(watcher) == [set()] * 3
    (folder.parent / "away").rename(folder)
    assert looks(watcher) == [set()] * 3


@pytest.mark.parametrize(
    ("wanted", "due"),
    [(Wanted(), False), (Wanted(latest=2), True), (Wanted(latest=0), True), (Wanted(only=(2,)), True)],
)
def test_only_wanted_versions_count(watch, folder, wanted, due):
    add_version(folder, 4)
    add_version(folder, 5)
    shutil.rmtree(folder / "4")
    watcher = watch(wanted)
    add_version(folder, 2)  # an older one, copied back
    assert any(looks(watcher)) is due


def test_what_is_no_version_is_not_looked_at(watch, folder):
    watcher = watch()
    for name in ("samples", ".partial-1", "2.tmp", "v3", "２"):
        (folder / name).mkdir()
        (folder / name / "file").touch()
    (folder / "7").touch()  # a file
    assert looks(watcher) == [set()] * 3


def test_leading_zeros_hide_no_copy_that_goes_on(watch, folder):
    watcher = watch()
    (folder / "002").mkdir()
    for size in range(3):
        (folder / "002" / "model.keras").write_bytes(b"n" * size)
        assert not watcher.due()
    assert looks(watcher) == [{1, 2}, set(), set()]


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_model_without_version_folders_is_never_due(watch, tmp_path, kind, caplog):
    path = tmp_path / "cats.keras"
    if kind == "file":
        path.touch()
    assert looks(watch(where=path)) == [set()] * 3
    assert caplog.text == ""


def test_a_folder_that_cannot_be_read_is_said_once_and_looked_at_again(watch, folder, monkeypatch, caplog):
    watcher = watch()
    add_version(folder, 2)

    def away(path):
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("node.versions.fingerprint", away)
        assert looks(watcher) == [set()] * 3
    assert caplog.text.count("new versions cannot be looked for") == 1
    assert looks(watcher) == [set(), {1, 2}, set()]
