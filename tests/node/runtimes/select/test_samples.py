"""What a model is tried with."""

import numpy as np
import pytest

from node.errors import ModelError
from node.images import encode_png
from node.preprocessing import Colour, Preprocessing
from node.runtimes.base import Signature
from node.runtimes.select import samples as made
from node.runtimes.select.samples import gather, pictures_in
from node.tensors import TensorSpec, rows

GREY = Preprocessing(height=8, width=8, colour=Colour.GREY)
SCORES = (TensorSpec(name="scores", datatype="FP32", shape=(10,)),)


def taking(*inputs):
    return Signature(inputs=tuple(TensorSpec(name=n, datatype=d, shape=s) for n, d, s in inputs), outputs=SCORES)


IMAGE = taking(("image", "UINT8", (8, 8, 1)))


def rng():
    return np.random.default_rng(7)


@pytest.fixture
def folder(tmp_path):
    """Fifty grey pictures, each of one level, in five classes; and two files that are none."""
    for number in range(50):
        file = tmp_path / str(number // 10) / f"{number:02}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(encode_png(np.full((8, 8, 1), number, np.uint8)))
    (tmp_path / "0" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "0" / "notes.txt").write_text("no picture either")
    return tmp_path


def levels(tensors):
    return sorted(tensors["image"].max(axis=(1, 2, 3)).tolist())


def test_pictures_of_a_folder_are_divided_between_comparing_and_calibrating(folder):
    samples = gather(IMAGE, GREY, folder, rng())
    assert samples.pictures
    assert samples.words == f"50 pictures in {folder}"
    compared, calibrated = levels(samples.inputs), levels(samples.calibration)
    assert sorted(compared + calibrated) == list(range(50))
    assert len(compared) == 20
    assert {level // 10 for level in compared} == set(range(5))  # every class is there
    assert samples.inputs["image"].dtype == np.uint8


def test_of_many_pictures_some_of_every_class_are_taken(folder):
    samples = gather(IMAGE, GREY, folder, rng(), compare=8, calibrate=12)
    taken = levels(samples.inputs) + levels(samples.calibration)
    assert len(taken) in (19, 20)  # one of them may be the broken one
    assert {level // 10 for level in taken} == set(range(5))


def test_too_few_pictures_to_divide_serve_for_both(folder):
    for file in pictures_in(folder)[4:]:
        file.unlink()
    samples = gather(IMAGE, GREY, folder, rng())
    assert levels(samples.inputs) == levels(samples.calibration) == [0, 1, 2, 3]


def test_pictures_are_prepared_as_the_node_does(folder):
    scaled = Preprocessing(height=8, width=8, colour=Colour.GREY, scale=1 / 50)
    samples = gather(taking(("image", "FP32", (8, 8, 1))), scaled, folder, rng())
    assert samples.inputs["image"].dtype == np.float32
    assert 0.9 < samples.inputs["image"].max() < 1


@pytest.mark.parametrize("there", [True, False])
def test_without_pictures_it_is_noise_that_fills_the_range_and_is_the_same_every_time(tmp_path, there):
    folder = tmp_path if there else tmp_path / "nothing"
    samples = gather(IMAGE, GREY, folder, rng())
    assert not samples.pictures
    assert samples.words == "160 items of noise"
    images = samples.inputs["image"]
    assert images.shape == (64, 8, 8, 1)
    assert images.dtype == np.uint8
    assert (images.min(axis=(1, 2, 3)) == 0).all()
    assert (images.max(axis=(1, 2, 3)) >= 254).all()
    assert np.array_equal(images, gather(IMAGE, GREY, folder, rng()).inputs["image"])
    assert rows(samples.calibration) == 96
    assert not any(np.array_equal(images[0], each) for each in samples.calibration["image"])


def test_noise_for_pictures_is_coarse_as_photographs_are():
    """Neighbours are alike; pixels drawn one by one would not be."""
    wanted = Preprocessing(height=64, width=64)
    images = gather(taking(("image", "UINT8", (64, 64, 3))), wanted, None, rng()).inputs["image"].astype(float)
    left, right = images[:, :, :-1].ravel(), images[:, :, 1:].ravel()
    assert np.corrcoef(left, right)[0, 1] > 0.5


def test_several_inputs_and_free_sizes_are_filled():
    signature = taking(("x", "FP32", (None, 4)), ("flag", "BOOL", ()), ("index", "INT64", (3,)))
    inputs = gather(signature, None, None, rng()).inputs
    assert {name: array.shape[1:] for name, array in inputs.items()} == {"x": (32, 4), "flag": (), "index": (3,)}
    assert [inputs[name].dtype for name in ("x", "flag", "index")] == [np.float32, np.bool_, np.int64]
    assert set(inputs["index"].ravel()) == {0, 1}


def test_large_items_are_fewer(monkeypatch):
    monkeypatch.setattr(made, "_BYTES", 16 * 1024)
    samples = gather(taking(("x", "FP32", (256,))), None, None, rng())
    assert rows(samples.inputs) + rows(samples.calibration) == 16


def test_strings_cannot_be_made_up():
    with pytest.raises(ModelError, match="strings"):
        gather(taking(("x", "FP32", (2,)), ("text", "BYTES", ())), None, None, rng())
