"""Answers as TensorFlow Serving writes them."""

import json
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from node.protocols.tfserving import answer


def predicted(outputs, *, by_row=True):
    return json.loads(answer.predictions(outputs, by_row=by_row))


def test_an_only_output_has_no_name():
    outputs = {"y": np.array([[1, 2], [3, 4]], np.int64)}
    assert predicted(outputs) == {"predictions": [[1, 2], [3, 4]]}
    assert predicted(outputs, by_row=False) == {"outputs": [[1, 2], [3, 4]]}


def test_several_outputs_are_objects_by_row_and_lists_by_column():
    outputs = {"a": np.array([True, False]), "b": np.array([[0.5], [1.5]], np.float64)}
    assert predicted(outputs) == {"predictions": [{"a": True, "b": [0.5]}, {"a": False, "b": [1.5]}]}
    assert predicted(outputs, by_row=False) == {"outputs": {"a": [True, False], "b": [[0.5], [1.5]]}}


def test_bytes_are_text_unless_their_name_or_their_content_says_otherwise():
    outputs = {
        "text": np.array([["é".encode(), b"\xff"]], object),
        "mask_bytes": np.array([[b"a", b"b"]], object),
    }
    assert predicted(outputs) == {
        "predictions": [{"text": ["é", {"b64": "/w=="}], "mask_bytes": [{"b64": "YQ=="}, {"b64": "Yg=="}]}]
    }


def test_floats_are_written_as_short_as_they_are():
    body = answer.predictions({"y": np.array([0.2, 3.5, -1 / 3, 16777216, 0], np.float32)}, by_row=True)
    assert body == b'{"predictions":[0.2,3.5,-0.33333334,16777216.0,0.0]}'
    assert answer.predictions({"y": np.array([0.1], np.float16)}, by_row=True) == b'{"predictions":[0.1]}'


@given(st.lists(st.floats(width=32), max_size=20))
def test_every_float32_comes_back_the_same(numbers):
    array = np.array(numbers, np.float32)
    back = np.array(predicted({"y": array})["predictions"], np.float32)
    assert np.array_equal(array, back, equal_nan=True)


@given(st.lists(st.floats(width=16), max_size=20))
def test_every_float16_comes_back_the_same(numbers):
    array = np.array(numbers, np.float16)
    back = np.array(predicted({"y": array})["predictions"], np.float16)
    assert np.array_equal(array, back, equal_nan=True)


def test_what_is_no_number_is_written_as_tensorflow_serving_does():
    body = answer.predictions({"y": np.array([math.nan, math.inf, -math.inf, 0.5], np.float32)}, by_row=True)
    assert body == b'{"predictions":[NaN,Infinity,-Infinity,0.5]}'


def test_classes_are_every_label_with_its_score_in_the_models_order():
    body = answer.classes(np.array([[0.25, 0.75], [0.5, 0.5]], np.float32), ("cat", "dog"))
    assert json.loads(body) == {"results": [[["cat", 0.25], ["dog", 0.75]], [["cat", 0.5], ["dog", 0.5]]]}


def test_regressions_are_one_number_each_whatever_the_shape():
    for column in (np.array([3.5, 4.0], np.float32), np.array([[3.5], [4.0]], np.float32)):
        assert json.loads(answer.values(column)) == {"results": [3.5, 4.0]}
