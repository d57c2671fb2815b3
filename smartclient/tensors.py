"""Arrays to a request, an answer to ``Tensors``: the Open Inference Protocol (V2) over HTTP. No network in here.

Both ways a body is JSON, then the tensors' bytes in the order in which the JSON lists them (the protocol's extension
for binary tensors); ``Inference-Header-Content-Length`` says where the JSON ends. A server that knows no binary form
answers with JSON alone, which is read as well. A tensor's elements are ``oip``'s part, the only one that needs numpy.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from smartclient.call import Done
from smartclient.errors import BadAnswer, BadOption
from smartclient.metadata import PROTOCOL, path_of
from smartclient.refusals import UNREADABLE, Malformed, foreign, refused
from smartclient.transport import Request

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from smartclient.oip import Array

JSON_LENGTH = "Inference-Header-Content-Length"

_Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Shape = Annotated[tuple[_Size, ...], Meta(max_length=64)]  # numpy has no more dimensions


class Tensors(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a model made of its inputs: read-only arrays by name (BYTES: objects of ``bytes``), and how it went.

    ``milliseconds``: the call as the caller waited for it, failed attempts included.
    """

    outputs: "Mapping[str, Array]"
    model: str
    version: str
    node: str
    milliseconds: float
    attempts: int

    @property
    def output(self) -> "Array":
        """The sole output. Raises ``BadAnswer`` where there is not exactly one."""
        if len(self.outputs) != 1:
            names = ", ".join(map(repr, self.outputs)) or "none"
            raise BadAnswer(f"{self.node} gave {len(self.outputs)} outputs ({names}), not one; see .outputs")
        return next(iter(self.outputs.values()))


class _Parameters(msgspec.Struct):
    binary_data_size: _Size | None = None


class _Tensor(msgspec.Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: _Shape
    parameters: _Parameters | None = None
    data: msgspec.Raw = msgspec.Raw()


class _Reply(msgspec.Struct):
    outputs: tuple[_Tensor, ...]
    model_name: str | None = None
    model_version: str | None = None


_REPLY = msgspec.json.Decoder(_Reply)


def encode(
    inputs: "Mapping[str, ArrayLike]",
    *,
    model: str,
    version: str = "",
    outputs: Sequence[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    binary: bool = True,
) -> Request:
    """Return the request that runs ``model`` on ``inputs``, arrays by name.

    ``outputs``: the names wanted, None for all. ``parameters``: what the protocol calls so, for servers that take any.
    ``binary`` False: all in JSON, for servers that know nothing else. Raises ``BadInput`` for what is no array or has
    elements that the protocol lacks, ``BadOption``.
    """
    with _numpy_needed():
        from smartclient import oip  # noqa: PLC0415 - it imports numpy
    tensors: list[_Tensor] = []
    pieces: list[bytes | memoryview] = []
    for name, value in inputs.items():
        if binary:
            packed = oip.pack(name, value)
            tensors.append(_Tensor(name, packed.datatype, packed.shape, _Parameters(packed.size)))
            pieces += packed.pieces
        else:
            datatype, shape, data = oip.to_json(name, value)
            tensors.append(_Tensor(name, datatype, shape, data=msgspec.Raw(data)))
    head: dict[str, Any] = {"inputs": tensors}
    if outputs is not None:
        head["outputs"] = [{"name": name, "parameters": {"binary_data": binary}} for name in outputs]
    elif binary:
        parameters = {"binary_data_output": True} | dict(parameters or {})
    if parameters:
        head["parameters"] = parameters
    try:
        json = msgspec.json.encode(head)
    except (TypeError, ValueError) as error:
        raise BadOption(f"this request cannot be said in JSON: {error}") from error
    headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(json))}
    return Request(
        method="POST",
        target=f"{path_of(model, version)}/infer",
        headers=headers if binary else {"Content-Type": "application/json"},
        body=b"".join([json, *pieces]),
    )


def decode(done: Done, service: str) -> Tensors:
    """Return the tensors in an answer.

    Raises ``BadInput`` (4xx), ``AccessDenied`` (401, 403), ``DeadlineExceeded`` (504), ``CallFailed`` (other refusals),
    ``BadAnswer``.
    """
    answer = done.answer
    if not 200 <= answer.status < 300:
        raise refused(done, service, PROTOCOL)
    body = memoryview(answer.body)
    try:
        length = _json_length(answer.headers.get(JSON_LENGTH), len(body))
        reply = _REPLY.decode(body[:length])
        outputs = _arrays(reply.outputs, body[length:])
    except UNREADABLE as error:
        raise foreign(done, service, PROTOCOL, str(error)) from error
    return Tensors(
        outputs=outputs,
        model=reply.model_name or "",
        version=reply.model_version or "",
        node=done.endpoint.name,
        milliseconds=done.milliseconds,
        attempts=done.attempts,
    )


def _arrays(tensors: Sequence[_Tensor], binary: memoryview) -> "dict[str, Array]":
    with _numpy_needed():
        from smartclient import oip  # noqa: PLC0415 - it imports numpy
    arrays: dict[str, Array] = {}
    at = 0
    for each in tensors:
        if each.name in arrays:
            raise Malformed(f"two outputs named {each.name[:80]!r}")
        size = each.parameters.binary_data_size if each.parameters else None
        begin, at = at, at + (size or 0)
        try:
            if size is None:
                arrays[each.name] = oip.from_json(each.datatype, each.shape, memoryview(each.data))
            else:
                arrays[each.name] = oip.from_binary(each.datatype, each.shape, binary[begin:at])
        except Malformed as error:
            raise Malformed(f"output {each.name[:80]!r}: {error}") from error
    if at != len(binary):
        raise Malformed(f"{len(binary)} bytes after the JSON where the outputs have {at}")
    return arrays


def _json_length(header: str | None, available: int) -> int:
    if header is None:
        return available
    if not (header.isascii() and header.isdigit()) or len(header) > 19 or int(header) > available:
        raise Malformed(f"{JSON_LENGTH} is {header[:80]!r} in an answer of {available} bytes")
    return int(header)


@contextmanager
def _numpy_needed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise BadOption(f"tensors need {error.name}: pip install 'twostep[node]'") from error
