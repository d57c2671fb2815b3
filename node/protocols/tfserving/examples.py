"""The body of ``:classify`` and ``:regress`` to arrays: examples, which are features by name.

In TensorFlow an example's features are flat lists; here the model's input gives them their shape. Features the model
does not take are left aside, as they are there. What stands in ``context`` belongs to every example.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from node.errors import BadRequest
from node.protocols.tfserving.elements import LIST, Base64, array, element, read, some, stack
from node.protocols.tfserving.request import Batch, few, keyed, take_apart
from node.runtimes.base import Signature
from node.tensors import Array, TensorSpec

# The feature that holds the file in TensorFlow's own examples of pictures.
ENCODED = "image/encoded"


class _Features(NamedTuple):
    """How a model's examples are read: the attributes of its inputs, of a picture's file too, and the decoders."""

    attributes: list[str]
    examples: msgspec.json.Decoder[list[Any]]
    example: msgspec.json.Decoder[Any]


def examples(body: bytes | bytearray, signature: Signature, method: str) -> Batch:
    """Read a request for ``method``, ``classify`` or ``regress``. Raises ``BadRequest``."""
    request = take_apart(body, method)
    if not request.examples:
        raise BadRequest('there are no examples in the request; send {"examples": [{"FEATURE": VALUE}]}')
    features = _features(signature)
    given = read(request.examples, features.examples, "examples")
    some(len(given), "examples")
    if request.context:
        _spread(read(request.context, features.example, "context"), given, features.attributes)
    if signature.picture is not None and (files := _files(given, features.attributes)):
        return Batch(files=files)
    tensors = {}
    for number, spec in enumerate(signature.inputs):
        values = [getattr(example, f"f{number}") for example in given]
        items = (_shaped(value, spec, f"examples[{at}]") for at, value in enumerate(values))
        tensors[spec.name] = stack(items, f"examples.{spec.name}")
    return Batch(tensors=tensors)


def _spread(context: Any, given: list[Any], attributes: list[str]) -> None:
    """Put what the examples share into each of them. Raises ``BadRequest`` for a feature said twice."""
    shared = {key: value for key in attributes if (value := getattr(context, key)) is not None}
    for number, example in enumerate(given):
        for key, value in shared.items():
            if getattr(example, key) is not None:
                raise BadRequest(f"examples[{number}] has a feature that stands in the context already")
            setattr(example, key, value)


def _files(given: Sequence[Any], attributes: list[str]) -> list[bytes]:
    """Return the pictures' files where the first example has one; the others must then have one too."""
    files: list[bytes] = []
    for number, example in enumerate(given):
        value = next((value for key in attributes if (value := getattr(example, key)) is not None), None)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, Base64):
            files.append(value.b64)
        elif files:
            raise BadRequest(f"examples[{number}] has no image file where the first has one")
        else:
            break
    return few(files)


def _shaped(value: Any, spec: TensorSpec, place: str) -> Array:
    """Return a feature, one value or a flat list of them, in the shape of the model's input."""
    if value is None:
        raise BadRequest(f"{place} has no feature {spec.name!r}")
    flat = value if isinstance(value, list) else [value]
    if spec.datatype != "BYTES" and any(isinstance(each, Base64) for each in flat):
        raise BadRequest(f"{place}.{spec.name} holds bytes where the first example holds numbers")
    elements = array(flat, spec, lambda indices: f"{place}.{spec.name}[{indices[0]}]")
    try:
        return elements.reshape([-1 if size is None else size for size in spec.shape])
    except ValueError:  # another number of them, or more than one dimension that is free
        wanted = " x ".join("any" if size is None else str(size) for size in spec.shape) or "one value"
        raise BadRequest(
            f"{place}.{spec.name} has {len(flat)} values, which do not make {wanted}; nested lists go to :predict"
        ) from None


@lru_cache(maxsize=64)
def _features(signature: Signature) -> _Features:
    picture = signature.picture is not None
    fields: list[tuple[str, str, Any]] = []
    for number, spec in enumerate(signature.inputs):
        one = element(spec) | Base64 if picture else element(spec)
        fields.append((f"f{number}", spec.name, one | LIST[one]))
    if picture and signature.inputs[0].name != ENCODED:
        fields.append(("file", ENCODED, Base64 | list[Base64]))
    example = keyed(signature, fields, optional=True)
    attributes = [attribute for attribute, _, _ in fields]
    return _Features(attributes, msgspec.json.Decoder(LIST[example]), msgspec.json.Decoder(example))
