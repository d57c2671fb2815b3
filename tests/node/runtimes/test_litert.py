"""LiteRT files of every sort: ours, and those that others have made."""

import subprocess
import sys

import numpy as np
import pytest

from node.errors import ModelError
from node.runtimes.convert import to_litert
from node.runtimes.litert import LiteRTRuntime
from node.tensors import TensorSpec

pytestmark = [
    pytest.mark.tensorflow,
    # TensorFlow's converter warns of its own ageing calls.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def ours(frozen, tmp_path_factory):
    """A file as we convert it."""
    path = tmp_path_factory.mktemp("ours") / "model.tflite"
    path.write_bytes(to_litert(frozen["pictures"]))
    return path


@pytest.fixture
def foreign(tf_and_keras, tmp_path):
    """A file that somebody else made of a function, its input called ``x``; without a signature."""
    tf, _ = tf_and_keras

    def make(function, shape, dtype="float32", change=lambda converter: None):
        concrete = tf.function(function).get_concrete_function(tf.TensorSpec(shape, dtype, "x"))
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
        change(converter)
        (tmp_path / "foreign.tflite").write_bytes(converter.convert())
        return tmp_path / "foreign.tflite"

    return make


def test_batches_of_any_size_in_any_order_give_what_each_item_gives_alone(ours, items):
    runtime = LiteRTRuntime(ours)
    images = items("pictures", 9)["image"]
    alone = np.concatenate([runtime.run({"image": images[n : n + 1]})["scores"] for n in range(9)])
    for size in (9, 2, 5, 9):
        assert np.abs(runtime.run({"image": images[:size]})["scores"] - alone[:size]).max() < 1e-6


def test_what_it_gives_and_what_it_was_given_belong_to_the_caller(ours, items):
    runtime = LiteRTRuntime(ours)
    first = items("pictures", 2)
    scores = runtime.run(first)["scores"]
    kept = scores.copy()
    runtime.run({"image": first["image"] // 2})
    assert np.array_equal(scores, kept)
    scores += 1  # and may be changed
    first["image"][:] = 0
    assert np.abs(runtime.run({"image": items("pictures", 2)["image"]})["scores"] - kept).max() < 1e-6


def test_overwriting_the_file_does_no_harm_to_a_loaded_model(ours, items, tmp_path):
    copy = tmp_path / "copy.tflite"
    copy.write_bytes(ours.read_bytes())
    runtime = LiteRTRuntime(copy)
    before = runtime.run(items("pictures", 3))["scores"]
    with copy.open("r+b") as stream:
        stream.truncate(0)
    assert np.array_equal(runtime.run(items("pictures", 3))["scores"], before)


def test_without_a_signature_the_tensors_names_count(foreign):
    runtime = LiteRTRuntime(foreign(lambda x: x * 2, [None, 3]))
    assert runtime.signature.inputs == (TensorSpec(name="x", datatype="FP32", shape=(3,)),)
    (output,) = runtime.signature.outputs
    assert runtime.run({"x": np.ones((2, 3), np.float32)})[output.name].tolist() == [[2, 2, 2], [2, 2, 2]]


def test_a_batch_fixed_at_one_is_run_row_by_row(foreign):
    runtime = LiteRTRuntime(foreign(lambda x: x * 2, [1, 3]))
    assert runtime.signature.inputs[0].shape == (3,)
    (output,) = runtime.signature.outputs
    assert output.shape == (3,)
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert runtime.run({"x": rows})[output.name].tolist() == (rows * 2).tolist()
    assert runtime.snapshot()["row_by_row"]


def test_an_output_of_one_item_without_a_batch_dimension_is_that_items(tf_and_keras, foreign):
    tf, _ = tf_and_keras
    runtime = LiteRTRuntime(foreign(lambda x: tf.reshape(x, [3, 2]), [1, 6]))
    (output,) = runtime.signature.outputs
    assert output.shape == (3, 2)
    assert runtime.run({"x": np.zeros((4, 6), np.float32)})[output.name].shape == (4, 3, 2)


def test_another_fixed_batch_is_refused(foreign):
    with pytest.raises(ModelError, match="no free batch dimension"):
        LiteRTRuntime(foreign(lambda x: x * 2, [2, 3]))


def test_sizes_that_are_free_besides_the_batch_follow_the_input(tf_and_keras, foreign):
    tf, _ = tf_and_keras
    runtime = LiteRTRuntime(foreign(lambda x: tf.nn.relu(x) + 1, [None, None, 2]))
    assert runtime.signature.inputs[0].shape == (None, 2)
    (output,) = runtime.signature.outputs
    for shape in ((2, 3, 2), (2, 5, 2), (1, 4, 2)):
        assert runtime.run({"x": np.zeros(shape, np.float32)})[output.name].shape == shape


def test_eight_bit_inputs_and_outputs_are_served_as_they_are(tf_and_keras, foreign):
    tf, _ = tf_and_keras

    def in_eight_bits(converter):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([np.full((1, 3), n, np.float32)] for n in (-1, 0, 1))
        converter.inference_input_type = converter.inference_output_type = tf.int8

    runtime = LiteRTRuntime(foreign(tf.nn.relu, [None, 3], change=in_eight_bits))
    assert [each.datatype for each in (*runtime.signature.inputs, *runtime.signature.outputs)] == ["INT8", "INT8"]
    (output,) = runtime.signature.outputs
    low, high = runtime.run({"x": np.array([[-100] * 3, [100] * 3], np.int8)})[output.name]
    assert (low < high).all()


def test_strings_are_bytes(tf_and_keras, foreign):
    tf, _ = tf_and_keras
    runtime = LiteRTRuntime(foreign(lambda x: tf.reshape(x, [-1, 1]), [None], "string"))
    (output,) = runtime.signature.outputs
    assert runtime.signature.inputs[0] == TensorSpec(name="x", datatype="BYTES", shape=())
    assert output == TensorSpec(name=output.name, datatype="BYTES", shape=(1,))
    texts = np.array([b"one", b"two\x00", b""], np.object_)
    assert runtime.run({"x": texts})[output.name].tolist() == [[b"one"], [b"two\x00"], [b""]]


def test_a_model_that_gives_other_rows_than_it_got_is_an_error(tf_and_keras, foreign):
    tf, _ = tf_and_keras
    runtime = LiteRTRuntime(foreign(lambda x: tf.concat([x, x], 0), [None, 3]))
    with pytest.raises(ModelError, match="not a row for each"):
        runtime.run({"x": np.zeros((2, 3), np.float32)})


def test_outputs_without_a_batch_dimension_are_left_out(tf_and_keras, foreign):
    tf, _ = tf_and_keras
    runtime = LiteRTRuntime(foreign(lambda x: (x * 2, tf.reduce_mean(x)), [None, 3]))
    assert [each.shape for each in runtime.signature.outputs] == [(3,)]
    with pytest.raises(ModelError, match="no output with one row"):
        LiteRTRuntime(foreign(tf.reduce_mean, [None, 3]))


def test_after_a_batch_that_fails_it_goes_on(ours, items):
    runtime = LiteRTRuntime(ours)
    before = runtime.run(items("pictures", 2))["scores"]
    with pytest.raises((ValueError, RuntimeError)):
        runtime.run({"image": np.zeros((2, 12, 12), np.uint8)})
    assert np.array_equal(runtime.run(items("pictures", 2))["scores"], before)


def test_bytes_that_are_no_model_and_a_closed_model_are_one_clear_line(ours, items, tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError) as refusal:
        LiteRTRuntime(broken)
    assert str(broken) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    runtime = LiteRTRuntime(ours)
    runtime.close()
    with pytest.raises(ModelError, match="closed"):
        runtime.run(items("pictures", 1))


def test_loading_prints_nothing_and_needs_no_tensorflow(ours):
    code = """
import sys
from pathlib import Path
import numpy as np
from node.runtimes.litert import LiteRTRuntime
runtime = LiteRTRuntime(Path(sys.argv[1]))
runtime.run({"image": np.zeros((2, 12, 12, 1), np.uint8)})
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code, str(ours)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_missing_package_names_the_extra():
    code = """
import sys
from pathlib import Path
sys.modules["ai_edge_litert"] = None
from node.errors import MissingExtra
from node.runtimes.litert import LiteRTRuntime
try:
    LiteRTRuntime(Path("any.tflite"))
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "ai_edge_litert is not installed; run: pip install 'twostep[litert]'\n", done.stderr
