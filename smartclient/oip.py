"""One tensor to bytes and back, as the Open Inference Protocol (V2) has them; nothing but numpy.

In binary form elements lie row-major and little-endian without gaps, and a BYTES element has its length (uint32) before
it; in JSON form they are an array, flat or nested. What is read may come from anybody: every number in it is checked
against the bytes that are really there, and ``Malformed`` is all that comes of it. Numbers are not copied: an array is
a read-only view of the answer. What came as JSON is read-only too, lest a program work with some servers only.

This module imports numpy, which the SDK is not to need: ``tensors`` imports it at the first call that has tensors.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from smartclient.errors import BadInput
from smartclient.refusals import Malformed

Array = npt.NDArray[Any]

DTYPES = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
_DATATYPES = {dtype.str[1:]: name for name, dtype in DTYPES.items()}  # by kind and size, whatever the byte order
_OPENING = re.compile(rb"[\[\s]*")
_TEXTS = "OSUT"  # dtype kinds: objects, bytes, str, numpy 2's strings of any length


class Packed(msgspec.Struct, frozen=True):
    """A tensor in binary form. ``pieces`` are to be joined; those of a large array are the array's own memory."""

    datatype: str
    shape: tuple[int, ...]
    pieces: Sequence[bytes | memoryview]

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return sum(memoryview(piece).nbytes for piece in self.pieces)


def pack(name: str, value: npt.ArrayLike) -> Packed:
    """Return an array, or what numpy makes one of, in binary form. Raises ``BadInput`` with the input's ``name``."""
    datatype, array = _typed(name, value)
    if datatype == "BYTES":
        return Packed(datatype, array.shape, _with_lengths(_bytes(name, array)))
    return Packed(datatype, array.shape, [np.asarray(array, dtype=DTYPES[datatype], order="C").data])


def to_json(name: str, value: npt.ArrayLike) -> tuple[str, tuple[int, ...], bytes]:
    """Return the datatype, the shape, and the elements as one flat JSON array. Raises ``BadInput`` as ``pack`` does."""
    datatype, array = _typed(name, value)
    if datatype == "BYTES":
        try:
            elements = [each.decode() for each in _bytes(name, array)]
        except UnicodeDecodeError as error:
            raise BadInput(f"input {name!r} has bytes that are no text, which JSON cannot hold") from error
    elif datatype.startswith("FP") and not np.isfinite(array).all():
        raise BadInput(f"input {name!r} has a NaN or an infinite number, which JSON cannot hold")
    else:
        elements = array.ravel().tolist()
    return datatype, array.shape, msgspec.json.encode(elements)


def from_binary(datatype: str, shape: Sequence[int], raw: memoryview) -> Array:
    """Return the array whose elements are all of ``raw``. Raises ``Malformed``."""
    dtype = _dtype(datatype)
    if datatype == "BYTES":
        return _shaped(np.array(list(_split(raw)), dtype=dtype), shape)
    if len(raw) % dtype.itemsize:
        raise Malformed(f"{len(raw)} bytes of {datatype} end in the middle of an element")
    if datatype == "BOOL" and np.frombuffer(raw, dtype=np.uint8).max(initial=0) > 1:
        raise Malformed("a BOOL is neither 0 nor 1")
    return _shaped(np.frombuffer(raw, dtype=dtype), shape)


def from_json(datatype: str, shape: Sequence[int], raw: memoryview) -> Array:
    """Return the array whose elements are the JSON array ``raw``, null being NaN. Raises ``Malformed``."""
    dtype = _dtype(datatype)
    opening = _OPENING.match(raw)
    depth = opening[0].count(b"[") if opening else 0
    if depth > max(1, len(shape)):
        raise Malformed(f"data is nested {depth} deep in a tensor of {len(shape)} dimensions")
    try:
        elements = _decoder(datatype, depth).decode(raw)
        for _ in range(depth - 1):
            elements = list(chain.from_iterable(elements))
        if datatype == "BYTES":
            elements = [text.encode() for text in elements]
        with np.errstate(over="ignore"):  # what is too large for the type is infinite
            return _shaped(np.array(elements, dtype=dtype), shape)
    except (msgspec.MsgspecError, OverflowError) as error:
        raise Malformed(f"data is not {datatype}: {error}") from error


def _typed(name: str, value: npt.ArrayLike) -> tuple[str, Array]:
    try:
        array = np.asarray(value)
        if array.dtype.kind in "SU" and array is not value:  # numpy's own kinds of text drop a NUL at the end
            array = np.asarray(value, dtype=object)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists, tensors that live on a GPU or have gradients
        raise BadInput(f"input {name!r} is no array: {error}") from error
    datatype = "BYTES" if array.dtype.kind in _TEXTS else _DATATYPES.get(array.dtype.str[1:])
    if datatype is None:
        raise BadInput(f"input {name!r} has dtype {array.dtype}, which the protocol lacks; use {', '.join(DTYPES)}")
    return datatype, array


def _bytes(name: str, array: Array) -> Iterator[bytes]:
    for item in array.ravel().tolist():
        try:
            data = item.encode() if isinstance(item, str) else item
        except UnicodeEncodeError as error:
            raise BadInput(f"input {name!r} has text that UTF-8 cannot hold: {error}") from error
        if not isinstance(data, bytes):
            raise BadInput(f"input {name!r} has an element of {type(item).__name__}; BYTES are made of bytes and str")
        yield data


def _with_lengths(elements: Iterable[bytes]) -> list[bytes]:
    return [piece for each in elements for piece in (len(each).to_bytes(4, "little"), each)]


def _split(raw: memoryview) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        begin = at + 4
        at = begin + int.from_bytes(raw[at:begin], "little")
        if at > len(raw):
            raise Malformed(f"{len(raw)} bytes of BYTES end in the middle of an element")
        yield bytes(raw[begin:at])


def _shaped(flat: Array, shape: Sequence[int]) -> Array:
    if flat.size != math.prod(shape):
        raise Malformed(f"{flat.size} elements are not a tensor of shape {list(shape)}")
    try:
        array = flat.reshape(shape)
    except ValueError as error:  # an empty one, with other dimensions past what numpy can have
        raise Malformed(str(error)) from error
    array.flags.writeable = False
    return array


def _dtype(datatype: str) -> "np.dtype[Any]":
    try:
        return DTYPES[datatype]
    except KeyError:
        raise Malformed(f"there is no datatype {datatype[:20]!r}") from None


@cache
def _decoder(datatype: str, depth: int) -> msgspec.json.Decoder[list[Any]]:
    """Return what reads elements of that type only: numpy alone would round 1.5 and read "1" for an integer."""
    dtype: Any = DTYPES[datatype]
    kind: Any = {"b": bool, "O": str, "f": float | None}.get(dtype.kind)
    if kind is None:
        limits = np.iinfo(dtype)
        top = limits.max if limits.max < 2**63 else None  # msgspec can hold no more; numpy refuses the rest of UINT64
        kind = Annotated[int, Meta(ge=limits.min, le=top)]
    for _ in range(max(1, depth)):
        kind = list[kind]
    return msgspec.json.Decoder(kind)
