"""Requests to ``:predict``: rows, columns, names, files."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.errors import BadRequest
from node.protocols.tfserving.request import MOST_FILES, predict
from node.runtimes.base import Signature
from node.tensors import TensorSpec


def ask(body, signature):
    return predict(json.dumps(body).encode(), signature)


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def test_rows_of_one_input_need_no_name(numbers):
    batch = ask({"instances": [1.0, 2.0, 5.0]}, numbers)
    assert batch.by_row
    assert batch.tensors["x"].tolist() == [1.0, 2.0, 5.0]


def test_rows_of_one_input_may_have_its_name(numbers):
    assert ask({"instances": [{"x": 1}, {"x": 2}]}, numbers).tensors["x"].tolist() == [1.0, 2.0]


def test_rows_with_names_become_columns(sensors):
    rows = [
        {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
        {"sensor": [[4, 5], [6, 8]], "tag": b64(b"\xff"), "signal": [3, 4, 1, 2, 5]},
    ]
    tensors = ask({"instances": rows}, sensors).tensors
    assert list(tensors) == ["tag", "signal", "sensor"]
    assert tensors["tag"].tolist() == [b"foo", b"\xff"]
    assert tensors["signal"].tolist() == [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]]
    assert tensors["sensor"].tolist() == [[[1, 2], [3, 4]], [[4, 5], [6, 8]]]


def test_columns_of_one_input_and_of_several(numbers, sensors):
    for inputs in ([1, 2], {"x": [1, 2]}):
        batch = ask({"inputs": inputs}, numbers)
        assert not batch.by_row
        assert batch.tensors["x"].tolist() == [1.0, 2.0]
    columns = {
        "tag": ["foo", "bar"],
        "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
        "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]],
        "ignored": "as TensorFlow Serving does",
    }
    assert {name: len(rows) for name, rows in ask({"inputs": columns}, sensors).tensors.items()} == {
        "tag": 2,
        "signal": 2,
        "sensor": 2,
    }


@pytest.mark.parametrize("name", [None, "", "serving_default", "tensorflow/serving/predict"])
def test_the_only_signature_goes_by_its_usual_names(numbers, name):
    assert ask({"signature_name": name, "instances": [1]}, numbers).tensors["x"].tolist() == [1.0]


def test_a_signature_the_model_lacks_is_refused(numbers):
    with pytest.raises(BadRequest, match="no signature 'embed' for predict"):
        ask({"signature_name": "embed", "instances": [1]}, numbers)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({}, "neither instances"),
        ({"instances": [1], "inputs": [1]}, "both instances"),
        ({"instances": []}, "instances is empty"),
        ({"inputs": []}, "inputs is empty"),
        ({"inputs": {"x": []}}, "inputs.x is empty"),
        ({"instances": 5}, "instances: expected array, got int"),
        ({"instances": None}, "instances: expected array, got null"),
        ({"instances": {"x": [1]}}, "instances: expected array, got object"),
        ({"inputs": 5}, "inputs: expected array"),
        ({"instances": [{"x": 1}, 2]}, r"instances\[1\]: expected object, got int"),
        ({"instances": [1, {"x": 2}]}, r"instances\[1\]: expected float, got object"),
        ({"instances": [{"z": 1}]}, r"instances\[0\]: object contains unknown field z"),
        ({"instances": [{}]}, r"instances\[0\]: object missing required field x"),
        ({"instances": [{"x": [1]}]}, r"instances\[0\].x: expected float, got array"),
        ({"instances": [{"x": 1}, {"x": 1e300}]}, r"instances\[1\].x: 1e\+300 is out of FP32's range"),
        ({"inputs": {"z": [1]}}, "inputs has no 'x'; this model takes x"),
        ({"inputs": {"x": [1e300]}}, r"inputs.x\[0\]: .* range"),
        ({"signature_name": 5, "instances": [1]}, "signature_name: expected str"),
        ([], "the body: expected object, got array"),
        ({"instances": ["one"]}, r"instances\[0\]: expected float, got 'one'"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_place(numbers, body, what):
    with pytest.raises(BadRequest, match=what):
        ask(body, numbers)


def test_several_inputs_need_names_and_the_same_number_of_rows(sensors):
    for body in ({"instances": [[1, 2, 3, 4, 5]]}, {"inputs": ["foo"]}):
        with pytest.raises(BadRequest, match="has no names, but this model takes tag, signal, sensor"):
            ask(body, sensors)
    with pytest.raises(BadRequest, match="tag 2, signal 1, sensor 1"):
        ask({"inputs": {"tag": ["a", "b"], "signal": [[1, 2, 3, 4, 5]], "sensor": [[[1, 2], [3, 4]]]}}, sensors)


def test_the_last_of_two_keys_counts(numbers):
    assert predict(b'{"instances": [9], "instances": [{"x": 1, "x": 2}]}', numbers).tensors["x"].tolist() == [2.0]


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [b64(b"one"), b64(b"two")]},
        {"instances": [{"image": b64(b"one")}, {"image": b64(b"two")}]},
        {"inputs": [b64(b"one"), b64(b"two")]},
        {"inputs": {"image": [b64(b"one"), b64(b"two")]}},
    ],
)
def test_a_picture_may_be_a_file(picture, body):
    batch = ask(body, picture)
    assert batch.files == [b"one", b"two"]
    assert batch.by_row == ("instances" in body)


def test_a_picture_may_be_an_array(picture):
    pixels = [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 255]]]
    batch = ask({"instances": [pixels, pixels]}, picture)
    assert batch.files == []
    assert batch.tensors["image"].tolist() == [pixels, pixels]
    assert ask({"instances": [{"image": pixels}]}, picture).tensors["image"].tolist() == [pixels]


def test_files_and_arrays_are_not_mixed_and_files_are_not_without_end(picture):
    pixels = [[[0, 0, 0]] * 2] * 2
    for instances in ([b64(b"one"), pixels], [pixels, b64(b"one")], [{"image": b64(b"one")}, {"image": pixels}]):
        with pytest.raises(BadRequest, match=r"instances\[1\]"):
            ask({"instances": instances}, picture)
    assert len(ask({"instances": [b64(b"x")] * MOST_FILES}, picture).files) == MOST_FILES
    with pytest.raises(BadRequest, match="more than 256 image files"):
        ask({"instances": [b64(b"x")] * (MOST_FILES + 1)}, picture)


def test_bytes_that_are_no_picture_stay_bytes(signature):
    texts = signature(("text", "BYTES", ()))
    batch = ask({"instances": [b64(b"\x00\xff"), "plain"]}, texts)
    assert (batch.files, batch.tensors["text"].tolist()) == ([], [b"\x00\xff", b"plain"])
    assert ask({"instances": [{"text": b64(b"x")}]}, texts).tensors["text"].tolist() == [b"x"]


def test_an_input_whose_name_msgspec_cannot_hold_goes_without_it(signature):
    odd = signature(('x"y', "FP32", ()))
    assert ask({"instances": [1]}, odd).tensors['x"y'].tolist() == [1.0]
    assert ask({"inputs": {'x"y': [1]}}, odd).tensors['x"y'].tolist() == [1.0]
    with pytest.raises(BadRequest, match="cannot be keys here"):
        ask({"instances": [{'x"y': 1}]}, odd)


SIGNATURES = [
    Signature(inputs=inputs, outputs=())
    for inputs in (
        (TensorSpec(name="x", datatype="FP32", shape=()),),
        (TensorSpec(name="b64", datatype="BYTES", shape=(None,)),),
        (TensorSpec(name="x", datatype="UINT8", shape=(1, 1, 1)),),
        (TensorSpec(name="x", datatype="INT64", shape=(2,)), TensorSpec(name="y", datatype="BOOL", shape=())),
    )
]
WORDS = st.sampled_from(["instances", "inputs", "signature_name", "b64", "x", "y", "serving_default", "aGk="])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=15,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(WORDS, JUNK, max_size=3), st.sampled_from(SIGNATURES))
def test_any_object_is_a_batch_or_a_bad_request(body, signature):
    try:
        batch = ask(body, signature)
    except BadRequest as error:
        batch, refusal = None, str(error)
    if batch is None:
        assert "\n" not in refusal
    else:
        assert batch.files or set(batch.tensors) == {spec.name for spec in signature.inputs}
        assert len({len(rows) for rows in batch.tensors.values()}) <= 1
