"""JSON to one array, and every way in which it is none."""

import json
import math
import tracemalloc

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.errors import BadRequest, TooLarge
from node.protocols.tfserving import elements
from node.tensors import DTYPES, TensorSpec

ANY_JSON = msgspec.json.Decoder()


def spec(datatype, *shape):
    return TensorSpec(name="x", datatype=datatype, shape=shape)


def batch(text, wanted):
    return elements.batch(msgspec.Raw(text.encode() if isinstance(text, str) else text), wanted, "instances")


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name not in ("BOOL", "BYTES")])
def test_numbers_come_out_in_the_models_own_datatype(datatype):
    array = batch("[[1, 2, 3], [4, 5, 6]]", spec(datatype, 3))
    assert array.dtype == DTYPES[datatype]
    assert array.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_truths_and_texts_and_bytes():
    assert batch("[true, false]", spec("BOOL")).tolist() == [True, False]
    assert batch('["é", {"b64": "/wA="}]', spec("BYTES")).tolist() == ["é".encode(), b"\xff\x00"]
    assert batch('[["a"], ["b"]]', spec("BYTES", 1)).shape == (2, 1)


@pytest.mark.parametrize(
    ("datatype", "least", "most"),
    [(name, np.iinfo(dtype).min, np.iinfo(dtype).max) for name, dtype in DTYPES.items() if dtype.kind in "iu"],
)
def test_whole_numbers_are_taken_to_their_limits_and_refused_beyond(datatype, least, most):
    assert batch(f"[{least}, {most}]", spec(datatype)).tolist() == [least, most]
    for beyond in (least - 1, most + 1, 10**30, -(10**30), 10**400):
        with pytest.raises(BadRequest, match=r"instances\[1\]"):
            batch(f"[0, {beyond}]", spec(datatype))


@pytest.mark.parametrize(("datatype", "beyond"), [("FP16", "65520"), ("FP32", "-3.5e38"), ("FP64", "1e309")])
def test_a_float_beyond_its_datatype_is_refused_where_it_stands(datatype, beyond):
    with pytest.raises(BadRequest, match=r"instances\[1\]\[0\].*range"):
        batch(f"[[0], [{beyond}]]", spec(datatype, 1))


@pytest.mark.parametrize(
    ("text", "datatype"),
    [
        ("[1.0]", "INT32"),
        ("[1.5]", "UINT8"),
        ("[true]", "INT32"),
        ("[true]", "FP32"),
        ("[1]", "BOOL"),
        ('["1"]', "FP32"),
        ('["1"]', "INT64"),
        ("[null]", "FP32"),
        ("[[1]]", "FP32"),
        ("[{}]", "FP32"),
        ("[1]", "BYTES"),
        ('[{"b64": "!"}]', "BYTES"),
        ('[{"b64": 1}]', "BYTES"),
        ('[{"b64": "aGk=", "more": 1}]', "BYTES"),
        ('[{"base64": "aGk="}]', "BYTES"),
    ],
)
def test_another_type_is_refused_where_it_stands(text, datatype):
    with pytest.raises(BadRequest, match=r"^instances\[0\]"):
        batch(text, spec(datatype))


def test_what_is_ragged_is_refused_where_it_is():
    with pytest.raises(BadRequest, match=r"^instances\[1\]: expected array of length >= 2"):
        batch("[[1, 2], [3]]", spec("FP32", 2))
    with pytest.raises(BadRequest, match=r"^instances\[1\] has 1 elements where its neighbours have 2"):
        batch("[[1, 2], [3]]", spec("FP32", None))
    with pytest.raises(BadRequest, match=r"^instances\[1\]\[2\] has 2 elements where its neighbours have 1"):
        batch("[[[1], [2], [3]], [[4], [5], [6, 7]]]", spec("FP32", 3, None))
    with pytest.raises(BadRequest, match=r"^instances is empty"):
        batch("[]", spec("FP32", 3))


def test_large_json_is_read_row_by_row_to_the_same_array(monkeypatch):
    rows = [[[row * column, -column] for column in range(5)] for row in range(7)]
    wanted = spec("INT16", None, 2)
    whole = batch(json.dumps(rows), wanted)
    monkeypatch.setattr(elements, "_AT_ONCE", 0)
    monkeypatch.setattr(elements, "_LARGE", 1)
    assert batch(json.dumps(rows), wanted).tolist() == whole.tolist() == rows
    rows[4] = rows[4][:3]
    with pytest.raises(BadRequest, match=r"instances\[4\] has the shape \[3, 2\] where the first has \[5, 2\]"):
        batch(json.dumps(rows), wanted)
    rows[3][1][1] = "x"
    with pytest.raises(BadRequest, match=r"^instances\[3\]\[1\]\[1\]: expected int"):
        batch(json.dumps(rows), wanted)
    with pytest.raises(BadRequest, match="empty"):
        batch(" [ ] ", wanted)


def test_a_free_dimension_may_be_of_no_size():
    assert batch("[[], []]", spec("FP32", None)).shape == (2, 0)
    assert batch("[[], []]", spec("FP32", None, 3)).shape == (2, 0, 0)


@pytest.mark.parametrize("quote", ["", '"'])
def test_nan_and_infinity_are_numbers_bare_and_quoted(quote):
    text = ", ".join(quote + word + quote for word in ("NaN", "Infinity", "-Infinity"))
    whole = elements.read(f'{{"instances": [0.5, {text}], "comment": "NaN, of course"}}'.encode(), ANY_JSON)
    assert whole["comment"] == "NaN, of course"
    array = batch(json.dumps(whole["instances"]), spec("FP32"))
    assert array[0] == 0.5
    assert math.isnan(array[1])
    assert array[2:].tolist() == [math.inf, -math.inf]


def test_nan_is_no_whole_number():
    with pytest.raises(BadRequest, match="expected int"):
        batch('["NaN"]', spec("INT32"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"\\ud800": NaN}',
        b'{"a": NaN',
        b'{"a": Nan}',
        b'{"a": Infinity, "b": 1e999, "c": ' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b"[" * 100_000 + b"NaN",
        b'{"a":' * 100_000,
        b'{"a":' + b"[" * 5000 + b"NaN" + b"]" * 5000 + b"}",
    ],
)
def test_what_is_no_json_is_one_line(body):
    with pytest.raises(BadRequest) as caught:
        elements.read(body, ANY_JSON)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_weighing_bounds_what_reading_holds():
    """The worst there is of each kind of value; the estimate may be off by a half."""
    count = 60_000
    for text, wanted in [
        ("[" + ",".join(["0.1"] * count) + "]", spec("FP64")),
        ("[" + ",".join(["[0.1]"] * count) + "]", spec("FP64", 1)),
        ("[" + ",".join(["[]"] * count) + "]", spec("FP64", None)),
        ("[" + ",".join(['"a"'] * count) + "]", spec("BYTES")),
        ("[" + ",".join(['{"b64":"YQ=="}'] * count) + "]", spec("BYTES")),
    ]:
        raw = text.encode()
        tracemalloc.start()
        batch(raw, wanted)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 1.5 * elements.weigh(raw), text[:20]


def test_json_with_more_values_than_a_node_reads_is_refused_before_it_is_read():
    body = b"[" + b"[0]," * (elements.MOST // 180 + 1)
    with pytest.raises(TooLarge, match="fewer instances"):
        elements.weigh(body)
    assert elements.weigh(b"[0,0,0,0]") < 1000


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=5)
    | st.fixed_dictionaries({"b64": st.text(max_size=4)}),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(
    JUNK,
    st.builds(
        TensorSpec,
        name=st.just("x"),
        datatype=st.sampled_from(sorted(DTYPES)),
        shape=st.lists(st.none() | st.integers(0, 3), max_size=3).map(tuple),
    ),
)
def test_any_json_is_an_array_of_the_spec_or_a_bad_request(value, wanted):
    try:
        array = batch(json.dumps(value), wanted)
    except BadRequest as error:
        array, refusal = None, str(error)
    if array is None:
        assert "\n" not in refusal
    else:
        assert array.dtype == wanted.dtype
        assert wanted.fits(array.shape[1:]) or 0 in array.shape
