"""The body of ``:predict`` to arrays, and what all requests have in common. No network in here.

https://github.com/tensorflow/serving, g3doc/api_rest.md, says what a body looks like; where it is silent, that server's
own reader (util/json_tensor.cc) decides. A model that takes pictures is also given whole image files, as
``{"b64": …}`` in the picture's place: models exported with a decoding step take them so.
"""

import re
from functools import lru_cache
from typing import Any

import msgspec

from node.errors import BadRequest
from node.protocols.tfserving.elements import LIST, Base64, Place, batch, dense, nested, read
from node.runtimes.base import Signature
from node.tensors import Array

DEFAULT_SIGNATURE = "serving_default"
MOST_FILES = 256  # as many as a form may have

# What a value begins with; that the rest of a list is the same is found when it is read.
_OBJECT = re.compile(rb"\s*\{")
_OBJECTS = re.compile(rb"\s*\[\s*\{")
_FILES = re.compile(rb'\s*\[\s*\{\s*"b64"\s*:\s*"')
_NAMED_FILES = re.compile(rb'\s*\[\s*\{\s*"[^"]*"\s*:\s*\{')


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: ``tensors`` by the model's input names, or ``files``, one encoded picture for each item.

    ``by_row``: the answer is wanted row by row (``instances``), not by column (``inputs``).
    """

    tensors: dict[str, Array] = {}
    files: list[bytes] = []
    by_row: bool = True


class Body(msgspec.Struct):
    """A request, taken apart no further than its own keys; what is not there is empty."""

    signature_name: str | None = None
    instances: msgspec.Raw = msgspec.Raw()
    inputs: msgspec.Raw = msgspec.Raw()
    context: msgspec.Raw = msgspec.Raw()
    examples: msgspec.Raw = msgspec.Raw()


_BODY = msgspec.json.Decoder(Body)
_COLUMNS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST_OF_FILES = msgspec.json.Decoder(list[Base64])


def take_apart(body: bytes | bytearray, method: str) -> Body:
    """Read the outermost object of a request for ``predict``, ``classify`` or ``regress``. Raises ``BadRequest``."""
    request = read(body, _BODY)
    if request.signature_name and request.signature_name not in (DEFAULT_SIGNATURE, f"tensorflow/serving/{method}"):
        raise BadRequest(
            f"there is no signature {request.signature_name[:80]!r} for {method}; "
            f"leave signature_name out, or send {DEFAULT_SIGNATURE!r}"
        )
    return request


def predict(body: bytes | bytearray, signature: Signature) -> Batch:
    """Read a ``:predict`` request. Raises ``BadRequest``."""
    request = take_apart(body, "predict")
    if request.instances and request.inputs:
        raise BadRequest("there are both instances (rows) and inputs (columns); send one of them")
    if request.instances:
        return _by_row(request.instances, signature)
    if request.inputs:
        return _by_column(request.inputs, signature)
    raise BadRequest("there are neither instances (rows) nor inputs (columns) in the request")


def keyed(signature: Signature, fields: list[tuple[str, str, Any]], *, optional: bool) -> Any:
    """Return the type of an object with these keys: each an attribute, the key, and the type of its value.

    ``optional``: what is missing is None, what is unknown is left aside. Raises ``BadRequest`` for keys with quotes or
    backslashes, which msgspec does not take.
    """
    rename = {attribute: key for attribute, key, _ in fields}
    types = [(attribute, kind | None, None) if optional else (attribute, kind) for attribute, _, kind in fields]
    try:
        return msgspec.defstruct("Object", types, rename=rename, forbid_unknown_fields=not optional)
    except ValueError as error:
        raise BadRequest(
            f"the names of this model's inputs cannot be keys here ({names(signature)}); "
            "send values without names, or ask /v2/models/MODEL/infer"
        ) from error


def names(signature: Signature) -> str:
    """Return the names of a model's inputs, for people."""
    return ", ".join(spec.name for spec in signature.inputs)


def few(files: list[bytes]) -> list[bytes]:
    """Return the image files of a request. Raises ``BadRequest`` for too many."""
    if len(files) > MOST_FILES:
        raise BadRequest(f"more than {MOST_FILES} image files in one request; send several requests")
    return files


def _by_row(raw: msgspec.Raw, signature: Signature) -> Batch:
    text = memoryview(raw)
    if not _OBJECTS.match(text) or _FILES.match(text):
        return _nameless(raw, signature, "instances", by_row=True)
    if signature.picture is not None and _NAMED_FILES.match(text):
        rows = read(raw, _objects(signature, files=True), "instances")
        return Batch(files=few([row.f0.b64 for row in rows]))
    rows = read(raw, _objects(signature, files=False), "instances")
    tensors = {}
    for number, spec in enumerate(signature.inputs):
        column = [getattr(row, f"f{number}") for row in rows]
        tensors[spec.name] = dense(column, (None, *spec.shape), spec, _in_objects(spec.name))
    return Batch(tensors=tensors)


def _by_column(raw: msgspec.Raw, signature: Signature) -> Batch:
    if not _OBJECT.match(memoryview(raw)):
        return _nameless(raw, signature, "inputs", by_row=False)
    columns = read(raw, _COLUMNS, "inputs")
    for spec in signature.inputs:
        if spec.name not in columns:
            raise BadRequest(f"inputs has no {spec.name!r}; this model takes {names(signature)}")
    picture = signature.picture
    if picture is not None and _FILES.match(memoryview(columns[picture.name])):
        return Batch(files=_list_of_files(columns[picture.name], f"inputs.{picture.name}"), by_row=False)
    tensors = {spec.name: batch(columns[spec.name], spec, f"inputs.{spec.name}") for spec in signature.inputs}
    sizes = {name: len(rows) for name, rows in tensors.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise BadRequest(f"the inputs have different numbers of rows ({listed}); a row of each makes one item here")
    return Batch(tensors=tensors, by_row=False)


def _nameless(raw: msgspec.Raw, signature: Signature, place: str, *, by_row: bool) -> Batch:
    """Read values without names, which a model with one input may be given."""
    if len(signature.inputs) > 1:
        raise BadRequest(f"{place} has no names, but this model takes {names(signature)}; send objects with these")
    if signature.picture is not None and _FILES.match(memoryview(raw)):
        return Batch(files=_list_of_files(raw, place), by_row=by_row)
    only = signature.inputs[0]
    return Batch(tensors={only.name: batch(raw, only, place)}, by_row=by_row)


def _list_of_files(raw: msgspec.Raw, place: str) -> list[bytes]:
    return few([each.b64 for each in read(raw, _LIST_OF_FILES, place)])


def _in_objects(name: str) -> Place:
    return lambda indices: f"instances[{indices[0]}].{name}" + "".join(f"[{index}]" for index in indices[1:])


@lru_cache(maxsize=64)
def _objects(signature: Signature, *, files: bool) -> msgspec.json.Decoder[list[Any]]:
    """Make the decoder of instances with names; ``files``: of a picture's only input, as a file."""
    kinds = [(f"f{n}", spec.name, Base64 if files else nested(spec)) for n, spec in enumerate(signature.inputs)]
    instance = keyed(signature, kinds, optional=False)
    return msgspec.json.Decoder(LIST[instance])
