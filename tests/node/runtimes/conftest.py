"""Small models for the runtimes and the choice between them; TensorFlow takes seconds, so it is loaded once."""

import numpy as np
import pytest

from node.models import locate


@pytest.fixture(scope="session")
def tf_and_keras():
    from node.runtimes.tensorflow import tensorflow

    return tensorflow()


@pytest.fixture(scope="session")
def pictures_model(tf_and_keras, tmp_path_factory):
    """A ``.keras`` file from uint8 pictures of 12 x 12 to ten scores that do depend on the picture."""
    _, keras = tf_and_keras
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1), dtype="uint8", name="image"),
            keras.layers.Rescaling(1 / 32),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax", name="scores"),
        ]
    )
    folder = tmp_path_factory.mktemp("models") / "shades" / "1"
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    return folder / "model.keras"


@pytest.fixture(scope="session")
def pairs_model(tf_and_keras, tmp_path_factory):
    """A SavedModel of two inputs and two outputs, whose names are in no order, with a branch in it."""
    tf, _ = tf_and_keras

    class Pairs(tf.Module):
        def __init__(self):
            super().__init__()
            self.weights = tf.Variable(np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))

        @tf.function(
            input_signature=[tf.TensorSpec([None, 4], tf.float32, "zeta"), tf.TensorSpec([None], tf.int32, "alpha")]
        )
        def serve(self, zeta, alpha):
            shifted = tf.cond(tf.reduce_max(zeta) > 1000, lambda: zeta - 1000, lambda: zeta)
            return {
                "weighed": tf.nn.softmax(shifted @ self.weights + tf.cast(alpha, tf.float32)[:, None]),
                "doubled": tf.cast(alpha, tf.int64) * 2,
            }

    module = Pairs()
    folder = tmp_path_factory.mktemp("models") / "pairs" / "1"
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


@pytest.fixture(scope="session")
def frozen(pictures_model, pairs_model):
    """The models frozen, by name."""
    from node.runtimes.tensorflow import freeze

    sources = {"pictures": locate(pictures_model), "pairs": locate(pairs_model)}
    return {name: freeze(source.path, source.kind) for name, source in sources.items()}


@pytest.fixture(scope="session")
def answer(tf_and_keras):
    """What a frozen model says to inputs by name."""
    tf, _ = tf_and_keras

    def ask(model, inputs):
        answers = model.function(*(tf.constant(inputs[spec.name]) for spec in model.signature.inputs))
        return {spec.name: each.numpy() for spec, each in zip(model.signature.outputs, answers, strict=True)}

    return ask


@pytest.fixture(scope="session")
def items():
    """Inputs for both models, so many of them."""

    def make(name, count):
        rng = np.random.default_rng(count)
        if name == "pictures":
            return {"image": rng.integers(0, 256, (count, 12, 12, 1), np.uint8)}
        return {"zeta": rng.normal(size=(count, 4)).astype(np.float32), "alpha": np.arange(count, dtype=np.int32) % 3}

    return make
