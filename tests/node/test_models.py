"""Model folders: which version, which labels, which bytes."""

import json
import shutil

import pytest

from node.errors import ModelError
from node.images import Colour, Preprocessing
from node.models import MANIFEST, Manifest, digest, labels, locate, preprocessing, publish, verify, versions
from node.runtimes.base import Signature
from node.testing import PREPROCESSING, write_model

GREY = Signature(height=8, width=8, channels=1, dtype="uint8")


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path / "digits")


def edit(folder, **changes):
    file = folder / "1" / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_the_highest_version_is_served(folder):
    write_model(folder, version=10)
    write_model(folder, version=9)
    source = locate(folder)
    assert (source.name, source.version) == ("digits", "10")
    assert source.path == folder / "10" / "model.keras"
    assert source.preprocessing == PREPROCESSING


def test_a_version_folder_and_a_model_file_lead_to_the_same_model(folder):
    assert locate(folder / "1") == locate(folder) == locate(folder / "1" / "model.keras")


def test_half_written_versions_are_not_seen(folder):
    shutil.copytree(folder / "1", folder / ".partial-x")
    (folder / "2.tmp").mkdir()
    (folder / "samples").mkdir()
    assert versions(folder) == [1]
    assert locate(folder).version == "1"


def test_bare_models_are_named_after_their_folders(tmp_path):
    saved = tmp_path / "resnet" / "3"
    saved.mkdir(parents=True)
    (saved / "saved_model.pb").write_bytes(b"")
    for path in (saved, saved.parent):
        source = locate(path)
        assert (source.kind, source.name, source.version) == ("saved_model", "resnet", "3")
    keras = tmp_path / "cats.keras"
    keras.write_bytes(b"")
    for path in (keras, tmp_path):
        source = locate(path) if path == keras else locate(keras)
        assert (source.kind, source.name, source.version) == ("keras", "cats", "1")


@pytest.mark.parametrize("make", ["empty", "two", "text", "file"])
def test_what_is_no_model_says_what_was_looked_for(tmp_path, make):
    path = tmp_path
    if make == "two":
        (tmp_path / "a.keras").touch()
        (tmp_path / "b.keras").touch()
    elif make == "text":
        (tmp_path / "readme.txt").touch()
    elif make == "file":
        path = tmp_path / "model.h5"
        path.touch()
    with pytest.raises(ModelError, match=r"\.keras") as refusal:
        locate(path)
    assert "\n" not in str(refusal.value)


def test_a_missing_folder_says_how_to_train_one(tmp_path):
    with pytest.raises(ModelError, match="twostep train"):
        locate(tmp_path / "nowhere")


def test_bytes_that_differ_from_the_manifest_are_refused(folder):
    verify(locate(folder))
    (folder / "1" / "model.keras").write_bytes(b"not a Model")
    with pytest.raises(ModelError, match="sha256"):
        verify(locate(folder))


def test_the_digest_of_a_folder_covers_names_and_bytes(tmp_path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "data").write_bytes(b"1")
    before = digest(tmp_path)
    (tmp_path / "variables" / "data").rename(tmp_path / "variables" / "date")
    renamed = digest(tmp_path)
    (tmp_path / "variables" / "date").write_bytes(b"2")
    assert len({before, renamed, digest(tmp_path)}) == 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format":"keras"}', '{"format":"pickle"}'])
def test_a_manifest_that_cannot_be_read_is_one_clear_line(folder, text):
    (folder / "1" / MANIFEST).write_text(text)
    with pytest.raises(ModelError, match=r"model\.json cannot be read"):
        locate(folder)


@pytest.mark.parametrize("file", ["gone.keras", "../model.keras", "/etc/passwd"])
def test_a_manifest_names_a_file_beside_it(folder, file):
    edit(folder, file=file)
    with pytest.raises(ModelError, match="not in"):
        locate(folder)


def test_labels_come_from_a_file_the_manifest_or_counting(folder, tmp_path):
    assert labels(locate(folder), 10)[7] == "7"
    names = tmp_path / "labels.txt"
    names.write_text("zero\none\n\n two \n", encoding="utf-8")
    assert labels(locate(folder, names), 3) == ("zero", "one", "two")
    with pytest.raises(ModelError, match=r"10 scores.*3 labels"):
        labels(locate(folder, names), 10)
    with pytest.raises(ModelError, match="cannot be read"):
        locate(folder, tmp_path / "none.txt")
    bare = tmp_path / "cats.keras"
    bare.touch()
    assert labels(locate(bare), 3) == ("0", "1", "2")


def test_preprocessing_is_the_manifests_held_against_the_model(folder, tmp_path):
    source = locate(folder)
    assert preprocessing(source, GREY) == PREPROCESSING
    any_size = Signature(height=None, width=None, channels=1, dtype="uint8")
    assert preprocessing(source, any_size) == PREPROCESSING
    for other in ({"height": 9}, {"channels": 3}):
        with pytest.raises(ModelError, match="prepares 8 x 8 x 1"):
            preprocessing(source, Signature(**({"height": 8, "width": 8, "channels": 1, "dtype": "uint8"} | other)))
    bare = tmp_path / "cats.keras"
    bare.touch()
    coloured = Signature(height=224, width=160, channels=3, dtype="float32")
    assert preprocessing(locate(bare), coloured) == Preprocessing(height=224, width=160, colour=Colour.RGB)
    with pytest.raises(ModelError, match="any size"):
        preprocessing(locate(bare), any_size)


def test_publishing_takes_the_next_free_number_and_fills_the_manifest_in(tmp_path):
    for expected in (1, 2):
        staging = tmp_path / "digits" / ".partial-1"
        staging.mkdir(parents=True)
        (staging / "model.keras").write_bytes(b"weights %d" % expected)
        draft = Manifest(
            format="keras",
            file="model.keras",
            name="digits",
            version="",
            labels=("a", "b"),
            preprocessing=PREPROCESSING,
            sha256="",
        )
        assert publish(staging, tmp_path / "digits", draft) == tmp_path / "digits" / str(expected)
        assert not staging.exists()
        source = locate(tmp_path / "digits")
        assert source.version == str(expected)
        verify(source)
