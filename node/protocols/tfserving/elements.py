"""JSON to one array: rectangular, in the model's own datatype, or refused with the place where it is not.

What arrives may come from anybody. Types and fixed sizes are checked while the JSON is read, so hostile nesting ends at
the first element that does not fit; a row is turned into numbers before the next is read. ``weigh`` says beforehand
what reading will hold, from the number of brackets, commas and quotes. Numbers out of a datatype's range are refused,
not clipped. ``NaN``, ``Infinity`` and ``-Infinity`` are read as TensorFlow Serving reads them, bare or quoted.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from node.errors import BadRequest, TooLarge
from node.tensors import Array, TensorSpec

T = TypeVar("T")
LIST: Any = list  # of types that are made at run time, for one model
Place = Callable[[tuple[int, ...]], str]  # from the indices of an element to where it stands, for people

# What one JSON value, list, object and half of a text take once read, in bytes: CPython's floats (24), pointers to them
# (8, in the list and again when it is laid flat) with room to grow, two arrays; lists (56 and room); msgspec's structs.
_VALUE, _LIST, _OBJECT, _QUOTE = 60, 120, 128, 32
# Four million numbers, or 18 pictures of 224 x 224 written as JSON.
MOST = 256 * 1024 * 1024
# JSON up to this size is read in one go, which takes some milliseconds. More of it is read row by row, so that other
# threads get a turn, where rows have that many bytes on average; smaller ones would cost more than they save.
_AT_ONCE = 256 * 1024
_LARGE = 4096

NUMBER_WORDS = Literal["NaN", "Infinity", "-Infinity"]


class Base64(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes in JSON: ``{"b64": "…"}``."""

    b64: bytes


def weigh(body: bytes | bytearray) -> int:
    """Return how many bytes reading ``body`` will hold besides it, about. Raises ``TooLarge`` above ``MOST``."""
    size = body.count(b",") * _VALUE + body.count(b"[") * _LIST + body.count(b"{") * _OBJECT + body.count(b'"') * _QUOTE
    if size > MOST:
        raise TooLarge(
            f"the JSON has more values than this node reads at once ({size / 2**20:.0f} MiB when read, of "
            f"{MOST // 2**20}); send fewer instances a request, or tensors in binary form to /v2/models/MODEL/infer"
        )
    return size


def read(body: bytes | bytearray, decoder: msgspec.json.Decoder[T], place: str = "") -> T:
    """Decode JSON; ``place`` is where it stands in the request. Raises ``BadRequest``."""
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            if b"NaN" not in body and b"Infinity" not in body:
                raise
        return decoder.decode(_words_quoted(body))
    except RecursionError as error:
        raise BadRequest("the JSON is nested too deeply") from error
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:  # bytes that are no UTF-8 are a ValueError
        raise BadRequest(_say(error, place)) from error


def element(spec: TensorSpec) -> Any:
    """Return the type of one element in JSON, as msgspec takes types."""
    kind = spec.dtype.kind
    if kind == "O":
        return str | Base64
    if kind == "b":
        return bool
    if kind == "f":
        return float | NUMBER_WORDS
    limits = np.iinfo(spec.dtype)
    # msgspec holds numbers to limits of 63 bits; of UINT64 ``array`` looks at the rest.
    return Annotated[int, Meta(ge=int(limits.min), le=min(int(limits.max), 2**63 - 1) if limits.bits < 64 else None)]


def nested(spec: TensorSpec) -> Any:
    """Return the type of one item in JSON: lists in lists, those of a known size held to it."""
    kind = element(spec)
    for size in reversed(spec.shape):
        kind = LIST[kind] if size is None else Annotated[LIST[kind], Meta(min_length=size, max_length=size)]
    return kind


def batch(raw: msgspec.Raw, spec: TensorSpec, place: str) -> Array:
    """Return the rows of a JSON list as one array; ``place`` is where the list stands. Raises ``BadRequest``."""
    size = len(memoryview(raw))
    rows = read(raw, _RAWS, place) if spec.shape and size > _AT_ONCE else []
    if size > _LARGE * len(rows) > 0:
        row = _decoder(spec.datatype, spec.shape)
        places = (f"{place}[{number}]" for number in range(len(rows)))
        return stack(
            (dense(read(each, row, at), spec.shape, spec, within(at)) for each, at in zip(rows, places, strict=True)),
            place,
        )
    shape = (None, *spec.shape)
    values = read(raw, _decoder(spec.datatype, shape), place)
    some(len(values), place)
    return dense(values, shape, spec, within(place))


def stack(items: Iterable[Array], place: str) -> Array:
    """Return items as a batch. Raises ``BadRequest`` where their shapes differ, or where there are none."""
    parts: list[Array] = []
    for number, item in enumerate(items):
        if parts and item.shape != parts[0].shape:
            raise BadRequest(
                f"{place}[{number}] has the shape {list(item.shape)} where the first has {list(parts[0].shape)}"
            )
        parts.append(item)
    some(len(parts), place)
    return np.stack(parts)


def some(count: int, place: str) -> None:
    """Raise ``BadRequest`` where there is nothing."""
    if not count:
        raise BadRequest(f"{place} is empty; there is nothing to ask the model")


def within(place: str) -> Place:
    """Return the function that says where an element of the list at ``place`` stands."""
    return lambda indices: place + "".join(f"[{index}]" for index in indices)


def dense(value: Any, shape: Sequence[int | None], spec: TensorSpec, place: Place) -> Array:
    """Return decoded elements, nested as ``shape`` has it, as one array. Raises ``BadRequest`` where it is ragged."""
    flat: Sequence[Any] = [value]
    sizes: list[int] = []
    for _ in shape:
        present = {len(each) for each in flat}
        if len(present) > 1:
            first = len(flat[0])
            odd = next(index for index, each in enumerate(flat) if len(each) != first)
            raise BadRequest(
                f"{place(_indices(odd, sizes))} has {len(flat[odd])} elements where its neighbours have {first}"
            )
        sizes.append(present.pop() if present else 0)
        flat = list(chain.from_iterable(flat))
    return array(flat, spec, lambda index: place(_indices(index[0], sizes))).reshape(sizes)


def array(flat: Sequence[Any], spec: TensorSpec, place: Place) -> Array:
    """Return decoded elements as one flat array in the model's datatype. Raises ``BadRequest`` for one out of range."""
    kind = spec.dtype.kind
    if kind == "O":
        texts = np.empty(len(flat), np.object_)
        texts[:] = [each.b64 if isinstance(each, Base64) else each.encode() for each in flat]
        return texts
    if kind != "f":
        try:
            return np.array(flat, spec.dtype)
        except OverflowError:
            limits = np.iinfo(spec.dtype)
            odd = next(index for index, each in enumerate(flat) if not limits.min <= each <= limits.max)
            raise BadRequest(f"{place((odd,))}: {str(flat[odd])[:40]} is out of {spec.datatype}'s range") from None
    wide = np.array(flat, np.float64)
    with np.errstate(over="ignore"):
        narrow = wide.astype(spec.dtype)
    lost = np.isinf(narrow) & np.isfinite(wide)
    if lost.any():
        odd = int(lost.argmax())
        raise BadRequest(f"{place((odd,))}: {wide[odd]:g} is out of {spec.datatype}'s range")
    return narrow


def _indices(flat: int, sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(flat, tuple(sizes))) if sizes else ()


@lru_cache(maxsize=256)
def _decoder(datatype: str, shape: tuple[int | None, ...]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(nested(TensorSpec(name="", datatype=datatype, shape=shape)))


_RAWS = msgspec.json.Decoder(list[msgspec.Raw])


def _words_quoted(body: bytes | bytearray) -> bytes:
    """Return the same JSON with ``NaN`` and its like in quotes; msgspec holds to the standard, which lacks them."""
    return msgspec.json.encode(json.loads(body.decode(), parse_constant=str))


def _say(error: Exception, place: str) -> str:
    """One line of a decoder's complaint, with the place it names put behind ours."""
    text, _, path = str(error).replace("`", "").partition(" - at $")
    # A float is also one of three words, which is the last thing that somebody wants to hear.
    text = text.replace("float | str", "float").replace("Invalid enum value", "Expected float, got")
    return f"{place + path or 'the body'}: {text[:1].lower()}{text[1:200]}"
