import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from smartclient.paths import find_images, read_lines, shown


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def test_folders_are_searched_in_order_for_images_and_files_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "b/notes.txt", "a/x.webp", "b/.hidden.png", ".git/y.png", "data.bin"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = [str(path.relative_to(tmp_path)) for path in find_images([tmp_path])]
    assert found == ["a/x.webp", "b/1.png", "b/2.JPG"]
    given = [tmp_path / "data.bin", tmp_path / "nowhere.png"]
    assert list(find_images(given)) == given


def test_lines_become_paths_however_they_are_cut(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, b"a b.png\r\n\n/tmp/\xff.png\nlast")
    os.close(writing)
    assert [os.fsencode(path) for path in read_lines(reading)] == [b"a b.png", b"/tmp/\xff.png", b"last"]


def test_a_line_is_given_out_before_the_next_one_comes(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    lines = read_lines(reading)
    os.write(writing, b"first.png\nsec")
    assert next(lines) == Path("first.png")
    os.write(writing, b"ond.png\n")
    assert next(lines) == Path("second.png")
    os.close(writing)
    assert list(lines) == []


def test_a_name_that_is_no_text_can_be_shown() -> None:
    assert shown(Path(os.fsdecode(b"\xff.png"))) == "\N{REPLACEMENT CHARACTER}.png"
