"""Tensors by their bytes; ``test_tensors.py`` has the messages they travel in, beside a client nobody here wrote."""

import json
import struct

import hypothesis.extra.numpy as arrays_of
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartclient.errors import BadInput
from smartclient.oip import DTYPES, from_binary, from_json, pack, to_json
from smartclient.refusals import Malformed

NUMBERS = [name for name in DTYPES if name != "BYTES"]
SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def binary(array):
    return b"".join(pack("x", array).pieces)


def text(value):
    return memoryview(json.dumps(value).encode())


@settings(deadline=None)
@given(st.data(), st.sampled_from(NUMBERS), st.sampled_from("<>"), SHAPES, st.sampled_from("CF"))
def test_numbers_come_back_as_they_were_in_any_byte_order_and_layout(data, name, order, shape, layout):
    dtype = DTYPES[name].newbyteorder(order)
    array = np.asarray(data.draw(arrays_of.arrays(dtype, shape)), order=layout)
    packed = pack("x", array)
    assert (packed.datatype, packed.shape) == (name, shape)
    back = from_binary(name, shape, memoryview(binary(array)))
    assert back.dtype == DTYPES[name]
    np.testing.assert_array_equal(back, array)


@settings(deadline=None)
@given(st.data(), st.sampled_from(NUMBERS), st.sampled_from("<>"), SHAPES)
def test_numbers_come_back_from_json_to_the_last_bit(data, name, order, shape):
    finite = {"allow_nan": False, "allow_infinity": False} if name.startswith("FP") else {}
    dtype = DTYPES[name].newbyteorder(order)
    array = data.draw(arrays_of.arrays(dtype, shape, elements=finite))
    datatype, size, raw = to_json("x", array)
    assert (datatype, size) == (name, shape)
    assert from_json(name, shape, memoryview(raw)).tobytes() == array.astype(DTYPES[name]).tobytes()


@settings(deadline=None)
@given(arrays_of.arrays(object, SHAPES, elements=st.binary(max_size=9)))
def test_bytes_come_back_as_they_were(array):
    packed = pack("x", array)
    assert (packed.datatype, packed.size) == ("BYTES", len(binary(array)))
    back = from_binary("BYTES", array.shape, memoryview(binary(array)))
    assert (back.shape, back.tolist()) == (array.shape, array.tolist())


def test_numbers_are_little_endian_and_row_major():
    array = np.arange(6, dtype=">u2").reshape(2, 3)
    assert binary(array.T) == struct.pack("<6H", 0, 3, 1, 4, 2, 5)
    assert binary(array[:, ::2]) == struct.pack("<4H", 0, 2, 3, 5)
    assert binary(np.array([True, False])) == b"\1\0"


def test_a_large_array_is_not_copied_before_it_is_sent_nor_after_it_came():
    array = np.arange(1 << 16, dtype="<f4").reshape(256, 256)
    [piece] = pack("x", array).pieces
    assert np.shares_memory(np.asarray(piece), array)
    body = array.tobytes()
    assert np.shares_memory(from_binary("FP32", (256, 256), memoryview(body)), np.frombuffer(body, "u1"))


@pytest.mark.parametrize(
    "value",
    [
        np.array([b"ab", b""]),
        np.array(["ab", ""]),
        np.array(["ab", b""], dtype=object),
        np.array(["ab", ""], dtype=getattr(np.dtypes, "StringDType", lambda: object)()),
        ["ab", ""],
        [b"ab", b""],
    ],
)
def test_text_and_bytes_of_every_kind_are_bytes_with_their_length(value):
    packed = pack("x", value)
    assert (packed.datatype, packed.shape) == ("BYTES", (2,))
    assert binary(value) == b"\2\0\0\0ab\0\0\0\0"


def test_a_nul_at_the_end_of_bytes_is_kept():
    assert binary([b"a\0"]) == b"\2\0\0\0a\0"
    assert binary(b"\0") == b"\1\0\0\0\0"


def test_what_numpy_makes_an_array_of_will_do():
    assert (pack("x", [[1.0, 2.0]]).datatype, pack("x", [[1.0, 2.0]]).shape) == ("FP64", (1, 2))
    assert (pack("x", 7).datatype, pack("x", 7).shape) == ("INT64", ())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.array([1j]), "dtype complex128, which the protocol lacks; use BOOL, "),
        (np.array(["2026-01-01"], dtype="datetime64[D]"), "dtype datetime64"),
        (np.zeros(2, dtype=[("a", "f4")]), "protocol lacks"),
        ([[1], [2, 3]], "is no array"),
        ({"a": 1}, "element of dict"),
        (np.array([None]), "element of NoneType"),
        (["\ud800"], "UTF-8"),
    ],
)
def test_what_the_protocol_cannot_say_is_refused_with_the_inputs_name(value, said):
    with pytest.raises(BadInput, match="input 'pixels'") as caught:
        pack("pixels", value)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", NUMBERS)
def test_json_is_read_flat_or_nested(name):
    expected = np.array([[0, 1, 1], [1, 0, 1]], dtype=DTYPES[name])
    for data in (expected.ravel().tolist(), expected.tolist()):
        read = from_json(name, (2, 3), text(data))
        assert read.dtype == DTYPES[name]
        np.testing.assert_array_equal(read, expected)


def test_text_in_json_becomes_bytes_as_in_binary():
    for data in (["[a", "é"], [["[a"], ["é"]]):
        assert from_json("BYTES", (2, 1), text(data)).tolist() == [[b"[a"], ["é".encode()]]


def test_json_has_null_for_what_is_no_number_and_large_floats_are_infinite():
    np.testing.assert_array_equal(from_json("FP16", (3,), text([1, None, 1e9])), [1, np.nan, np.inf])


def test_the_bounds_of_whole_numbers_fit_in_json():
    for name in NUMBERS[1:9]:
        limits = np.iinfo(DTYPES[name])
        assert from_json(name, (2,), text([int(limits.min), int(limits.max)])).tolist() == [limits.min, limits.max]
        for outside in (int(limits.min) - 1, int(limits.max) + 1):
            with pytest.raises(Malformed, match=name):
                from_json(name, (1,), text([outside]))


def test_arrays_are_read_only_whichever_way_they_came():
    assert not from_binary("UINT8", (1,), memoryview(b"a")).flags.writeable
    assert not from_binary("BYTES", (1,), memoryview(b"\0\0\0\0")).flags.writeable
    assert not from_json("UINT8", (1,), text([1])).flags.writeable


@pytest.mark.parametrize(
    ("name", "shape", "raw"),
    [
        ("FP32", (2,), b"\0" * 7),
        ("FP32", (2,), b"\0" * 4),
        ("FP32", (), b""),
        ("FP32", (2**62, 4), b""),
        ("FP32", (2**32, 2**32), b""),
        ("FP32", (0, 2**62, 2**62), b""),
        ("UINT8", (1,) * 65, b"a"),
        ("BOOL", (1,), b"\2"),
        ("BYTES", (1,), b"\1\0\0"),
        ("BYTES", (1,), b"\2\0\0\0a"),
        ("BYTES", (1,), b"\xff\xff\xff\xffa"),
        ("BYTES", (2,), b"\1\0\0\0a"),
        ("BYTES", (2**32, 2**32), b""),
        ("FP8", (1,), b"a"),
        ("", (), b""),
    ],
)
def test_bytes_that_are_not_that_tensor_are_malformed(name, shape, raw):
    with pytest.raises(Malformed):
        from_binary(name, shape, memoryview(raw))


@pytest.mark.parametrize(
    ("name", "shape", "data"),
    [
        ("INT32", (1,), [1.5]),
        ("INT32", (1,), ["1"]),
        ("INT32", (1,), [True]),
        ("INT32", (1,), [None]),
        ("BOOL", (1,), [1]),
        ("FP32", (1,), ["nan"]),
        ("BYTES", (1,), [7]),
        ("INT32", (2,), [1]),
        ("INT32", (1,), [[1]]),
        ("INT32", (2, 2), [[1, 2], 3, 4]),
        ("BYTES", (2, 1), [["a"], "b"]),
        ("INT32", (1,), 1),
        ("INT32", (1,), None),
        ("INT32", (2**32, 2**32), []),
        ("FP8", (1,), [1]),
    ],
)
def test_json_that_is_not_that_tensor_is_malformed(name, shape, data):
    with pytest.raises(Malformed):
        from_json(name, shape, text(data))


def test_json_without_a_bottom_is_malformed():
    for shape in [(1,), (1,) * 64]:
        with pytest.raises(Malformed, match="nested"):
            from_json("INT32", shape, memoryview(b"[" * 100_000))


TYPES = st.sampled_from([*DTYPES, "BF16"])
ANY_SHAPE = st.lists(st.integers(0, 3) | st.integers(0, 2**63 - 1), max_size=5).map(tuple)


@settings(deadline=None)
@given(TYPES, ANY_SHAPE, st.binary(max_size=40))
def test_any_bytes_are_the_tensor_they_are_said_to_be_or_malformed(name, shape, raw):
    try:
        array = from_binary(name, shape, memoryview(raw))
    except Malformed:
        return
    assert (array.shape, binary(array)) == (shape, raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda each: st.lists(each, max_size=4),
)


@settings(deadline=None)
@given(TYPES, ANY_SHAPE, JSON)
def test_any_json_is_the_tensor_it_is_said_to_be_or_malformed(name, shape, data):
    try:
        array = from_json(name, shape, text(data))
    except Malformed:
        return
    assert (array.shape, array.dtype) == (shape, DTYPES[name])
