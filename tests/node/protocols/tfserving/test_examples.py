"""Requests to ``:classify`` and ``:regress``: examples of features."""

import base64
import json

import pytest

from node.errors import BadRequest
from node.protocols.tfserving.examples import examples


def ask(body, signature, method="classify"):
    return examples(json.dumps(body).encode(), signature, method)


FILE = {"b64": base64.b64encode(b"file").decode()}


def test_a_feature_is_a_value_or_a_flat_list(signature):
    wanted = signature(("x", "FP32", (1,)), ("grid", "INT32", (2, 2)), ("word", "BYTES", ()))
    tensors = ask(
        {
            "examples": [
                {"x": 1, "grid": [1, 2, 3, 4], "word": "a", "unknown": {"is": "left aside"}},
                {"x": [2.5], "grid": [5, 6, 7, 8], "word": ["b"]},
            ]
        },
        wanted,
    ).tensors
    assert tensors["x"].tolist() == [[1.0], [2.5]]
    assert tensors["grid"].tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert tensors["word"].tolist() == [b"a", b"b"]


def test_what_is_in_the_context_belongs_to_every_example(signature):
    wanted = signature(("x", "FP32", ()), ("bias", "FP32", ()))
    tensors = ask({"context": {"bias": 3}, "examples": [{"x": 1}, {"x": 2}]}, wanted).tensors
    assert tensors["bias"].tolist() == [3.0, 3.0]
    with pytest.raises(BadRequest, match=r"examples\[1\] has a feature that stands in the context"):
        ask({"context": {"bias": 3}, "examples": [{"x": 1}, {"x": 2, "bias": 0}]}, wanted)


@pytest.mark.parametrize("name", ["serving_default", "tensorflow/serving/regress", None])
def test_the_signature_for_the_method_may_be_named(numbers, name):
    body = {"signature_name": name, "examples": [{"x": 1}]}
    assert ask(body, numbers, "regress").tensors["x"].tolist() == [1.0]
    if name == "tensorflow/serving/regress":
        with pytest.raises(BadRequest, match="no signature"):
            ask(body, numbers, "classify")


@pytest.mark.parametrize("key", ["image", "image/encoded"])
@pytest.mark.parametrize("as_list", [False, True])
def test_a_picture_is_a_file_under_either_name(picture, key, as_list):
    value = [FILE] if as_list else FILE
    assert ask({"examples": [{key: value}, {key: value}]}, picture).files == [b"file", b"file"]


def test_a_picture_is_a_flat_list_too(picture):
    assert ask({"examples": [{"image": list(range(12))}]}, picture).tensors["image"].shape == (1, 2, 2, 3)
    with pytest.raises(BadRequest, match=r"examples\[1\] has no image file"):
        ask({"examples": [{"image": FILE}, {"image": list(range(12))}]}, picture)
    with pytest.raises(BadRequest, match=r"examples\[1\].image holds bytes"):
        ask({"examples": [{"image": list(range(12))}, {"image": FILE}]}, picture)
    with pytest.raises(BadRequest, match=r"examples\[0\].image holds bytes"):
        ask({"examples": [{"image": [FILE, FILE]}]}, picture)
    with pytest.raises(BadRequest, match="more than 256"):
        ask({"examples": [{"image": FILE}] * 257}, picture)


def test_a_free_dimension_takes_what_there_is_but_all_the_same(signature):
    wanted = signature(("x", "FP32", (None,)))
    assert ask({"examples": [{"x": [1, 2]}, {"x": [3, 4]}]}, wanted).tensors["x"].shape == (2, 2)
    with pytest.raises(BadRequest, match=r"examples.x\[1\] has the shape \[1\]"):
        ask({"examples": [{"x": [1, 2]}, {"x": [3]}]}, wanted)
    with pytest.raises(BadRequest, match="any x any"):
        ask({"examples": [{"x": [1, 2]}]}, signature(("x", "FP32", (None, None))))


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({}, "no examples"),
        ({"examples": []}, "examples is empty"),
        ({"examples": {}}, "examples: expected array"),
        ({"examples": [1]}, r"examples\[0\]: expected object"),
        ({"examples": [{}]}, r"examples\[0\] has no feature 'x'"),
        ({"examples": [{"x": None}]}, r"examples\[0\] has no feature 'x'"),
        ({"examples": [{"x": [1, 2]}]}, r"examples\[0\].x has 2 values, which do not make one value"),
        ({"examples": [{"x": []}]}, r"examples\[0\].x has 0 values"),
        ({"examples": [{"x": [[1]]}]}, r"examples\[0\].x\[0\]: expected float"),
        ({"examples": [{"x": "one"}]}, r"examples\[0\].x: "),
        ({"examples": [{"x": 1}, {"x": 1e39}]}, r"examples\[1\].x\[0\]: 1e\+39 is out of FP32's range"),
        ({"examples": [{"x": 1}], "context": []}, "context: expected object"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_place(numbers, body, what):
    with pytest.raises(BadRequest, match=what):
        ask(body, numbers)
