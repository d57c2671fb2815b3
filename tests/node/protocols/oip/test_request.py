"""What a body may hold and what is refused, with one line that says why."""

import json
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from node.errors import BadRequest, RequestError, TooLarge
from node.protocols.oip.inputs import Limits
from node.protocols.oip.request import JSON_LENGTH, InferRequest, Output, json_length, parse
from node.runtimes.base import Signature
from node.tensors import DTYPES, TensorSpec
from smartclient import tensors as ours

LIMITS = Limits(rows=64, bytes=1 << 20)
PICTURE = Signature(
    inputs=(TensorSpec(name="image", datatype="UINT8", shape=(2, 3)),),
    outputs=(
        TensorSpec(name="scores", datatype="FP32", shape=(4,)),
        TensorSpec(name="text", datatype="BYTES", shape=()),
    ),
)
PAIR = Signature(
    inputs=(
        TensorSpec(name="ids", datatype="INT64", shape=(None,)),
        TensorSpec(name="mask", datatype="BOOL", shape=(None,)),
    ),
    outputs=(TensorSpec(name="out", datatype="FP32", shape=(1,)),),
)
PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def one(datatype: str, *shape: int | None) -> Signature:
    spec = TensorSpec(name="x", datatype=datatype, shape=shape)
    return Signature(inputs=(spec,), outputs=(TensorSpec(name="y", datatype="FP32", shape=(1,)),))


def body(**fields: object) -> bytes:
    image = {"name": "image", "shape": [2, 2, 3], "datatype": "UINT8", "data": list(range(12))}
    return json.dumps({"inputs": [image], **fields}).encode()


def tensor(datatype: str, shape: list[int], data: str) -> bytes:
    """A request for a model of one input ``x``; ``data`` is JSON text."""
    return b'{"inputs":[{"name":"x","shape":%s,"datatype":"%s","data":%s}]}' % (
        json.dumps(shape).encode(),
        datatype.encode(),
        data.encode(),
    )


def read(datatype: str, shape: list[int], data: str, limits: Limits = LIMITS) -> np.ndarray:
    return parse(tensor(datatype, shape, data), None, one(datatype, *shape[1:]), limits).inputs["x"]


def refused(
    what: bytes, signature: Signature = PICTURE, length: int | None = None, kind: type[RequestError] = BadRequest
) -> str:
    with pytest.raises(kind) as caught:
        parse(what, length, signature, LIMITS)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


def with_binary(head: dict[str, object], data: bytes) -> tuple[bytes, int]:
    text = json.dumps(head).encode()
    return text + data, len(text)


def binary_input(datatype: str, shape: list[int], data: bytes, **parameters: object) -> tuple[bytes, int]:
    asked = {"binary_data_size": len(data), **parameters}
    return with_binary({"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "parameters": asked}]}, data)


class TestJson:
    def test_flat_and_nested_data_are_the_same_tensor(self) -> None:
        nested = body().replace(json.dumps(list(range(12))).encode(), json.dumps(PIXELS.tolist()).encode())
        for each in (body(), nested):
            request = parse(each, None, PICTURE, LIMITS)
            assert request.inputs["image"].dtype == np.uint8
            np.testing.assert_array_equal(request.inputs["image"], PIXELS)
            assert request.rows == 2

    def test_all_outputs_are_wanted_where_none_is_named(self) -> None:
        wanted = (Output(name="scores", binary=False), Output(name="text", binary=False))
        assert parse(body(), None, PICTURE, LIMITS).outputs == wanted
        assert parse(body(outputs=[]), None, PICTURE, LIMITS).outputs == wanted
        assert parse(body(outputs=None), None, PICTURE, LIMITS).outputs == wanted

    def test_an_output_has_its_own_word_before_the_request_s(self) -> None:
        outputs = [{"name": "text", "parameters": {"binary_data": False}}, {"name": "scores", "parameters": None}]
        request = parse(body(outputs=outputs, parameters={"binary_data_output": True}), None, PICTURE, LIMITS)
        assert request.outputs == (Output(name="text", binary=False), Output(name="scores", binary=True))

    def test_classes_id_and_timeout_are_carried(self) -> None:
        outputs = [{"name": "scores", "parameters": {"classification": 3}}]
        request = parse(body(id="42", outputs=outputs, parameters={"timeout": 2500}), None, PICTURE, LIMITS)
        assert request.outputs == (Output(name="scores", binary=False, classes=3),)
        assert (request.id, request.timeout) == ("42", 0.0025)
        assert parse(body(id=None, parameters={"timeout": 0}), None, PICTURE, LIMITS).timeout is None

    def test_what_nobody_knows_is_let_be(self) -> None:
        image = {"name": "image", "shape": [1, 2, 3], "datatype": "UINT8", "data": [0] * 6, "parameters": {"a": [{}]}}
        known = {"priority": 7, "sequence_id": 0, "sequence_end": False, "custom": {"deep": [1]}}
        request = parse(body(inputs=[image], parameters=known, model_name="x", extra=1), None, PICTURE, LIMITS)
        assert request.rows == 1

    def test_inputs_come_in_the_model_s_order(self) -> None:
        mask = {"name": "mask", "shape": [1, 2], "datatype": "BOOL", "data": [[True, False]]}
        ids = {"name": "ids", "shape": [1, 2], "datatype": "INT64", "data": [1, -(2**63)]}
        request = parse(json.dumps({"inputs": [mask, ids]}).encode(), None, PAIR, LIMITS)
        assert list(request.inputs) == ["ids", "mask"]
        assert request.inputs["ids"].tolist() == [[1, -(2**63)]]
        assert request.inputs["mask"].tolist() == [[True, False]]

    @pytest.mark.parametrize(
        ("datatype", "text", "value"),
        [
            ("INT32", "1.0", 1),
            ("INT32", "-2e3", -2000),
            ("INT8", "-128", -128),
            ("UINT64", "18446744073709551615", 2**64 - 1),
            ("UINT64", "9223372036854775808.0", 2**63),
            ("INT64", "9007199254740993", 2**53 + 1),
            ("FP32", "3", 3.0),
            ("FP32", "0.1", float(np.float32(0.1))),
            ("FP64", "1e-400", 0.0),
            ("FP64", "1.7976931348623157e308", 1.7976931348623157e308),
            ("FP16", "65504", 65504.0),
        ],
    )
    def test_a_number_is_taken_exactly(self, datatype: str, text: str, value: float) -> None:
        array = read(datatype, [1, 2], f"[{text},0]")
        assert array.dtype == DTYPES[datatype]
        assert array.tolist() == [[value, 0]]

    @pytest.mark.parametrize(
        ("datatype", "text", "reason"),
        [
            ("INT32", "1.5", "1.5, which is no INT32"),
            ("UINT8", "256", "256, which is out of the range of UINT8"),
            ("UINT8", "-1", "-1, which is out of the range of UINT8"),
            ("UINT64", "18446744073709551616", "out of the range of UINT64"),
            ("INT64", "9223372036854775808", "out of the range of INT64"),
            ("INT64", "1e300", "out of the range of INT64"),
            ("INT64", "9" * 5000, "no INT64"),
            ("FP32", "1e39", "out of the range of FP32"),
            ("FP16", "65520", "out of the range of FP16"),
            ("FP64", "1e400", "no FP64"),
            ("FP32", "true", "an element that is no FP32"),
            ("FP32", "null", "an element that is no FP32"),
            ("FP32", '"1"', "an element that is no FP32"),
            ("INT32", "true", "an element that is no INT32"),
            ("BOOL", "1", "an element that is no BOOL"),
            ("BOOL", "null", "an element that is no BOOL"),
            ("BYTES", "1", "an element that is no text"),
            ("BYTES", "null", "an element that is no text"),
            ("FP32", "{}", "an element that is no FP32"),
            ("FP32", "NaN", "invalid character"),
            ("FP32", "Infinity", "invalid character"),
            ("FP32", "01", "invalid number"),
        ],
    )
    def test_what_is_no_such_number_is_refused(self, datatype: str, text: str, reason: str) -> None:
        filler = {"BOOL": "true", "BYTES": '"a"'}.get(datatype, "0")
        assert reason in refused(tensor(datatype, [1, 2], f"[{filler},{text}]"), one(datatype, 2))

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            ("[1,2,3]", "data has 3 elements, a tensor of shape [2, 2] takes 4"),
            ("[1,2,3,4,5]", "data has 5 elements"),
            ("[]", "data has 0 elements"),
            ("[[1,2,3,4]]", "nested otherwise"),
            ("[[1],[2,3,4]]", "nested otherwise"),
            ("[[[1,2],[3,4]]]", "nested otherwise"),
            ("[[1,2],[3,4],[]]", "data has 5 elements"),
            ("4", "data is no array"),
            ("{}", "data is no array"),
            ("null", "neither data nor"),
        ],
    )
    def test_data_fill_the_shape_flat_or_nested_as_it_is(self, data: str, reason: str) -> None:
        assert reason in refused(tensor("FP32", [2, 2], data), one("FP32", 2))

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            ('["a","b","c"]', "data has 3 elements"),
            ('["a","b","c","d","e"]', "more elements than"),
            ('[["a","b"],["c"]]', "nested otherwise"),
            ('[[["a","b"],["c","d"]]]', "nested otherwise"),
            ('["a","b",["c"],"d"]', "no text"),
            ('"abcd"', "data is no array"),
        ],
    )
    def test_texts_fill_the_shape_as_numbers_do(self, data: str, reason: str) -> None:
        assert reason in refused(tensor("BYTES", [2, 2], data), one("BYTES", 2))

    def test_texts_are_utf8_whatever_they_hold(self) -> None:
        texts = ['"', "\\", 'a "b" c', "é\u0000", "", "[,]", '\\"', "日本"]
        for data in (texts, [texts[:4], texts[4:]]):
            array = read("BYTES", [2, 4], json.dumps(data))
            assert array.reshape(-1).tolist() == [each.encode() for each in texts]

    def test_large_data_are_read_in_pieces_as_small_ones_are(self) -> None:
        values = np.random.default_rng(1).standard_normal((64, 50, 70)).astype(np.float32)
        large = Limits(rows=64, bytes=1 << 24)
        nested = json.dumps(values.tolist(), indent=1)
        np.testing.assert_array_equal(read("FP32", [64, 50, 70], nested, large), values)
        long = "0." + "3" * 700_000
        assert read("FP64", [1, 2], f"[{long},{long}]").tolist() == [[1 / 3, 1 / 3]]


class TestBinary:
    @pytest.mark.parametrize("datatype", [each for each in DTYPES if each != "BYTES"])
    def test_every_datatype_is_little_endian_row_by_row(self, datatype: str) -> None:
        values = np.array([[0, 1], [1, 0], [1, 1]], DTYPES[datatype])
        what, length = binary_input(datatype, [3, 2], values.astype(DTYPES[datatype].newbyteorder("<")).tobytes())
        array = parse(bytearray(what), length, one(datatype, 2), LIMITS).inputs["x"]
        assert array.dtype == DTYPES[datatype]
        assert array.flags.aligned
        np.testing.assert_array_equal(array, values)

    def test_an_element_of_bytes_has_its_length_before_it(self) -> None:
        data = b"\x03\0\0\0abc" + b"\0\0\0\0"
        what, length = binary_input("BYTES", [2], data)
        assert parse(what, length, one("BYTES"), LIMITS).inputs["x"].tolist() == [b"abc", b""]

    def test_json_and_binary_inputs_go_together(self) -> None:
        head = {
            "inputs": [
                {"name": "mask", "shape": [1, 2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}},
                {"name": "ids", "shape": [1, 2], "datatype": "INT64", "data": [5, 6]},
            ]
        }
        what, length = with_binary(head, b"\0\1")
        request = parse(what, length, PAIR, LIMITS)
        assert request.inputs["mask"].tolist() == [[False, True]]
        assert request.inputs["ids"].tolist() == [[5, 6]]

    @pytest.mark.parametrize(
        ("datatype", "shape", "data", "reason"),
        [
            ("FP32", [2], b"\0" * 7, "7 bytes of binary data, a tensor of shape [2] and FP32 takes 8"),
            ("FP32", [2], b"\0" * 12, "12 bytes of binary data"),
            ("FP32", [2], b"", "0 bytes of binary data"),
            ("BOOL", [2], b"\0\2", "neither 0 nor 1"),
            ("BYTES", [2], b"\1\0\0\0a\1\0\0\0", "end in the middle"),
            ("BYTES", [1], b"\xff\xff\xff\xffabc", "end in the middle"),
            ("BYTES", [1], b"\1\0\0\0ab", "1 bytes of binary data after 1 elements"),
            ("BYTES", [3], b"\0" * 8, "cannot hold 3 elements"),
        ],
    )
    def test_bytes_that_do_not_make_up_the_tensor_are_refused(
        self, datatype: str, shape: list[int], data: bytes, reason: str
    ) -> None:
        what, length = binary_input(datatype, shape, data)
        message = refused(what, one(datatype), length)
        assert reason in message
        assert message.startswith("input 'x': ")

    def test_sizes_are_held_against_the_body(self) -> None:
        what, length = binary_input("FP32", [1], b"\0" * 4)
        assert "8 bytes after the JSON where the inputs have 4" in refused(what + b"\0" * 4, one("FP32"), length)
        assert "past the end of the body" in refused(what[:-1], one("FP32"), length)
        assert JSON_LENGTH in refused(what[:length], one("FP32"))
        what, length = binary_input("FP32", [1], b"\0" * 4, binary_data_size=2**70)
        assert "past the end of the body" in refused(what, one("FP32"), length)
        what, length = binary_input("FP32", [1], b"\0" * 4, binary_data_size=-4)
        assert "Expected `int` >= 0" in refused(what, one("FP32"), length)

    def test_data_and_binary_data_at_once_are_refused(self) -> None:
        asked = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1], "parameters": {"binary_data_size": 4}}
        what, length = with_binary({"inputs": [asked]}, b"\0" * 4)
        assert "both data and the parameter" in refused(what, one("FP32"), length)

    def test_a_body_without_json_is_one_row_of_the_only_input(self) -> None:
        request = parse(PIXELS[:1].tobytes(), 0, PICTURE, LIMITS)
        np.testing.assert_array_equal(request.inputs["image"], PIXELS[:1])
        assert request.outputs == (Output(name="scores", binary=True), Output(name="text", binary=True))
        free = parse(b"\1\0\2\0\3\0\4\0", 0, one("INT16", None, 2), LIMITS)
        assert free.inputs["x"].tolist() == [[[1, 2], [3, 4]]]
        assert parse(b"whole", 0, one("BYTES", 1), LIMITS).inputs["x"].tolist() == [[b"whole"]]
        assert parse(b"whole", 0, one("BYTES", None), LIMITS).inputs["x"].tolist() == [[b"whole"]]

    def test_a_body_without_json_that_could_mean_several_things_is_refused(self) -> None:
        assert "'ids', 'mask'" in refused(b"1", PAIR, 0)
        assert "several sizes" in refused(b"1", one("FP32", None, None), 0)
        assert "several elements" in refused(b"1", one("BYTES", 2), 0)
        assert "5 bytes of binary data" in refused(b"12345", PICTURE, 0)
        assert "3 bytes of binary data" in refused(b"123", one("INT16", None), 0)

    @pytest.mark.parametrize("header", ["-1", "", "1.0", "x", "11", "9" * 30, "٣", "+3", " 3"])
    def test_a_json_length_that_cannot_be_is_refused(self, header: str) -> None:
        with pytest.raises(BadRequest, match=JSON_LENGTH):
            json_length(header, 10)

    def test_a_json_length_may_be_all_nothing_or_missing(self) -> None:
        assert [json_length(each, 10) for each in ("10", "0", None)] == [10, 0, None]


class TestNamesAndShapes:
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"name": "picture"}, "no input 'picture'; it takes 'image'"),
            ({"datatype": "FP32"}, "input 'image' is UINT8, the request says 'FP32'"),
            ({"datatype": "BF16"}, "says 'BF16'"),
            ({"shape": [2, 3]}, "has the shape [2, 3], the model takes [-1, 2, 3]"),
            ({"shape": [4, 3, 1]}, "has the shape [4, 3, 1], the model takes [-1, 2, 3]"),
            ({"shape": []}, "has the shape [], the model takes"),
            ({"shape": [0, 2, 3]}, "Expected `int` >= 1"),
            ({"shape": [-1, 2, 3]}, "Expected `int` >= 1"),
            ({"shape": [True, 2, 3]}, "got `bool`"),
            ({"shape": [1.5, 2, 3]}, "got `float`"),
            ({"shape": "1,2,3"}, "got `str`"),
            ({"shape": [1] * 2000}, "too long"),
            ({"parameters": {"shared_memory_region": "r"}}, "shared memory is not offered"),
            ({"parameters": 4}, "Expected `object | null`, got `int`"),
        ],
    )
    def test_an_input_that_is_not_the_model_s_is_refused(self, change: dict[str, object], reason: str) -> None:
        image = {"name": "image", "shape": [2, 2, 3], "datatype": "UINT8", "data": list(range(12)), **change}
        assert reason in refused(body(inputs=[image]))

    @pytest.mark.parametrize("shape", [[2**63, 2, 3], [2**64, 2, 3], [10**4000, 2, 3], [2**62, 2**62, 2**62]])
    def test_a_shape_can_promise_anything_and_nothing_is_made_of_it(self, shape: list[int]) -> None:
        image = b'{"inputs":[{"name":"image","shape":%s,"datatype":"UINT8","data":[1]}]}' % str(shape).encode()
        with pytest.raises((BadRequest, TooLarge)):
            parse(image, None, PICTURE, LIMITS)
        free = tensor("FP32", [1, *shape], "[1]")
        with pytest.raises((BadRequest, TooLarge)):
            parse(free, None, one("FP32", None, None, None), LIMITS)

    def test_what_is_over_the_node_s_bounds_is_too_large(self) -> None:
        rows = refused(tensor("UINT8", [65], "[1]"), one("UINT8"), kind=TooLarge)
        assert "65 rows are more than the 64" in rows
        size = refused(tensor("FP64", [1, 200_000], "[1]"), one("FP64", None), kind=TooLarge)
        assert "1.526 MiB, more than the 1 this node takes" in size
        refused(tensor("BYTES", [1, 9000], "[1]"), one("BYTES", None), kind=TooLarge)

    def test_rows_agree_between_inputs(self) -> None:
        ids = {"name": "ids", "shape": [2, 1], "datatype": "INT64", "data": [1, 2]}
        mask = {"name": "mask", "shape": [3, 1], "datatype": "BOOL", "data": [True] * 3}
        assert "'mask' has 3 rows, another has 2" in refused(json.dumps({"inputs": [ids, mask]}).encode(), PAIR)

    def test_every_input_is_given_once(self) -> None:
        ids = {"name": "ids", "shape": [1, 1], "datatype": "INT64", "data": [1]}
        for given_ in ([], [ids], [ids] * 3):
            message = refused(json.dumps({"inputs": given_}).encode(), PAIR)
            assert message == "the model takes 'ids', 'mask'; give each of these inputs once"
        assert "'ids' is given twice" in refused(json.dumps({"inputs": [ids, ids]}).encode(), PAIR)

    @pytest.mark.parametrize(
        ("outputs", "reason"),
        [
            ([{"name": "other"}], "no output 'other'; it gives 'scores', 'text'"),
            ([{"name": "text"}, {"name": "text"}], "'text' is asked for twice"),
            ([{"name": "text", "parameters": {"classification": 2}}], "no classes to rank"),
            ([{"name": "scores", "parameters": {"classification": -1}}], "Expected `int` >= 0"),
            ([{"name": "scores", "parameters": {"binary_data": 1}}], "Expected `bool | null`, got `int`"),
            ([{"name": "scores", "parameters": {"shared_memory_region": "r"}}], "shared memory is not offered"),
            ([{}], "missing required field `name`"),
            ("scores", "got `str`"),
            ([{"name": "scores"}] * 10_000, "too long"),
        ],
    )
    def test_outputs_that_cannot_be_given_are_refused(self, outputs: object, reason: str) -> None:
        assert reason in refused(body(outputs=outputs))

    @pytest.mark.parametrize(
        "parameters", [{"sequence_id": 1}, {"sequence_id": "a"}, {"sequence_start": True}, {"sequence_end": True}]
    )
    def test_sequences_are_refused_for_no_state_is_kept(self, parameters: dict[str, object]) -> None:
        assert "sequences are not kept here" in refused(body(parameters=parameters))

    @pytest.mark.parametrize("timeout", [-1, "5", 1.5, True])
    def test_a_timeout_is_a_number_of_microseconds(self, timeout: object) -> None:
        assert "$.parameters.timeout" in refused(body(parameters={"timeout": timeout}))

    @pytest.mark.parametrize(
        "what",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b"{}",
            b'{"inputs":{}}',
            b'{"inputs":[1]}',
            b'{"inputs":[{}]}',
            b"\xff\xfe",
            b'{"inputs":[{"name":"\xff","shape":[1],"datatype":"UINT8"}]}',
            body(id=7),
            body()[:-1],
            body() + b"{}",
        ],
    )
    def test_what_is_no_request_is_refused(self, what: bytes) -> None:
        assert "not as the protocol has it" in refused(what)

    @pytest.mark.parametrize("opening", [b"[", b'{"a":'])
    def test_deep_json_is_refused(self, opening: bytes) -> None:
        deep = opening * 200_000
        assert "too deep" in refused(b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + deep)
        assert "too deep" in refused(b'{"parameters":{"custom":' + deep)
        assert "too deep" in refused(b'{"unknown":' + deep)
        assert "got `" in refused(b'{"id":' + deep)


class TestClientsOfTheProtocol:
    @pytest.mark.parametrize("binary", [True, False])
    @pytest.mark.parametrize("outputs", [None, ["scores"]])
    def test_the_smart_client_s_requests_are_understood(self, binary: bool, outputs: list[str] | None) -> None:
        asked = ours.encode({"image": PIXELS}, model="m", outputs=outputs, binary=binary)
        length = json_length(asked.headers.get(JSON_LENGTH), len(asked.body))
        request = parse(asked.body, length, PICTURE, LIMITS)
        np.testing.assert_array_equal(request.inputs["image"], PIXELS)
        assert [each.name for each in request.outputs] == (outputs or ["scores", "text"])
        assert all(each.binary == binary for each in request.outputs)

    @pytest.mark.parametrize("datatype", DTYPES)
    @pytest.mark.parametrize("binary", [True, False])
    def test_tritonclient_s_requests_are_understood(self, datatype: str, binary: bool) -> None:
        values = np.array([[b"a", b""], [b"\0b", b"cde"]], object)
        if datatype != "BYTES":
            values = np.array([[0, 1], [1, 0]], DTYPES[datatype])
        given_ = InferInput("x", [2, 2], datatype)
        given_.set_data_from_numpy(values, binary_data=binary)
        what, length = InferenceServerClient.generate_request_body(
            [given_], [InferRequestedOutput("y", binary_data=True, class_count=2)], request_id="7", timeout=1000
        )
        request = parse(what, length, one(datatype, 2), LIMITS)
        np.testing.assert_array_equal(request.inputs["x"], values)
        assert request.outputs == (Output(name="y", binary=True, classes=2),)
        assert (request.id, request.timeout) == ("7", 0.001)


PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "shape", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["ids", "mask", "x"]) | PARTS,
        "shape": st.lists(st.integers(-1, 3) | st.sampled_from([2**31, 2**63, 2**64]), max_size=3) | PARTS,
        "datatype": st.sampled_from([*DTYPES, "BF16", ""]) | PARTS,
        "data": st.lists(st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)) | PARTS,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 20) | PARTS}) | PARTS,
    },
)


def read_or_refused(what: bytes, length: int | None, signature: Signature) -> InferRequest | None:
    outcome: InferRequest | RequestError
    try:
        outcome = parse(what, length, signature, LIMITS)
    except RequestError as error:
        outcome = error
    if isinstance(outcome, InferRequest):
        return outcome
    assert outcome.status in (400, 413)
    assert "\n" not in str(outcome)
    return None


class TestHostileInput:
    @settings(max_examples=500, deadline=None)
    @given(
        inputs=st.lists(FIELDS, max_size=3) | PARTS,
        outputs=st.lists(FIELDS, max_size=2) | PARTS,
        parameters=PARTS,
        tail=st.binary(max_size=24),
        trim=st.integers(-3, 3),
    )
    def test_whatever_comes_is_read_or_refused(
        self, inputs: object, outputs: object, parameters: object, tail: bytes, trim: int
    ) -> None:
        head = json.dumps({"inputs": inputs, "outputs": outputs, "parameters": parameters}).encode()
        for length in (None, max(0, min(len(head) + trim, len(head) + len(tail))), 0):
            request = read_or_refused(head + tail, length, PAIR)
            if request is not None:
                assert list(request.inputs) == ["ids", "mask"]
                assert len({len(array) for array in request.inputs.values()}) == 1

    @settings(max_examples=300, deadline=None)
    @given(st.randoms(use_true_random=False), st.sampled_from(["INT64", "FP32", "BOOL", "BYTES"]))
    def test_flipped_bytes_of_a_good_request_are_read_or_refused(self, rng: random.Random, datatype: str) -> None:
        element = {"BOOL": True, "BYTES": "text"}.get(datatype, 7)
        what = bytearray(tensor(datatype, [2, 2], json.dumps([[element] * 2] * 2)))
        for _ in range(rng.randint(1, 3)):
            what[rng.randrange(len(what))] = rng.choice([rng.randrange(256), *b'[]{},"0e-'])
        request = read_or_refused(bytes(what), None, one(datatype, None))
        if request is not None:
            assert request.inputs["x"].dtype == DTYPES[datatype]

    @settings(max_examples=200, deadline=None)
    @given(data=st.data())
    def test_numbers_come_back_as_msgspec_wrote_them(self, data: st.DataObject) -> None:
        datatype = data.draw(st.sampled_from(["UINT8", "INT16", "UINT64", "INT64", "FP16", "FP32", "FP64", "BOOL"]))
        dtype = DTYPES[datatype]
        if dtype.kind == "f":
            element = st.floats(width=dtype.itemsize * 8, allow_nan=False, allow_infinity=False)
        elif dtype.kind == "b":
            element = st.booleans()
        else:
            element = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        values = data.draw(st.lists(st.lists(element, min_size=3, max_size=3), min_size=1, max_size=20))
        array = read(datatype, [len(values), 3], msgspec.json.encode(values).decode())
        np.testing.assert_array_equal(array, np.array(values, dtype))
