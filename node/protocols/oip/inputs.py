"""The inputs of an ``/infer`` request to arrays, once it is known that they are what the model takes.

Names, datatypes and shapes are held against the model, and sizes against the node's bounds and against the bytes that
are there, before anything is made of them.
"""

from collections.abc import Sequence
from math import prod

import msgspec

from node.errors import BadRequest, TooLarge
from node.protocols.oip import binary, jsonarray
from node.protocols.oip.wire import Input, InputParameters
from node.runtimes.base import Signature
from node.tensors import Array, TensorSpec

JSON_LENGTH = "Inference-Header-Content-Length"
# What an element of BYTES takes in memory besides its text, about.
_OBJECT_BYTES = 128


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The most a request may ask at once: ``rows``, and ``bytes`` of all its inputs once they are arrays."""

    rows: int
    bytes: int


def arrays(given: Sequence[Input], data: memoryview, signature: Signature, limits: Limits) -> dict[str, Array]:
    """Return the inputs by name, in the model's order; ``data`` is what follows the JSON.

    Raises ``BadRequest`` and ``TooLarge``.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    shapes: dict[str, list[int]] = {}
    for each in given:
        if each.name not in specs:
            raise BadRequest(f"the model has no input {each.name[:80]!r}; it takes {names(signature.inputs)}")
        if each.name in shapes:
            raise BadRequest(f"input {each.name!r} is given twice")
        shapes[each.name] = _shape(each, specs[each.name])
    _measure(shapes, specs, limits)
    found: dict[str, Array] = {}
    at = 0
    for each in given:
        begin = at
        if each.parameters is not None and each.parameters.binary_data_size is not None:
            at += each.parameters.binary_data_size
        try:
            found[each.name] = _elements(each, data[begin:at], at <= len(data), shapes[each.name])
        except BadRequest as error:
            raise BadRequest(f"input {each.name!r}: {error}") from error
    if at != len(data):
        raise BadRequest(f"{len(data)} bytes after the JSON where the inputs have {at}")
    return {name: found[name] for name in specs}


def raw(data: memoryview, signature: Signature, limits: Limits) -> dict[str, Array]:
    """Take all of a body, which has no JSON, for one row of the only input. Raises ``BadRequest`` and ``TooLarge``."""
    spec = signature.inputs[0]
    if len(signature.inputs) > 1:
        raise BadRequest(
            f"{JSON_LENGTH} is 0, but the model takes {names(signature.inputs)}; say in JSON which is which"
        )
    shape = [1, *(1 if size is None else size for size in spec.shape)]
    if spec.datatype == "BYTES":
        if prod(shape) != 1:
            raise BadRequest(
                f"{JSON_LENGTH} is 0, but the input takes several elements of BYTES; say its shape in JSON"
            )
        data = memoryview(len(data).to_bytes(4, "little") + bytes(data))
    elif spec.shape.count(None) > 1:
        raise BadRequest(f"{JSON_LENGTH} is 0, but several sizes of {_wanted(spec)} are free; say the shape in JSON")
    elif None in spec.shape:
        shape[spec.shape.index(None) + 1] = max(1, len(data) // (spec.dtype.itemsize * prod(shape)))
    _measure({spec.name: shape}, {spec.name: spec}, limits)
    try:
        return {spec.name: binary.read(data, spec.datatype, shape)}
    except BadRequest as error:
        raise BadRequest(f"input {spec.name!r}: {error}") from error


def names(specs: Sequence[TensorSpec]) -> str:
    """Return the names of some inputs or outputs, for a message."""
    return ", ".join(repr(spec.name) for spec in specs)


def _shape(given: Input, spec: TensorSpec) -> list[int]:
    if given.datatype != spec.datatype:
        raise BadRequest(f"input {given.name!r} is {spec.datatype}, the request says {given.datatype[:20]!r}")
    shape = given.sizes
    if not shape or not spec.fits(tuple(shape[1:])):
        raise BadRequest(f"input {given.name!r} has the shape {shape}, the model takes {_wanted(spec)}")
    return shape


def _measure(shapes: dict[str, list[int]], specs: dict[str, TensorSpec], limits: Limits) -> None:
    count = next(iter(shapes.values()))[0]
    size = 0
    for name, shape in shapes.items():
        if shape[0] != count:
            raise BadRequest(
                f"input {name!r} has {shape[0]} rows, another has {count}; the first dimension is the batch"
            )
        size += prod(shape) * (_OBJECT_BYTES if specs[name].datatype == "BYTES" else specs[name].dtype.itemsize)
    if count > limits.rows:
        raise TooLarge(f"{count} rows are more than the {limits.rows} this node takes at once; send several requests")
    if size > limits.bytes:
        raise TooLarge(
            f"the inputs are {size / 2**20:.4g} MiB, more than the {limits.bytes / 2**20:g} this node takes at once"
        )


def _elements(given: Input, data: memoryview, there: bool, shape: list[int]) -> Array:
    parameters, elements = given.parameters or InputParameters(), given.elements
    if parameters.shared_memory_region is not None:
        raise BadRequest("shared memory is not offered here; send the data in the request")
    if parameters.binary_data_size is None:
        if elements is None:
            raise BadRequest("there is neither data nor the parameter binary_data_size")
        return jsonarray.read(elements, given.datatype, shape)
    if elements is not None:
        raise BadRequest("there are both data and the parameter binary_data_size; give one")
    if not there:
        raise BadRequest(f"binary_data_size is past the end of the body; does {JSON_LENGTH} say where the JSON ends?")
    return binary.read(data, given.datatype, shape)


def _wanted(spec: TensorSpec) -> list[int]:
    return [-1, *(-1 if size is None else size for size in spec.shape)]
