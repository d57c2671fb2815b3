"""A folder of pictures as batches."""

import random

import numpy as np
import pytest

from node.dataset import batches, readable, scan, split
from node.errors import TrainingError
from node.images import encode_png
from node.preprocessing import Colour, Preprocessing

WANTED = Preprocessing(height=8, width=8, colour=Colour.GREY)


@pytest.fixture
def folder(tmp_path):
    for label, level in (("cat", 10), ("dog", 200)):
        (tmp_path / label).mkdir()
        for number in range(10):
            pixels = np.full((8, 8, 1), level + number, np.uint8)
            (tmp_path / label / f"{number}.PNG").write_bytes(encode_png(pixels))
    return tmp_path


def test_classes_are_the_sub_folders(folder):
    (folder / ".hidden").mkdir()
    (folder / "notes.txt").touch()
    labels, examples = scan(folder)
    assert labels == ("cat", "dog")
    assert [example.label for example in examples] == [0] * 10 + [1] * 10


def test_a_folder_that_cannot_be_trained_on_says_why(tmp_path):
    with pytest.raises(TrainingError, match="no folder"):
        scan(tmp_path / "nowhere")
    with pytest.raises(TrainingError, match="no images"):
        scan(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").touch()
    with pytest.raises(TrainingError, match="one class only"):
        scan(tmp_path)


def test_unreadable_pictures_are_sorted_out_with_the_reason(folder):
    (folder / "cat" / "0.PNG").write_bytes(b"no picture")
    (folder / "dog" / "3.PNG").write_bytes((folder / "dog" / "3.PNG").read_bytes()[:-20])
    told = []
    good, bad = readable(scan(folder)[1], WANTED, told.append)
    assert len(good) == 18
    assert [(each.path.parent.name, each.path.name) for each in bad] == [("cat", "0.PNG"), ("dog", "3.PNG")]
    assert all(each.why for each in bad)
    assert told == list(range(1, 21))


def test_the_split_is_stratified_and_repeatable(folder):
    labels, examples = scan(folder)
    train, held_out = split(examples, labels, 0.2, random.Random(1))
    assert [sum(each.label == label for each in held_out) for label in (0, 1)] == [2, 2]
    assert sorted(map(str, train + held_out)) == sorted(map(str, examples))
    assert split(examples, labels, 0.2, random.Random(1)) == (train, held_out)
    with pytest.raises(TrainingError, match="class dog has 1"):
        split(examples[:11], labels, 0.2, random.Random(1))


def test_batches_hold_every_picture_once_with_its_label(folder):
    _, examples = scan(folder)
    seen = []
    sizes = []
    for pixels, labels in batches(examples, WANTED, 6, random.Random(3)):
        sizes.append(len(labels))
        for image, label in zip(pixels, labels, strict=True):
            assert (image.min() >= 200) == (label == 1)
            seen.append(int(image[0, 0, 0]))
    assert sizes == [6, 6, 6, 2]
    assert sorted(seen) == [*range(10, 20), *range(200, 210)]
    assert seen != sorted(seen)


def test_leaving_early_ends_the_threads(folder):
    _, examples = scan(folder)
    some = batches(examples, WANTED, 4)
    next(some)
    some.close()
