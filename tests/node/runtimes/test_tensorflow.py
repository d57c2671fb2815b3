"""Models for the real TensorFlow: their own names and types, several inputs and outputs, and what is refused."""

import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest

from node.errors import ModelError
from node.models import locate
from node.tensors import TensorSpec

pytestmark = [
    pytest.mark.tensorflow,
    # Keras 3 and TensorFlow warn of each other's and NumPy's ageing calls.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def tf():
    from node.runtimes.tensorflow import tensorflow

    return tensorflow()[0]


@pytest.fixture(scope="module")
def keras(tf):
    from node.runtimes.tensorflow import tensorflow

    return tensorflow()[1]


@pytest.fixture
def load(tf):
    """Load a runtime from what ``locate`` finds at a path."""
    from node.runtimes.tensorflow import TensorFlowRuntime

    def make(path):
        source = locate(path)
        return TensorFlowRuntime(source.path, source.kind)

    return make


@pytest.fixture
def export(tf, tmp_path):
    """Write a SavedModel whose signature is a function of tensors described as name=(shape, dtype)."""

    def make(function, state=None, **inputs):
        module = tf.Module()
        module.state = state
        signature = [tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in inputs.items()]
        module.serve = tf.function(function, input_signature=signature)
        tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.serve})
        return tmp_path / "saved"

    return make


def ones(signature, count=2):
    return {spec.name: np.ones((count, *(size or 1 for size in spec.shape)), spec.dtype) for spec in signature.inputs}


class TestKeras:
    def test_a_frozen_function_says_what_keras_says_at_any_batch_size(self, keras, load, tmp_path):
        model = keras.Sequential(
            [keras.Input((6, 5, 1), dtype="uint8"), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
        )
        model.add(keras.layers.Dense(3, activation="softmax", name="scores"))
        model.save(tmp_path / "model.keras")
        runtime = load(tmp_path)
        assert runtime.frozen
        assert runtime.signature.picture.shape == (6, 5, 1)
        assert runtime.signature.scores == TensorSpec(name="scores", datatype="FP32", shape=(3,))
        pixels = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 1), np.uint8)
        name = runtime.signature.inputs[0].name
        for count in (1, 7):
            answer = runtime.run({name: pixels[:count]})
            assert answer.keys() == {"scores"}
            assert answer["scores"].dtype == np.float32
            assert np.abs(answer["scores"] - model(pixels[:count]).numpy()).max() < 1e-6

    @pytest.mark.parametrize("named", ["list", "dict"])
    def test_two_inputs_and_two_outputs_keep_their_names(self, keras, load, tmp_path, named):
        left = keras.Input((2,), name="left")
        right = keras.Input((2,), name="a_right", dtype="int32")
        total = keras.layers.Add(name="total")([left, keras.ops.cast(right, "float32")])
        double = keras.layers.Rescaling(2.0, name="a_double")(left)
        if named == "list":
            model = keras.Model([left, right], [total, double])
        else:
            model = keras.Model({"left": left, "a_right": right}, {"total": total, "a_double": double})
        model.save(tmp_path / "model.keras")
        runtime = load(tmp_path)
        assert {spec.name: spec.datatype for spec in runtime.signature.inputs} == {"left": "FP32", "a_right": "INT32"}
        answer = runtime.run({"left": np.full((1, 2), 3, np.float32), "a_right": np.full((1, 2), 4, np.int32)})
        assert {name: array.tolist() for name, array in answer.items()} == {"total": [[7, 7]], "a_double": [[6, 6]]}

    def test_names_are_the_files_whatever_was_loaded_before(self, keras, load, tmp_path):
        image = keras.Input((2,))
        layer = keras.layers.Dense(2, name="twice")
        keras.Model(image, [layer(image), layer(layer(image))]).save(tmp_path / "model.keras")
        first, second = load(tmp_path), load(tmp_path)
        assert first.signature == second.signature
        assert [spec.name for spec in first.signature.outputs] == ["twice", "twice_1"]

    def test_a_model_that_does_not_say_its_inputs_is_refused(self, keras, load, tmp_path):
        @keras.saving.register_keras_serializable()
        class Odd(keras.Model):
            def call(self, inputs):
                return inputs

        model = Odd()
        model(np.ones((1, 2)))
        model.save(tmp_path / "odd.keras")
        with pytest.raises(ModelError, match=r"model\.export"):
            load(tmp_path)


class TestSavedModel:
    def test_two_inputs_and_two_outputs_keep_their_names(self, load, export):
        def swap(b, a):  # names in an order of their own; positions must not decide
            return {"z": b + 1.0, "y_10": a, "y_2": a * 2}

        runtime = load(export(swap, b=([None, 2], "float32"), a=([None], "int64")))
        assert {(spec.name, spec.datatype, spec.shape) for spec in runtime.signature.inputs} == {
            ("b", "FP32", (2,)),
            ("a", "INT64", ()),
        }
        assert [spec.name for spec in runtime.signature.outputs] == ["y_2", "y_10", "z"]
        assert runtime.frozen
        answer = runtime.run({"a": np.array([5, 6]), "b": np.zeros((2, 2), np.float32)})
        assert {name: array.tolist() for name, array in answer.items()} == {
            "z": [[1, 1], [1, 1]],
            "y_2": [10, 12],
            "y_10": [5, 6],
        }

    def test_converters_get_inputs_and_outputs_in_the_signatures_order(self, tf, export):
        from node.runtimes.tensorflow import freeze

        path = export(lambda b, a: {"z": b, "y": a}, b=([None, 2], "float32"), a=([None, 3], "int64"))
        frozen = freeze(path, "saved_model")
        for tensors, specs in (
            (frozen.concrete.inputs, frozen.signature.inputs),
            (frozen.concrete.outputs, frozen.signature.outputs),
        ):
            assert [tuple(each.shape) for each in tensors] == [(None, *spec.shape) for spec in specs]
        answer = frozen.function(*(tf.constant(array) for array in ones(frozen.signature).values()))
        assert [tuple(each.shape) for each in answer] == [(2, *spec.shape) for spec in frozen.signature.outputs]

    def test_variables_become_constants(self, tf, load, export):
        weight = tf.Variable([[1.0, 2.0, 3.0]])
        path = export(
            lambda image: {"scores": tf.reduce_mean(image, [1, 2]) * weight}, weight, image=([None, 4, 5, 1], "float32")
        )
        runtime = load(path)
        assert runtime.frozen
        assert runtime.signature.picture == TensorSpec(name="image", datatype="FP32", shape=(4, 5, 1))
        assert runtime.run({"image": np.full((2, 4, 5, 1), 10, np.float32)})["scores"].tolist() == [[10, 20, 30]] * 2

    def test_look_up_tables_are_served_without_freezing(self, tf, load, export, caplog):
        table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["cat", "dog"], [1, 2]), -1)
        path = export(lambda word: {"number": table.lookup(word), "word": word}, table, word=([None], "string"))
        runtime = load(path)
        assert not runtime.frozen
        assert "served without freezing: it has look-up tables" in caplog.text
        assert runtime.signature.inputs == (TensorSpec(name="word", datatype="BYTES", shape=()),)
        words = np.array([b"dog", b"\xff\0", b""], object)
        answer = runtime.run({"word": words})
        assert answer["number"].tolist() == [2, -1, -1]
        assert answer["word"].dtype == np.object_
        assert answer["word"].tolist() == words.tolist()

    def test_an_output_without_rows_is_left_out(self, tf, load, export):
        step = tf.Variable(3.0)
        path = export(
            lambda x: {"x": x, "mean": tf.reduce_mean(x), "step": step, "table": tf.ones([2, 3])},
            step,
            x=([None, 2], "float32"),
        )
        runtime = load(path)
        assert [spec.name for spec in runtime.signature.outputs] == ["x"]
        assert runtime.run(ones(runtime.signature))["x"].tolist() == [[1, 1], [1, 1]]

    def test_an_answer_outlives_the_arrays_it_was_made_of(self, load, export):
        runtime = load(export(lambda x: {"x": x}, x=([None, 2], "float32")))
        inputs = ones(runtime.signature)
        answer = runtime.run(inputs)["x"]
        inputs["x"][:] = 5
        assert answer.tolist() == [[1, 1], [1, 1]]

    def test_a_signature_by_another_name_will_do(self, tf, load, tmp_path):
        module = tf.Module()
        module.serve = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec([None, 2], "float32")])
        tf.saved_model.save(module, str(tmp_path), signatures={"classify": module.serve})
        assert [spec.name for spec in load(tmp_path).signature.outputs] == ["y"]

    @pytest.mark.parametrize(
        ("shape", "dtype", "says"),
        [
            ((1, 8, 8, 1), "uint8", "fixed batch size of 1 in x; export it with a free batch dimension"),
            ((), "float32", "no batch dimension in x"),
            (None, "float32", "takes x of unknown rank"),
            ((None, 2), "complex64", "complex64 in x, which no protocol can carry"),
            ((None, 2), "bfloat16", "bfloat16 in x"),
        ],
    )
    def test_an_input_that_cannot_be_served_says_why(self, load, export, shape, dtype, says):
        with pytest.raises(ModelError, match=says):
            load(export(lambda x: {"out": x}, x=(shape, dtype)))

    @pytest.mark.parametrize("case", ["rank", "type", "rows", "inputs", "signature"])
    def test_an_export_that_cannot_be_served_says_why(self, tf, load, export, tmp_path, case):
        x = {"x": ([None, 2], "float32")}
        if case == "rank":
            shaped = export(lambda x: {"y": tf.reshape(x, tf.cast(x[0], tf.int32))}, x=([None, None], "float32"))
            path, says = shaped, "gives y of unknown rank"
        elif case == "type":
            path, says = export(lambda x: {"y": tf.cast(x, tf.bfloat16)}, **x), "bfloat16 in y"
        elif case == "rows":
            path, says = export(lambda x: {"y": tf.reduce_sum(x)}, **x), "no output with one row for each input"
        elif case == "inputs":
            path, says = export(lambda: {"y": tf.ones([2, 2])}), "says of no inputs"
        else:
            path, says = tmp_path, "no serving signature"
            tf.saved_model.save(tf.Module(), str(path))
        with pytest.raises(ModelError, match=says) as refusal:
            load(path)
        assert "\n" not in str(refusal.value)


def test_a_closed_model_says_so_and_is_freed(load, export):
    runtime = load(export(lambda x: {"x": x}, x=([None, 2], "float32")))
    graph = weakref.ref(runtime._model.concrete.graph)
    runtime.close()
    gc.collect()
    assert graph() is None
    with pytest.raises(ModelError, match="closed"):
        runtime.run(ones(runtime.signature))


@pytest.mark.parametrize("file", ["model.keras", "saved_model.pb"])
def test_bytes_that_are_no_model_are_one_clear_line(load, tmp_path, file):
    (tmp_path / file).write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError) as refusal:
        load(tmp_path)
    assert "\n" not in str(refusal.value)


def test_starting_tensorflow_prints_nothing():
    code = "from node.runtimes.tensorflow import tensorflow; tensorflow()[0].constant(1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_missing_tensorflow_names_the_extra():
    code = """
import sys
sys.modules["tensorflow"] = None
from node.errors import MissingExtra
from node.runtimes.tensorflow import tensorflow
try:
    tensorflow()
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "tensorflow is not installed; run: pip install 'twostep[node]'\n", done.stderr
