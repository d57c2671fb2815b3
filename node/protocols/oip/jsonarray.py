"""A tensor's elements as a JSON array, to numpy and back, without a Python object for every element at once.

What comes in has passed a JSON parser and may still be anything. First its skeleton, brackets and commas only, is held
against the shape, so that nothing is allocated for elements that are not there; then the text is decoded in pieces. A
number is taken exactly or refused: 1.0 is an INT32, 1.5 is none, 300 is no UINT8, 1e39 no FP32. JSON has no NaN.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from math import prod
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from node.errors import BadRequest
from node.tensors import DTYPES, Array

# Bytes of text decoded at a time, and elements encoded at a time: some megabytes of Python objects at most.
_PIECE = 256 * 1024
_ELEMENTS = 32 * 1024
_SPACE = b" \t\r\n"
# What may stand between brackets and commas. Letters of `true` and `false`; `null` has one that is not among them.
_NUMBERS = b"0123456789+-.eE" + _SPACE
_TRUTHS = b"truefals" + _SPACE
_MIXED = msgspec.json.Decoder(list[int | float])


def read(text: memoryview, datatype: str, shape: Sequence[int]) -> Array:
    """Return the array in ``text``, valid JSON, flat or nested as ``shape`` (at least one dimension, none empty).

    Raises ``BadRequest``.
    """
    if datatype == "BYTES":
        return _strings(text, shape)
    _check(_skeleton(text, _TRUTHS if datatype == "BOOL" else _NUMBERS), datatype, shape)
    array: Array = np.empty(prod(shape), DTYPES[datatype])
    at = 0
    for piece in _pieces(text):
        decoded = _decode(b"[" + piece.translate(None, b"[]") + b"]", datatype)
        array[at : at + len(decoded)] = decoded
        at += len(decoded)
    return array.reshape(shape)


def write(array: Array) -> bytes:
    """Return the elements as one flat JSON array, row by row; bytes are text in UTF-8.

    Raises ``ValueError`` for bytes that are not. Numbers have to be finite.
    """
    flat = array.reshape(-1)
    pieces = [_encode(flat[at : at + _ELEMENTS].tolist()) for at in range(0, flat.size, _ELEMENTS)]
    return b"[" + b",".join(pieces) + b"]"


def _encode(elements: list[Any]) -> bytes:
    if elements and isinstance(elements[0], bytes):
        elements = [each.decode() for each in elements]
    return msgspec.json.encode(elements)[1:-1]


def _skeleton(text: memoryview, inside: bytes) -> bytearray:
    skeleton = bytearray()
    for at in range(0, len(text), _PIECE):
        skeleton += bytes(text[at : at + _PIECE]).translate(None, inside)
    return skeleton


def _check(skeleton: bytearray, datatype: str, shape: Sequence[int]) -> None:
    count = prod(shape)
    if len(skeleton) == count + 1 and skeleton == b"[" + b"," * (count - 1) + b"]":
        return
    if len(skeleton) == _length(shape) and skeleton == _nested(shape):
        return
    if skeleton[:1] != b"[":
        raise BadRequest("data is no array")
    if skeleton.translate(None, b"[,]"):
        raise BadRequest(f"data has an element that is no {datatype}")
    commas = skeleton.count(b",")
    if commas + 1 != count or skeleton == b"[]":
        raise _miscounted(0 if skeleton == b"[]" else commas + 1, shape)
    raise _misnested(shape)


def _length(shape: Sequence[int]) -> int:
    """Characters of a nested array's skeleton, told before it is made: a shape can promise anything."""
    length = shape[-1] + 1
    for size in reversed(shape[:-1]):
        length = size * length + size + 1
    return length


def _nested(shape: Sequence[int]) -> bytes:
    skeleton = b"[" + b"," * (shape[-1] - 1) + b"]"
    for size in reversed(shape[:-1]):
        skeleton = b"[" + (skeleton + b",") * (size - 1) + skeleton + b"]"
    return skeleton


def _pieces(text: memoryview) -> Iterator[bytes]:
    """Cut at commas; a number longer than a piece gets a larger one."""
    at, size = 0, _PIECE
    while at < len(text):
        piece = bytes(text[at : at + size])
        if at + size < len(text):
            cut = piece.rfind(b",")
            if cut < 0:
                size *= 2
                continue
            piece = piece[:cut]
        yield piece
        at += len(piece) + 1


def _decode(text: bytes, datatype: str) -> Array:
    dtype = DTYPES[datatype]
    try:
        elements = _decoder(datatype).decode(text)
    except msgspec.ValidationError as error:
        if dtype.kind not in "iu":
            raise BadRequest(f"data has a number that is no {datatype}: {_first(error)}") from error
        elements = _whole(text, datatype)
    try:
        with np.errstate(over="ignore"):
            array: Array = np.array(elements, dtype)
    except OverflowError as error:  # only UINT64 comes here: msgspec cannot hold its limit
        raise BadRequest(f"data has a number that is out of the range of {datatype}") from error
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise BadRequest(f"data has a number that is out of the range of {datatype}")
    return array


def _whole(text: bytes, datatype: str) -> list[int]:
    """Read integers among which some are written as 1.0 or 1e3, or are none."""
    limits = np.iinfo(DTYPES[datatype])
    try:
        elements = _MIXED.decode(text)
    except msgspec.ValidationError as error:
        raise BadRequest(f"data has a number that is no {datatype}: {_first(error)}") from error
    for each in elements:
        if isinstance(each, float) and not each.is_integer():
            raise BadRequest(f"data has {each!r}, which is no {datatype}")
        if not limits.min <= each <= limits.max:
            raise BadRequest(f"data has {each!r}, which is out of the range of {datatype}")
    return [int(each) for each in elements]


@cache
def _decoder(datatype: str) -> msgspec.json.Decoder[list[Any]]:
    dtype = DTYPES[datatype]
    kind: Any = {"b": bool, "f": float}.get(dtype.kind)
    if kind is None:
        limits = np.iinfo(dtype)
        top = int(limits.max) if limits.max < 2**63 else None  # msgspec can hold no more
        kind = Annotated[int, Meta(ge=int(limits.min), le=top)]
    return msgspec.json.Decoder(list[kind])


def _strings(text: memoryview, shape: Sequence[int]) -> Array:
    count = prod(shape)
    whole = bytes(text)
    depth = _depth(whole)
    if depth == 0:
        raise BadRequest("data is no array")
    if depth not in (1, len(shape)):
        raise _misnested(shape)
    # Each string has two quotes of its own; those that follow a backslash may belong to its text.
    if whole.count(b'"') - whole.count(b'\\"') > 2 * count:
        raise BadRequest(f"data has more elements than a tensor of shape {list(shape)} takes, {count}")
    try:
        level: list[Any] = [_nest(depth).decode(whole)]
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        raise BadRequest(f"data has an element that is no text: {_first(error)}") from error
    for size in shape if depth == len(shape) else (count,):
        if any(len(each) != size for each in level):
            raise _miscounted(len(level[0]), shape) if depth == 1 else _misnested(shape)
        level = list(chain.from_iterable(level))
    array: Array = np.empty(count, object)
    array[:] = [each.encode() for each in level]
    return array.reshape(shape)


def _depth(text: bytes) -> int:
    """Count the brackets the text begins with."""
    opening = text[: len(text) - len(text.lstrip(b"[" + _SPACE))]
    return opening.count(b"[")


@cache
def _nest(depth: int) -> msgspec.json.Decoder[list[Any]]:
    kind: Any = str
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def _miscounted(found: int, shape: Sequence[int]) -> BadRequest:
    return BadRequest(f"data has {found} elements, a tensor of shape {list(shape)} takes {prod(shape)}")


def _misnested(shape: Sequence[int]) -> BadRequest:
    return BadRequest(f"data is nested otherwise than its shape {list(shape)}; send it so, or flat")


def _first(error: Exception) -> str:
    return str(error).splitlines()[0]
