"""Named arrays to the body of an ``/infer`` answer: JSON, or JSON and then bytes, as each output was asked for.

JSON has no number for NaN or the infinite and no text for bytes that are not UTF-8: an output that holds such is
refused with the way out, binary form, rather than changed.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec
import numpy as np
from msgspec import Raw

from node.errors import BadRequest
from node.protocols.oip import binary, classification, jsonarray
from node.protocols.oip.request import InferRequest, Output
from node.tensors import Array, Tensors, datatype


class NotInJson(BadRequest):
    """The answer cannot be said in JSON, which is how it was asked for (422)."""

    status: ClassVar[int] = 422


class Answer(msgspec.Struct, frozen=True):
    """The body; ``json_length`` bytes of it are JSON, None: all."""

    body: bytes
    json_length: int | None


class _Parameters(msgspec.Struct):
    binary_data_size: int


class _Output(msgspec.Struct, omit_defaults=True):
    name: str
    datatype: str | None
    shape: tuple[int, ...]
    parameters: _Parameters | None = None
    data: Raw | None = None


class _Answer(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[_Output]
    id: str | None = None


def build(
    request: InferRequest,
    outputs: Tensors,
    *,
    model: str,
    version: str,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> Answer:
    """Return the answer to ``request``; ``labels``: of the classes of an output, by its name. Raises ``NotInJson``."""
    described: list[_Output] = []
    pieces: list[bytes | memoryview] = []
    for wanted in request.outputs:
        array = outputs[wanted.name]
        if wanted.classes:
            array = classification.best(array, wanted.classes, (labels or {}).get(wanted.name, ()))
        one = _Output(wanted.name, datatype(array.dtype), array.shape)
        if wanted.binary:
            data = binary.write(array)
            one.parameters = _Parameters(sum(memoryview(piece).nbytes for piece in data))
            pieces += data
        else:
            one.data = Raw(_json(wanted, array))
        described.append(one)
    head = msgspec.json.encode(_Answer(model, version, described, request.id))
    if any(wanted.binary for wanted in request.outputs):
        return Answer(b"".join([head, *pieces]), len(head))
    return Answer(head, None)


def _json(wanted: Output, array: Array) -> bytes:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise NotInJson(f"output {wanted.name!r} has a NaN or an infinite number, which JSON cannot hold; {_WAY_OUT}")
    try:
        return jsonarray.write(array)
    except UnicodeDecodeError as error:
        raise NotInJson(f"output {wanted.name!r} has bytes that are no text; {_WAY_OUT}") from error


_WAY_OUT = 'ask for binary data: "parameters": {"binary_data": true}'
