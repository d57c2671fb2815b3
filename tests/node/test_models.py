"""Model folders: which version, which labels, which bytes."""

import json
import os
import shutil

import pytest

from node.errors import ModelError
from node.models import (
    MANIFEST,
    Manifest,
    digest,
    fingerprint,
    labels,
    locate,
    preprocessing,
    publish,
    verify,
    versions,
)
from node.preprocessing import Colour, Layout, Preprocessing
from node.runtimes.base import Signature
from node.tensors import TensorSpec
from node.testing import PREPROCESSING, write_model


def takes(*shapes, datatype="UINT8"):
    """A signature of inputs of these shapes."""
    inputs = tuple(TensorSpec(name=f"x{n}", datatype=datatype, shape=shape) for n, shape in enumerate(shapes))
    return Signature(inputs=inputs, outputs=(TensorSpec(name="scores", datatype="FP32", shape=(10,)),))


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


def test_one_version_can_be_asked_for(folder):
    write_model(folder, version=10)
    (folder / "007").mkdir()
    (folder / "007" / "model.onnx").touch()
    assert locate(folder, version=1).path == folder / "1" / "model.keras"
    assert (locate(folder, version=7).path, locate(folder, version=7).version) == (folder / "007" / "model.onnx", "7")
    assert locate(folder, version=10) == locate(folder)
    with pytest.raises(ModelError, match="no version 2; it has 1, 7, 10"):
        locate(folder, version=2)


def test_a_copied_version_is_a_version_of_its_own(folder):
    shutil.copytree(folder / "1", folder / "4")
    source = locate(folder)
    assert (source.name, source.version) == ("digits", "4")
    verify(source)


@pytest.mark.parametrize(
    ("file", "kind", "text"),
    [
        ("saved_model.pb", "saved_model", ""),
        ("net.keras", "keras", ""),
        ("net.tflite", "litert", ""),
        ("net.onnx", "onnx", ""),
        ("model.py", "python", "def load(folder):\n    return print\n"),
        ("model.py", "python", "from net import load\n"),
    ],
)
def test_bare_models_of_every_format_are_named_after_their_folders(tmp_path, file, kind, text):
    version = tmp_path / "resnet" / "3"
    version.mkdir(parents=True)
    (version / file).write_text(text)
    for path in (version, version.parent):
        source = locate(path)
        assert (source.kind, source.name, source.version) == (kind, "resnet", "3")
        assert source.path == (version if kind == "saved_model" else version / file)
    plain = version.rename(tmp_path / "plain")
    source = locate(plain)
    name = "net" if file.startswith("net") else "plain"
    assert (source.kind, source.name, source.version, source.labels) == (kind, name, "1", ())
    if kind != "saved_model":
        assert locate(plain / file) == source


def test_a_program_that_made_the_model_beside_it_is_not_the_model(tmp_path):
    (tmp_path / "model.py").write_text("import keras\nkeras.Sequential().save('cats.keras')\n")
    with pytest.raises(ModelError, match="with a function load"):
        locate(tmp_path)
    (tmp_path / "cats.keras").touch()
    assert locate(tmp_path).kind == "keras"
    (tmp_path / "model.py").write_text("def load(folder): ...\n")
    assert locate(tmp_path).kind == "python"


def test_what_was_converted_from_a_model_does_not_hide_it(tmp_path):
    (tmp_path / "cats.tflite").touch()
    (tmp_path / ".cats.onnx").touch()
    assert locate(tmp_path).kind == "litert"
    (tmp_path / "cats.onnx").touch()
    with pytest.raises(ModelError, match=r"2 such files; say which in a model\.json"):
        locate(tmp_path)
    (tmp_path / "cats.keras").touch()
    assert locate(tmp_path).kind == "keras"


def test_an_application_is_known_by_its_reference():
    source = locate("keras:MobileNetV2?weights=weights/own.weights.h5&classes=3")
    assert (source.kind, source.name, source.version) == ("application", "MobileNetV2", "1")
    assert str(source.path) == "keras:MobileNetV2?weights=weights/own.weights.h5&classes=3"
    assert labels(source, 3) == ("0", "1", "2")
    with pytest.raises(ModelError, match="unknown field `wieghts`"):
        locate("keras:MobileNetV2?wieghts=none")


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


def test_a_manifest_by_hand_needs_the_format_and_the_file_only(tmp_path):
    version = tmp_path / "cats" / "2"
    version.mkdir(parents=True)
    (version / "net.onnx").touch()
    (version / "other.onnx").touch()
    (version / MANIFEST).write_text('{"format": "onnx", "file": "net.onnx", "labels": ["cat", "dog"]}')
    source = locate(tmp_path / "cats")
    assert (source.path, source.kind, source.name, source.version) == (version / "net.onnx", "onnx", "cats", "2")
    assert (source.labels, source.preprocessing) == (("cat", "dog"), None)
    verify(source)
    plain = version.rename(tmp_path / "plain")
    assert (locate(plain).name, locate(plain).version) == ("plain", "1")


@pytest.mark.parametrize("inside", [".", "saved"])
def test_a_manifest_describes_the_saved_model_it_lies_in_or_beside(tmp_path, inside):
    version = tmp_path / "cats" / "2"
    (version / inside).mkdir(parents=True)
    (version / inside / "saved_model.pb").touch()
    (version / MANIFEST).write_text(json.dumps({"format": "saved_model", "file": inside}))
    source = locate(tmp_path / "cats")
    assert (source.path, source.name, source.version) == (version / inside, "cats", "2")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format":"keras"}', '{"format":"pickle","file":"a"}'])
def test_a_manifest_that_cannot_be_read_is_one_clear_line(folder, text):
    (folder / "1" / MANIFEST).write_text(text)
    with pytest.raises(ModelError, match=r"model\.json cannot be read"):
        locate(folder)


@pytest.mark.parametrize("file", ["gone.keras", "../model.keras", "/etc/passwd", "..", ".", ""])
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


def test_imagenets_class_names_are_read_where_keras_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    source = locate("keras:MobileNetV2")
    assert labels(source, 1000)[1] == "1"
    index = {str(number): [f"n{number:08}", f"thing_{number}"] for number in range(1000)}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "imagenet_class_index.json").write_text(json.dumps(index))
    assert labels(source, 1000)[999] == "thing_999"
    assert labels(locate("keras:MobileNetV2?weights=none"), 1000)[999] == "999"
    own = tmp_path / "labels.txt"
    own.write_text("\n".join(f"own {number}" for number in range(1000)))
    assert labels(locate("keras:MobileNetV2", own), 1000)[999] == "own 999"


def test_preprocessing_is_the_manifests_held_against_the_model(folder):
    source = locate(folder)
    for fitting in ((8, 8, 1), (None, None, 1), (8, None, None)):
        assert preprocessing(source, takes(fitting)) == PREPROCESSING
    for other in ((9, 8, 1), (8, 8, 3), (1, 8, 8)):
        with pytest.raises(ModelError, match=r"takes images of .*prepares 8 x 8 x 1"):
            preprocessing(source, takes(other))
    for no_picture in (takes((8, 8, 1), (2,)), takes((64,)), takes((8, 8, 1), datatype="BYTES")):
        with pytest.raises(ModelError, match="takes no pictures"):
            preprocessing(source, no_picture)


def test_channels_first_is_a_layout_of_the_manifest(folder):
    edit(folder, preprocessing={"height": 8, "width": 8, "layout": "nchw", "scale": 1 / 255, "mean": [0.5] * 3})
    source = locate(folder)
    assert preprocessing(source, takes((3, 8, 8), datatype="FP32")).shape == (3, 8, 8)
    with pytest.raises(ModelError, match=r"takes images of 8 x 8 x 3, .* prepares 3 x 8 x 8"):
        preprocessing(source, takes((8, 8, 3), datatype="FP32"))
    with pytest.raises(ModelError, match="whole numbers"):
        preprocessing(source, takes((3, 8, 8)))


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (takes((224, 160, 3)), Preprocessing(height=224, width=160)),
        (takes((8, 9, 1)), Preprocessing(height=8, width=9, colour=Colour.GREY)),
        (takes((3, 224, 160)), Preprocessing(height=224, width=160, layout=Layout.NCHW)),
        (takes((1, 8, 9)), Preprocessing(height=8, width=9, colour=Colour.GREY, layout=Layout.NCHW)),
        (takes((3, 224, 3)), Preprocessing(height=3, width=224)),
        (takes((None, None, 3)), None),
        (takes((3, None, 8)), None),
        (takes((None, None, None)), None),
        (takes((8, 8, 4)), None),
        (takes((8, 8, 3), (8, 8, 3)), None),
        (takes((10,)), None),
    ],
)
def test_what_nobody_said_of_pictures_is_read_off_the_signature(tmp_path, signature, expected):
    (tmp_path / "cats.onnx").touch()
    assert preprocessing(locate(tmp_path / "cats.onnx"), signature) == expected


def test_a_fingerprint_changes_while_somebody_copies(tmp_path):
    seen = [fingerprint(tmp_path)]
    (tmp_path / "variables").mkdir()
    data = tmp_path / "variables" / "data"
    data.write_bytes(b"1")
    seen.append(fingerprint(tmp_path))
    data.write_bytes(b"12")
    seen.append(fingerprint(tmp_path))
    os.utime(data, ns=(5, 5))
    seen.append(fingerprint(tmp_path))
    data.rename(tmp_path / "data")
    seen.append(fingerprint(tmp_path))
    (tmp_path / "loose").symlink_to("nowhere")
    assert fingerprint(tmp_path) == seen[-1]
    assert len(set(seen)) == len(seen)


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
