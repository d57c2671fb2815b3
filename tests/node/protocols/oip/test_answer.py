"""What an answer looks like, and that clients of the protocol read from it what the model gave."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from multidict import CIMultiDict
from tritonclient.http import InferResult

from node.errors import BadRequest
from node.protocols.oip.answer import Answer, NotInJson, build
from node.protocols.oip.request import InferRequest, Output
from node.tensors import DTYPES, Array
from smartclient import tensors as ours
from smartclient.call import Done
from smartclient.testing import endpoints
from smartclient.transport import Answer as Received

VALUES = {
    datatype: np.array([[0, 1], [1, 0]], dtype)
    if datatype != "BYTES"
    else np.array([[b"a", b""], [b"\0", b"xyz"]], object)
    for datatype, dtype in DTYPES.items()
}


def asked(*outputs: Output, request_id: str | None = None) -> InferRequest:
    return InferRequest(id=request_id, inputs={}, outputs=outputs)


def answer(values: Array, *, binary: bool = False, classes: int = 0, labels: Sequence[str] = ()) -> Answer:
    request = asked(Output(name="y", binary=binary, classes=classes))
    return build(request, {"y": values}, model="m", version="3", labels={"y": labels})


def only(built: Answer) -> dict[str, object]:
    (output,) = json.loads(built.body)["outputs"]
    return output


def test_json_says_model_version_id_and_every_output() -> None:
    request = asked(Output(name="b", binary=False), Output(name="a", binary=False), request_id="42")
    built = build(request, {"a": np.ones((1, 2), np.float32), "b": np.array([[b"x"]], object)}, model="m", version="3")
    assert built.json_length is None
    assert json.loads(built.body) == {
        "model_name": "m",
        "model_version": "3",
        "id": "42",
        "outputs": [
            {"name": "b", "datatype": "BYTES", "shape": [1, 1], "data": ["x"]},
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 1.0]},
        ],
    }


def test_a_request_without_an_id_has_none_in_its_answer() -> None:
    assert "id" not in json.loads(answer(VALUES["FP32"]).body)


def test_binary_outputs_follow_the_json_in_its_order() -> None:
    request = asked(Output(name="a", binary=True), Output(name="j", binary=False), Output(name="b", binary=True))
    values = {"a": np.array([[1, 2]], np.int16), "b": np.array([b"xy"], object), "j": np.array([True])}
    built = build(request, values, model="m", version="3")
    assert built.json_length is not None
    outputs = json.loads(built.body[: built.json_length])["outputs"]
    assert [each.get("parameters") for each in outputs] == [{"binary_data_size": 4}, None, {"binary_data_size": 6}]
    assert [each.get("data") for each in outputs] == [None, [True], None]
    assert built.body[built.json_length :] == b"\1\0\2\0" + b"\2\0\0\0xy"


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_reads_what_the_model_gave(datatype: str, binary: bool) -> None:
    built = answer(VALUES[datatype], binary=binary)
    result = InferResult.from_response_body(built.body, header_length=built.json_length)
    expected = VALUES[datatype]
    if datatype == "BYTES" and not binary:
        expected = np.array([[each.decode() for each in row] for row in expected.tolist()], object)
    np.testing.assert_array_equal(result.as_numpy("y"), expected)
    assert result.get_output("y")["datatype"] == datatype


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("binary", [True, False])
def test_the_smart_client_reads_what_the_model_gave(datatype: str, binary: bool) -> None:
    built = answer(VALUES[datatype], binary=binary)
    headers = CIMultiDict({} if built.json_length is None else {ours.JSON_LENGTH: str(built.json_length)})
    (endpoint,) = endpoints(1)
    read = ours.decode(Done(Received(200, headers, built.body), endpoint, 1.0, 1.0), "service")
    np.testing.assert_array_equal(read.outputs["y"], VALUES[datatype])
    assert (read.model, read.version) == ("m", "3")


def test_large_arrays_are_written_whole_whatever_their_order_in_memory() -> None:
    values = np.random.default_rng(2).standard_normal((3, 40_000)).astype(np.float32)
    for array in (values, np.asfortranarray(values), np.repeat(values, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(np.array(only(answer(array))["data"], np.float32).reshape(3, -1), values)
        built = answer(array, binary=True)
        assert built.body[built.json_length :] == values.astype("<f4").tobytes()


def test_an_empty_output_is_an_empty_list() -> None:
    assert only(answer(np.zeros((2, 0), np.float32)))["data"] == []
    assert answer(np.zeros((2, 0), np.float32), binary=True).body.endswith(b"}")


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, np.nan], np.float32),
        np.array([np.inf], np.float64),
        np.array([-np.inf], np.float16),
        np.array([b"\xff"], object),
    ],
)
def test_what_json_cannot_hold_is_refused_with_the_way_out(values: Array) -> None:
    with pytest.raises(NotInJson, match=r"output 'y' has .*; ask for binary data") as caught:
        answer(values)
    assert isinstance(caught.value, BadRequest)
    assert caught.value.status == 422
    assert answer(values, binary=True).json_length is not None


class TestClassification:
    def test_the_best_come_first_with_index_and_label(self) -> None:
        output = only(answer(np.array([[1, 5, 10, 4]], np.uint8), classes=2, labels=("a", "b", "c", "d")))
        assert output == {"name": "y", "datatype": "BYTES", "shape": [1, 2], "data": ["10:2:c", "5:1:b"]}

    def test_without_labels_there_are_none(self) -> None:
        assert only(answer(np.array([[1.5, 2.25], [3, 1]], np.float32), classes=1))["data"] == ["2.25:1", "3.0:0"]
        assert only(answer(np.array([[1.5, 2.25]], np.float32), classes=1, labels=("a",)))["data"] == ["2.25:1"]

    def test_no_more_come_than_there_are(self) -> None:
        assert only(answer(np.array([[1, 2]], np.int64), classes=9))["shape"] == [1, 2]

    def test_a_row_of_any_shape_is_one_row_of_classes(self) -> None:
        assert only(answer(np.array([[[1, 2], [4, 3]]], np.int8), classes=2))["data"] == ["4:2", "3:3"]
        assert only(answer(np.array([7], np.int8), classes=2))["data"] == ["7:0"]

    def test_equal_values_stand_in_the_model_s_order_and_nan_last(self) -> None:
        values = np.array([[0.5, np.nan, 0.5, 0.75]], np.float32)
        assert only(answer(values, classes=4))["data"] == ["0.75:3", "0.5:0", "0.5:2", "nan:1"]

    @pytest.mark.parametrize("datatype", [each for each in DTYPES if each not in ("BOOL", "BYTES")])
    def test_the_ends_of_every_datatype_are_in_order(self, datatype: str) -> None:
        dtype = DTYPES[datatype]
        limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        values = np.array([[limits.min, 0, limits.max]], dtype)
        best = [str(each).split(":")[1] for each in only(answer(values, classes=3))["data"]]
        assert best == (["2", "0", "1"] if limits.min == 0 else ["2", "1", "0"])

    def test_a_value_reads_back_as_it_was(self) -> None:
        value = np.float32(0.1) ** 3
        (text,) = only(answer(np.array([[value]], np.float32), classes=1))["data"]
        assert np.float32(text.split(":")[0]) == value
        assert len(text) < 16

    def test_they_can_be_had_in_binary_form(self) -> None:
        built = answer(np.array([[1, 2]], np.int8), classes=1, binary=True, labels=("a", "b"))
        assert built.body.endswith(b"\5\0\0\0" + b"2:1:b")
