"""ONNX files of every sort, made here by hand."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from node.errors import BadRequest, ModelError
from node.runtimes.onnx import OnnxRuntime
from node.tensors import TensorSpec

FLOAT, STRING = TensorProto.FLOAT, TensorProto.STRING


@pytest.fixture
def write(tmp_path):
    """Write an ONNX file of nodes, inputs and outputs, the latter as (name, type, shape)."""

    def make(nodes, inputs, outputs):
        graph = helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info(*each) for each in inputs],
            [helper.make_tensor_value_info(*each) for each in outputs],
        )
        opset = helper.make_opsetid("", 17)
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    return make


@pytest.fixture
def doubling(write):
    """A file that doubles rows of three, the batch as given."""

    def make(batch):
        nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
        return write(nodes, [("x", FLOAT, [batch, 3])], [("y", FLOAT, [batch, 3])])

    return make


def test_inputs_and_outputs_keep_their_names_order_and_types(write):
    nodes = [helper.make_node("Mul", ["zeta", "zeta"], ["squares"]), helper.make_node("Not", ["alpha"], ["denied"])]
    inputs = [("zeta", TensorProto.DOUBLE, ["n", 2]), ("alpha", TensorProto.BOOL, ["n"])]
    outputs = [("squares", TensorProto.DOUBLE, ["n", 2]), ("denied", TensorProto.BOOL, ["n"])]
    runtime = OnnxRuntime(write(nodes, inputs, outputs))
    assert runtime.signature.inputs == (
        TensorSpec(name="zeta", datatype="FP64", shape=(2,)),
        TensorSpec(name="alpha", datatype="BOOL", shape=()),
    )
    assert [each.name for each in runtime.signature.outputs] == ["squares", "denied"]
    given = runtime.run({"alpha": np.array([True, False]), "zeta": np.array([[1.0, 2.0], [3.0, 4.0]])})
    assert given["squares"].tolist() == [[1, 4], [9, 16]]
    assert given["denied"].tolist() == [False, True]


def test_what_it_gives_belongs_to_the_caller(doubling):
    runtime = OnnxRuntime(doubling("batch"))
    first = runtime.run({"x": np.ones((2, 3), np.float32)})["y"]
    runtime.run({"x": np.zeros((2, 3), np.float32)})
    assert first.tolist() == [[2, 2, 2], [2, 2, 2]]
    first += 1


def test_a_batch_fixed_at_one_is_run_row_by_row(doubling):
    runtime = OnnxRuntime(doubling(1))
    assert runtime.signature.inputs[0].shape == (3,)
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert runtime.run({"x": rows})["y"].tolist() == (rows * 2).tolist()
    assert runtime.snapshot()["row_by_row"]


def test_another_fixed_batch_is_refused(doubling):
    with pytest.raises(ModelError, match="no free batch dimension"):
        OnnxRuntime(doubling(4))


def test_strings_are_bytes_both_ways(write):
    path = write([helper.make_node("Identity", ["x"], ["y"])], [("x", STRING, [None, 2])], [("y", STRING, [None, 2])])
    runtime = OnnxRuntime(path)
    assert runtime.signature.inputs[0].datatype == "BYTES"
    texts = np.array([[b"one", "żółw".encode()], [b"", b"two"]], np.object_)
    assert runtime.run({"x": texts})["y"].tolist() == texts.tolist()
    with pytest.raises(BadRequest, match="input x"):
        runtime.run({"x": np.array([[b"\xff", b""]], np.object_)})


def test_outputs_without_a_batch_dimension_are_left_out(write):
    nodes = [helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0), helper.make_node("Abs", ["x"], ["y"])]
    runtime = OnnxRuntime(write(nodes, [("x", FLOAT, ["n", 3])], [("mean", FLOAT, []), ("y", FLOAT, ["n", 3])]))
    assert [each.name for each in runtime.signature.outputs] == ["y"]
    assert set(runtime.run({"x": np.zeros((2, 3), np.float32)})) == {"y"}


def test_types_that_no_protocol_carries_are_refused_by_name(write):
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)]
    path = write(nodes, [("x", FLOAT, ["n", 3])], [("y", TensorProto.BFLOAT16, ["n", 3])])
    with pytest.raises(ModelError, match="y of type"):
        OnnxRuntime(path)


def test_loading_writes_nothing_to_disk_or_terminal(doubling, tmp_path):
    """Official builds keep an identity of the machine in the user's cache, for reports to their makers."""
    home = tmp_path / "home"
    home.mkdir()
    code = "import sys; from pathlib import Path; from node.runtimes.onnx import OnnxRuntime as R; R(Path(sys.argv[1]))"
    quiet = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(doubling("n"))],
        env=quiet | {"HOME": str(home), "XDG_CACHE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.rglob("*")) == []


def test_bytes_that_are_no_model_and_a_closed_model_are_one_clear_line(doubling, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError) as refusal:
        OnnxRuntime(broken)
    assert str(broken) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    runtime = OnnxRuntime(doubling("n"))
    runtime.close()
    with pytest.raises(ModelError, match="closed"):
        runtime.run({"x": np.zeros((1, 3), np.float32)})


def test_a_missing_package_names_the_extra():
    code = """
import sys
from pathlib import Path
sys.modules["onnxruntime"] = None
from node.errors import MissingExtra
from node.runtimes.onnx import OnnxRuntime
try:
    OnnxRuntime(Path("any.onnx"))
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "onnxruntime is not installed; run: pip install 'twostep[onnx]'\n", done.stderr
