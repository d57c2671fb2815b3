"""Arrays to the bodies that TensorFlow Serving answers with.

Numbers are written with the fewest digits that give the same number back in the output's own datatype, as there: a
float32 of 0.2 is ``0.2``. ``NaN``, ``Infinity`` and ``-Infinity`` are written bare, which that server does too and most
readers of JSON take. Bytes are text, or ``{"b64": …}`` where the output's name ends in ``_bytes`` or they are no UTF-8.

The answer of ``:classify`` and ``:regress`` has the key ``results``: so does the server's source (util/json_tensor.cc)
and the example of its documentation, whose prose says ``result``.
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from node.tensors import Array, Tensors

# Significant digits to try: from as many as always tell two neighbours apart down to what often is enough.
_DIGITS = {np.dtype(np.float16): range(5, 2, -1), np.dtype(np.float32): range(9, 5, -1)}
_BINARY = "_bytes"


def predictions(outputs: Tensors, *, by_row: bool) -> bytes:
    """Return the body that answers ``:predict``; an only output has no name in it."""
    columns = {name: _values(name, array) for name, array in outputs.items()}
    if by_row:
        return _encode({"predictions": _rows(columns)}, outputs)
    only = next(iter(columns.values())) if len(columns) == 1 else columns
    return _encode({"outputs": only}, outputs)


def classes(scores: Array, labels: Sequence[str]) -> bytes:
    """Return the body that answers ``:classify``: every label with its score, in the model's own order."""
    rows = [[[label, score] for label, score in zip(labels, row, strict=True)] for row in _short(scores).tolist()]
    return _encode({"results": rows}, {"scores": scores})


def values(column: Array) -> bytes:
    """Return the body that answers ``:regress``, from one number for each item."""
    return _encode({"results": _short(column.reshape(-1)).tolist()}, {"values": column})


def _rows(columns: Mapping[str, list[Any]]) -> list[Any]:
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(name: str, array: Array) -> list[Any]:
    if array.dtype != np.object_:
        return list(_short(array).tolist())
    texts = np.empty(array.size, np.object_)
    texts[:] = [_text(each, binary=name.endswith(_BINARY)) for each in array.reshape(-1)]
    return list(texts.reshape(array.shape).tolist())


def _text(data: bytes, *, binary: bool) -> str | dict[str, str]:
    if not binary:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": b64encode(data).decode()}


def _short(array: Array) -> Array:
    """Return floats as float64 values that have few digits, each the same number as before once it is narrow again."""
    if array.dtype not in _DIGITS:
        return array
    wide = array.astype(np.float64)
    short = wide.copy()
    for digits in _DIGITS[array.dtype]:
        rounded = _rounded(wide, digits)
        with np.errstate(over="ignore"):
            short = np.where(rounded.astype(array.dtype) == array, rounded, short)
    return short


def _rounded(wide: Array, digits: int) -> Array:
    """Round to so many significant decimal digits."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        place = digits - 1 - np.floor(np.log10(np.abs(wide)))
        scale = 10.0 ** np.abs(place)
        # Dividing by a power of ten gives the nearest double to the decimal; multiplying by its inverse would not.
        rounded: Array = np.where(place >= 0, np.round(wide * scale) / scale, np.round(wide / scale) * scale)
    return rounded


def _encode(body: dict[str, Any], outputs: Tensors) -> bytes:
    finite = all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in outputs.values())
    if finite:
        return msgspec.json.encode(body)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()  # it writes NaN, msgspec null
