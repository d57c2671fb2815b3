"""A model.py as a model: what it says of itself, what it answers, and what it leaves behind."""

import sys

import numpy as np
import pytest

from node.errors import ModelError
from node.runtimes.python import PythonRuntime
from node.tensors import TensorSpec

DOUBLE = """
inputs = [("x", "FP32", (2,))]
outputs = [("y", "FP32", (2,))]

def load(folder):
    return lambda batch: {"y": batch["x"] * 2}
"""


@pytest.fixture
def write(tmp_path):
    """Write a model.py (and files beside it) into a folder of its own; returns the script's path."""

    def make(text, folder="1", **others):
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        for name, content in others.items():
            (target / f"{name}.py").write_text(content)
        (target / "model.py").write_text(text)
        return target / "model.py"

    return make


@pytest.fixture
def answering(write):
    """A runtime of one input x, FP32 (2,), that answers with whatever an expression of ``batch`` gives."""
    opened = []

    def make(expression, outputs='[("y", "FP32", (2,))]'):
        text = f"""
import numpy as np
inputs = [("x", "FP32", (2,))]
outputs = {outputs}
def load(folder):
    return lambda batch: {expression}
"""
        opened.append(PythonRuntime(write(text, f"m{len(opened)}")))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def batch(count=3):
    return {"x": np.arange(count * 2, dtype=np.float32).reshape(count, 2)}


def test_a_callable_answers_by_name(write):
    runtime = PythonRuntime(write(DOUBLE))
    assert runtime.signature.inputs == (TensorSpec(name="x", datatype="FP32", shape=(2,)),)
    assert runtime.run(batch())["y"].tolist() == [[0, 2], [4, 6], [8, 10]]
    runtime.close()
    with pytest.raises(ModelError, match="closed"):
        runtime.run(batch())


def test_an_object_can_say_what_it_takes_after_it_has_read_its_files(write):
    script = write(
        """
class Model:
    def __init__(self, width):
        self.inputs = [("x", "float32", (-1,))]
        self.outputs = [("sums", "FP32", ()), ("width", "INT64", (None,))]
        self.width = width
    def __call__(self, batch):
        x = batch["x"]
        return {"sums": x.sum(axis=1), "width": [[self.width]] * len(x)}
    def close(self):
        (self.folder / "closed").touch()

def load(folder):
    model = Model(int((folder / "width.txt").read_text()))
    model.folder = folder
    return model
"""
    )
    (script.parent / "width.txt").write_text("7")
    runtime = PythonRuntime(script)
    assert [(each.name, each.datatype, each.shape) for each in runtime.signature.inputs] == [("x", "FP32", (None,))]
    answer = runtime.run(batch(2))
    assert answer["sums"].tolist() == [1, 5]
    assert answer["width"].tolist() == [[7], [7]]
    runtime.close()
    assert (script.parent / "closed").exists()


def test_one_output_needs_no_dict(answering):
    assert answering("batch['x'] + 1").run(batch(1))["y"].tolist() == [[1, 2]]
    assert answering("[[1, 2]] * len(batch['x'])").run(batch(2))["y"].dtype == np.float32


@pytest.mark.parametrize(
    ("given", "announced", "expected"),
    [
        ("np.float64", "FP32", [[0.5, 0.5]]),
        ("np.float16", "FP64", [[0.5, 0.5]]),
        ("np.int64", "INT32", [[0, 0]]),
        ("np.uint8", "INT16", [[0, 0]]),
    ],
)
def test_types_are_converted_where_little_is_lost(answering, given, announced, expected):
    runtime = answering(f"np.full((1, 2), 0.5).astype({given})", f'[("y", "{announced}", (2,))]')
    answer = runtime.run(batch(1))["y"]
    assert answer.dtype == runtime.signature.outputs[0].dtype
    assert answer.tolist() == expected


@pytest.mark.parametrize(
    ("expression", "announced", "says"),
    [
        ("np.zeros((len(batch['x']), 3), np.float32)", "FP32", r"float32 \(3, 3\); it said FP32 \(3, 2\)"),
        ("np.zeros((1, 2), np.float32)", "FP32", r"answers 3 rows with y of float32 \(1, 2\)"),
        ("np.float32(1)", "FP32", r"float32 \(\)"),
        ("batch['x']", "INT32", "it said INT32"),
        ("np.full((3, 2), 300)", "INT8", "it said INT8"),
        ("np.full((3, 2), 2**40 + 1)", "FP32", "it said FP32"),
        ("batch['x'] * 1j", "FP32", "complex64"),
        ("batch['x']", "BYTES", "it said BYTES"),
        ("{'z': batch['x']}", "FP32", "answers with z, not with y"),
        ("{'y': batch['x'], 'z': 1}", "FP32", "answers with y, z, not with y"),
    ],
)
def test_an_answer_that_is_not_what_was_announced_is_refused(answering, expression, announced, says):
    runtime = answering(expression, f'[("y", "{announced}", (2,))]')
    with pytest.raises(ModelError, match=says):
        runtime.run(batch())


def test_several_outputs_need_names(answering):
    runtime = answering("(batch['x'], batch['x'])", '[("y", "FP32", (2,)), ("z", "FP32", (2,))]')
    with pytest.raises(ModelError, match="answers with tuple, not a dict of y, z"):
        runtime.run(batch())


def test_strings_are_bytes(answering):
    runtime = answering("{'y': ['grüße', b'\\xff\\0', ''][:len(batch['x'])]}", '[("y", "BYTES", ())]')
    answer = runtime.run(batch())["y"]
    assert answer.dtype == np.object_
    assert answer.tolist() == ["grüße".encode(), b"\xff\0", b""]


def test_an_answer_outlives_the_arrays_it_was_made_of(answering):
    inputs = batch(1)
    answer = answering("batch['x'][:, ::-1]").run(inputs)["y"]
    inputs["x"][:] = 99
    assert answer.tolist() == [[1, 0]]


def test_what_the_code_raises_passes_through(answering):
    with pytest.raises(ZeroDivisionError):
        answering("1 // 0").run(batch())


def test_versions_have_modules_of_their_own_and_leave_none(write):
    text = """
from .factor import FACTOR
inputs = outputs = [("x", "INT64", ())]
def load(folder):
    return lambda batch: batch["x"] * FACTOR
"""
    path = list(sys.path)
    modules = set(sys.modules)
    first = PythonRuntime(write(text, "1", factor="FACTOR = 10"))
    second = PythonRuntime(write(text, "2", factor="FACTOR = 100"))
    ones = {"x": np.ones(1, np.int64)}
    assert (first.run(ones)["x"].tolist(), second.run(ones)["x"].tolist()) == ([10], [100])
    first.close()
    again = PythonRuntime(write(text, "1", factor="FACTOR = 20"))
    assert again.run(ones)["x"].tolist() == [20]
    assert second.run(ones)["x"].tolist() == [100]
    again.close()
    second.close()
    assert set(sys.modules) == modules
    assert sys.path == path
    assert not (write(text, "1").parent / "__pycache__").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import os\nx = 1 / 0\n", r"ZeroDivisionError: division by zero \(model\.py:2\)$"),
        ("def load(:\n", r"SyntaxError: .*\(model\.py:1\)$"),
        ("import sys\nsys.exit('no licence')\n", r"SystemExit: no licence \(model\.py:2\)$"),
        ("import helper\n", r"No module named 'helper'; write: from \.helper import … \(model\.py:1\)$"),
        ("from .helper import fail\ndef load(folder):\n    fail()\n", r"KeyError: 'here' \(helper\.py:2\)$"),
        ("x = 1\n", r"has no function load\(folder\)"),
        ("inputs = outputs = [('x', 'FP32', ())]\ndef load(folder): pass\n", "returns NoneType"),
        ("outputs = [('x', 'FP32', ())]\ndef load(folder): return print\n", r"inputs in .* is missing; write it like"),
        ("inputs = [('x', 'FP33', ())]\ndef load(folder): return print\n", "'FP33' is none of BOOL"),
        ("inputs = [('x', 'FP32')]\ndef load(folder): return print\n", r"inputs in .* cannot be read"),
        ("inputs = ('x', 'FP32', ())\ndef load(folder): return print\n", r"inputs in .* cannot be read"),
        ("inputs = [('x', 'FP32', ())] * 2\ndef load(folder): return print\n", "names one twice"),
    ],
)
def test_what_cannot_be_loaded_says_where_in_one_line(write, text, says):
    modules = set(sys.modules)
    script = write(text, helper="def fail():\n    {}['here']\n")
    with pytest.raises(ModelError, match=says) as refusal:
        PythonRuntime(script)
    assert str(script) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert set(sys.modules) == modules


def test_closing_ends_well_whatever_the_model_does(write):
    script = write(
        """
inputs = outputs = [("x", "FP32", (2,))]
class Model:
    def __call__(self, batch): return batch
    def close(self): raise OSError("busy")
def load(folder): return Model()
"""
    )
    runtime = PythonRuntime(script)
    runtime.close()
    with pytest.raises(ModelError, match="closed"):
        runtime.run(batch())
