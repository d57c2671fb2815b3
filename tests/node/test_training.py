"""Training with the real TensorFlow, and serving what came of it."""

import asyncio
import json

import numpy as np
import pytest
from click.testing import CliRunner

from node.cli import train
from node.config import NodeConfig
from node.errors import TrainingError
from node.images import decode, encode_png
from node.models import locate, verify
from node.repository import Model
from node.server import NodeServer

pytestmark = [
    pytest.mark.tensorflow,
    # Keras 3 and TensorFlow warn of each other's and NumPy's ageing calls.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def tensorflow():
    from node.runtimes.tensorflow import tensorflow

    return tensorflow()


@pytest.fixture(scope="module")
def digits(tensorflow, tmp_path_factory):
    """The digits, trained once."""
    from node.training import train_digits

    told = []
    done = train_digits(tmp_path_factory.mktemp("models") / "digits", tell=told.append)
    return done, told


@pytest.fixture(scope="module")
def held_out(digits):
    """The held-out digits as the files that were written, and their labels."""
    done, _ = digits
    files = sorted(done.samples.glob("*/*.png"))
    wanted = locate(done.folder).preprocessing
    return np.stack([decode(file.read_bytes(), wanted) for file in files]), [int(file.parent.name) for file in files]


def scores(source, pixels):
    """What the served model says of some pixels (count, height, width, channels)."""
    from node.runtimes.tensorflow import TensorFlowRuntime

    runtime = TensorFlowRuntime(source.path, source.kind)
    return runtime.run({runtime.signature.picture.name: pixels})[runtime.signature.scores.name]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A tiny folder of two classes, with one file that is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 215)):
        (folder / label).mkdir()
        for number in range(8):
            pixels = rng.integers(level - 40, level + 40, (40, 30, 3), np.uint8)
            (folder / label / f"{number}.png").write_bytes(encode_png(pixels))
    (folder / "dark" / "broken.jpg").write_bytes(b"no picture")
    return folder


class TestDigits:
    def test_it_is_right_on_what_it_has_not_seen(self, digits):
        done, told = digits
        assert done.accuracy >= 0.97
        assert done.trained_on + done.held_out == 1797
        assert (told[0].done, told[-1].done) == (1, told[-1].total)

    def test_what_is_served_is_right_as_often(self, digits, held_out):
        pixels, labels = held_out
        answer = scores(locate(digits[0].folder), pixels)
        assert (answer.argmax(axis=1) == labels).mean() == pytest.approx(digits[0].accuracy, abs=1e-6)

    def test_the_version_folder_is_whole(self, digits):
        done, _ = digits
        source = locate(done.folder.parent)
        verify(source)
        assert (source.name, source.version, source.labels) == ("digits", "1", tuple("0123456789"))
        manifest = json.loads((done.folder / "model.json").read_text())
        assert manifest["accuracy"] == round(done.accuracy, 4)
        assert manifest["created_with"].startswith("twostep ")
        assert {path.name for path in done.folder.parent.iterdir()} == {"1", "samples"}

    def test_the_samples_are_the_very_pixels(self, digits, held_out):
        from node.training import _digits

        done, _ = digits
        pixels, labels, out = _digits()
        assert done.held_out == out.sum() == len(held_out[1])
        for file in sorted((done.samples / "7").iterdir()):
            number = int(file.stem)
            assert out[number]
            assert labels[number] == 7
            assert np.array_equal(decode(file.read_bytes(), locate(done.folder).preprocessing), pixels[number])

    def test_training_again_makes_the_next_version(self, digits, tmp_path):
        from node.training import train_digits

        out = digits[0].folder.parent
        done = train_digits(out, epochs=1)
        assert done.version == "2"
        assert locate(out).version == "2"
        assert locate(digits[0].folder).version == "1"


class TestFolder:
    def test_it_trains_a_backbone_and_writes_a_model_that_serves(self, tensorflow, pictures, tmp_path):
        from node.training import train_folder

        told = []
        out = tmp_path / "shades"
        options = {"base": "VGG16", "weights": "none", "epochs": 1, "image_size": 32, "batch": 4}
        done = train_folder(pictures, out, **options, tell=told.append)
        assert [(each.path.name, each.why[:9]) for each in done.skipped] == [("broken.jpg", "the bytes")]
        assert (done.labels, done.trained_on, done.held_out) == (("dark", "light"), 12, 4)
        assert {each.stage for each in told} == {"checking images", "training"}
        source = locate(out)
        verify(source)
        assert source.preprocessing.shape == (32, 32, 3)
        assert scores(source, np.zeros((3, 32, 32, 3), np.uint8)).shape == (3, 2)

    def test_weights_from_a_file_are_used_and_then_fine_tuned(self, tensorflow, pictures, tmp_path):
        from node.training import train_folder

        _, keras = tensorflow
        backbone = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
        file = tmp_path / "backbone.weights.h5"
        backbone.save_weights(file)
        told = []
        options = {"base": "VGG16", "weights": str(file), "epochs": 1, "fine_tune_epochs": 1, "batch": 8}
        done = train_folder(pictures, tmp_path / "shades", **options, image_size=32, tell=told.append)
        assert {each.stage for each in told} == {"checking images", "training", "fine-tuning"}
        source = locate(done.folder)  # this backbone's preprocessing turns channels round; it must survive in the file
        assert scores(source, np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 2)
        first = keras.saving.load_model(source.path).get_layer("vgg16").get_layer("block1_conv1").kernel.numpy()
        assert np.abs(first - backbone.get_layer("block1_conv1").kernel.numpy()).max() < 1e-3  # tuned, not started anew

    def test_what_cannot_be_trained_says_the_next_step(self, tensorflow, pictures, tmp_path, monkeypatch):
        from node.training import train_folder

        _, keras = tensorflow
        with pytest.raises(TrainingError, match="MobileNetV2"):
            train_folder(pictures, tmp_path, base="mobilnetv2", image_size=32)
        with pytest.raises(TrainingError, match="with weights"):
            train_folder(pictures, tmp_path, weights=str(tmp_path / "none.h5"), image_size=32)

        def offline(**_):
            raise Exception("URL fetch failure on https://storage.example/x.h5: None -- no route")  # noqa: TRY002

        offline.__module__ = keras.applications.MobileNetV2.__module__
        monkeypatch.setattr(keras.applications, "MobileNetV2", offline)
        with pytest.raises(TrainingError, match="--weights none"):
            train_folder(pictures, tmp_path, image_size=32)
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "file").touch()
        with pytest.raises(TrainingError, match="cannot write to"):
            train_folder(pictures, tmp_path / "file", base="VGG16", weights="none", image_size=32)


async def test_the_node_serves_the_digits_right(digits, session):
    node = NodeServer(NodeConfig(models=(Model(path=digits[0].folder),), port=0, register=False))
    await node.start()
    try:
        files = sorted(digits[0].samples.glob("*/*.png"))[::6]

        async def ask(file):
            async with session.post(f"{node.url}/classify?top=1", data=file.read_bytes()) as reply:
                return (await reply.json())["results"][0]["predictions"][0]["label"] == file.parent.name

        right = await asyncio.gather(*(ask(file) for file in files))
        assert sum(right) / len(right) >= 0.95
        assert node.snapshot()["models"]["digits"]["versions"]["1"]["runtime"] == "tensorflow"
    finally:
        await node.stop()


def test_the_train_command_says_what_came_of_it_and_what_to_do_next(tensorflow, tmp_path):
    out = tmp_path / "digits"
    done = CliRunner().invoke(train, ["digits", "--out", str(out), "--epochs", "1"])
    assert done.exit_code == 0, done.output
    assert "held-out images" in done.output
    assert done.output.splitlines()[-1] == f"next: twostep node --model {out}"
    done = CliRunner().invoke(train, ["digits", "--out", str(out), "--epochs", "1", "--json"])
    summary = json.loads(done.output)
    assert (summary["version"], summary["name"], summary["held_out"]) == ("2", "digits", 359)
