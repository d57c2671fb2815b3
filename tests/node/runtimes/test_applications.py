"""Keras applications by name: what a reference says, their own preprocessing, and weights that cannot be had."""

import random

import numpy as np
import pytest

from node.errors import ModelError
from node.models import locate
from node.runtimes.applications import Application, build, parse

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SMALL = "keras:MobileNet?weights={}&classes=3&size=32"


@pytest.fixture(scope="module")
def keras():
    from node.runtimes.tensorflow import tensorflow

    return tensorflow()[1]


@pytest.fixture(scope="module")
def weights(keras, tmp_path_factory):
    """A weights file of a small MobileNet, and the model it is from."""
    model = keras.applications.MobileNet(weights=None, classes=3, input_shape=(32, 32, 3))
    file = tmp_path_factory.mktemp("weights") / "own.weights.h5"
    model.save_weights(file)
    return file, model


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("keras:ResNet50", Application(name="ResNet50")),
        ("keras:ResNet50?weights=none", Application(name="ResNet50", weights="none")),
        (
            "keras:VGG16?weights=/a/b%20c.h5&classes=10&size=64",
            Application(name="VGG16", weights="/a/b c.h5", classes=10, size=64),
        ),
    ],
)
def test_a_reference_is_read(reference, expected):
    assert parse(reference) == expected


@pytest.mark.parametrize(
    "reference", ["keras:", "keras:A?size=big", "keras:A?size=0", "keras:A?weights", "keras:A?b=1"]
)
def test_a_reference_that_means_nothing_shows_one_that_does(reference):
    with pytest.raises(ModelError, match="write it like keras:MobileNetV2"):
        parse(reference)


def test_its_own_preprocessing_is_part_of_the_model(keras, weights):
    from node.runtimes.tensorflow import TensorFlowRuntime

    file, model = weights
    source = locate(SMALL.format(file))
    runtime = TensorFlowRuntime(source.path, source.kind)
    assert runtime.frozen
    assert (runtime.signature.picture.datatype, runtime.signature.picture.shape) == ("UINT8", (32, 32, 3))
    assert runtime.signature.scores.name == "predictions"
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    wanted = model(keras.applications.mobilenet.preprocess_input(pixels.astype(np.float32)), training=False)
    assert np.abs(runtime.run({"image": pixels})["predictions"] - wanted.numpy()).max() < 1e-5


def test_without_weights_every_node_has_the_same_ones_and_chance_goes_on(keras):
    before = random.getstate()
    first, second = (build(keras, parse(SMALL.format("none"))) for _ in range(2))
    assert random.getstate() == before
    for mine, other in zip(first.get_weights(), second.get_weights(), strict=True):
        assert np.array_equal(mine, other)


def test_what_cannot_be_made_says_the_next_step(keras, monkeypatch, tmp_path):
    with pytest.raises(ModelError, match="perhaps one of MobileNetV2"):
        build(keras, parse("keras:mobilenetv2"))
    with pytest.raises(ModelError, match="classes"):
        build(keras, parse("keras:MobileNet?classes=3&size=32"))
    with pytest.raises(ModelError, match=r"with weights .*gone\.h5 cannot be made"):
        build(keras, parse(SMALL.format(tmp_path / "gone.h5")))

    def offline(**_):
        raise Exception("URL fetch failure on https://storage.example/x.h5: None -- no route")  # noqa: TRY002

    offline.__module__ = keras.applications.MobileNet.__module__
    monkeypatch.setattr(keras.applications, "MobileNet", offline)
    with pytest.raises(ModelError, match=r"cannot be downloaded .*weights=FILE") as refusal:
        build(keras, parse("keras:MobileNet"))
    assert "\n" not in str(refusal.value)


def test_numbers_do_where_the_class_names_cannot_be_downloaded(keras, weights, monkeypatch, caplog):
    module = keras.applications.MobileNet.__module__

    def downloaded(**_):
        return weights[1]

    def no_names(*_, **__):
        raise OSError("no route")

    downloaded.__module__ = module
    monkeypatch.setattr(keras.applications, "MobileNet", downloaded)
    monkeypatch.setattr(f"{module}.decode_predictions", no_names)
    assert build(keras, parse("keras:MobileNet")).input_shape == (None, 32, 32, 3)
    assert "class names cannot be downloaded (no route)" in caplog.text
