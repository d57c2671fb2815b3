"""Conversions keep what the original says, and what it calls things."""

import numpy as np
import pytest

from node.errors import ModelError
from node.runtimes.convert import to_litert, to_onnx
from node.runtimes.litert import LiteRTRuntime
from node.runtimes.onnx import OnnxRuntime

pytestmark = [
    pytest.mark.tensorflow,
    # Keras, TensorFlow and the converters warn of each other's ageing calls.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture
def convert(tmp_path):
    """Convert a frozen model and load what came of it."""

    def make(model, to, calibration=None):
        if to == "onnx":
            (tmp_path / "model.onnx").write_bytes(to_onnx(model))
            return OnnxRuntime(tmp_path / "model.onnx")
        (tmp_path / "model.tflite").write_bytes(to_litert(model, calibration))
        return LiteRTRuntime(tmp_path / "model.tflite")

    return make


@pytest.mark.parametrize("name", ["pictures", "pairs"])
@pytest.mark.parametrize("to", ["litert", "onnx"])
def test_names_order_types_and_answers_survive_at_any_batch_size(convert, frozen, answer, items, name, to):
    runtime = convert(frozen[name], to)
    assert runtime.signature == frozen[name].signature
    for count in (1, 5, 3):
        inputs = items(name, count)
        given, expected = runtime.run(inputs), answer(frozen[name], inputs)
        for each in runtime.signature.outputs:
            assert given[each.name].dtype == expected[each.name].dtype
            assert given[each.name].shape == expected[each.name].shape
            assert np.abs(given[each.name] - expected[each.name]).max() < 1e-5


@pytest.mark.parametrize("name", ["pictures", "pairs"])
def test_int8_keeps_inputs_and_outputs_as_they_were(convert, frozen, items, name):
    runtime = convert(frozen[name], "litert", items(name, 8))
    assert runtime.signature == frozen[name].signature
    for each in runtime.signature.outputs:
        assert runtime.run(items(name, 5))[each.name].dtype == each.dtype


def test_int8_stays_near(convert, frozen, answer, items):
    inputs = items("pictures", 32)
    given = convert(frozen["pictures"], "litert", items("pictures", 64)).run(inputs)["scores"]
    assert np.abs(given - answer(frozen["pictures"], inputs)["scores"]).max() < 0.1


def test_int8_is_a_quarter_of_the_size(frozen, items):
    model = frozen["pictures"]
    assert len(to_litert(model, items("pictures", 8))) < 0.5 * len(to_litert(model))


def test_int8_leaves_the_scores_of_many_classes_apart(tf_and_keras, convert, answer, tmp_path):
    from node.runtimes.tensorflow import freeze

    _, keras = tf_and_keras
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8,), name="x"), keras.layers.Dense(1000), keras.layers.Softmax(name="scores")]
    keras.Sequential(layers).save(tmp_path / "many.keras")
    model = freeze(tmp_path / "many.keras", "keras")
    inputs = {"x": np.random.default_rng(0).uniform(-1, 1, (64, 8)).astype(np.float32)}
    given = convert(model, "litert", inputs).run(inputs)["scores"]
    assert given.max() < 1 / 256  # all would be zero in eight bits
    assert np.corrcoef(given.ravel(), answer(model, inputs)["scores"].ravel())[0, 1] > 0.99


def test_a_loop_is_converted_with_the_names_it_uses(tf_and_keras, convert, answer, tmp_path):
    from node.runtimes.tensorflow import freeze

    tf, _ = tf_and_keras
    module = tf.Module()
    module.serve = tf.function(
        lambda x: {"y": tf.while_loop(lambda n, _: n < 3, lambda n, total: (n + 1, total + x), [0, x])[1]},
        input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")],
    )
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    model = freeze(tmp_path, "saved_model")
    inputs = {"x": np.array([[1, 2], [3, 4]], np.float32)}
    assert convert(model, "onnx").run(inputs)["y"].tolist() == [[4, 8], [12, 16]]
    assert convert(model, "litert").run(inputs)["y"].tolist() == [[4, 8], [12, 16]]


@pytest.mark.parametrize("convert_to", [to_litert, to_onnx])
def test_what_cannot_be_frozen_is_refused(tf_and_keras, tmp_path, convert_to):
    from node.runtimes.tensorflow import freeze

    tf, _ = tf_and_keras

    class Names(tf.Module):
        def __init__(self):
            super().__init__()
            pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([1.0, 2.0]))
            self.table = tf.lookup.StaticHashTable(pairs, 0.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "name")])
        def serve(self, name):
            return {"number": self.table.lookup(name)}

    module = Names()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    with pytest.raises(ModelError, match="look-up tables"):
        convert_to(freeze(tmp_path, "saved_model"))
