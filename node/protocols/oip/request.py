"""The body of ``/infer`` to named arrays: what a client may ask of a model, checked in full. No network in here.

A body is JSON, then the inputs' bytes in the order in which the JSON lists them; ``Inference-Header-Content-Length``
says where the JSON ends, 0 that there is none and all of the body is the only input's. Parameters nobody knows are let
be, as the protocol wants it; those that would change the answer and cannot be honoured here (sequences, shared memory)
are refused. Sources: the protocol's own pages (kserve, open-inference-protocol) and Triton's on its extensions.
"""

import msgspec
from msgspec import Raw

from node.errors import BadRequest
from node.protocols.oip import inputs, wire
from node.protocols.oip.inputs import JSON_LENGTH, Limits, names
from node.runtimes.base import Signature
from node.tensors import Array, rows


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """An output that is wanted: in binary form or as JSON, whole (``classes`` 0) or the best so many classes."""

    name: str
    binary: bool
    classes: int = 0


class InferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks: every input of the model by name, in the model's order; ``timeout`` in seconds."""

    id: str | None
    inputs: dict[str, Array]
    outputs: tuple[Output, ...]
    timeout: float | None = None

    @property
    def rows(self) -> int:
        """How many items it holds."""
        return rows(self.inputs)


def json_length(header: str | None, available: int) -> int | None:
    """Return the header's number, None without one. Raises ``BadRequest`` for one past the ``available`` bytes."""
    if header is None:
        return None
    if not (header.isascii() and header.isdigit()) or len(header) > 19 or int(header) > available:
        raise BadRequest(f"{JSON_LENGTH} is {header[:40]!r} with a body of {available} bytes")
    return int(header)


def parse(
    body: bytes | bytearray | memoryview, header_length: int | None, signature: Signature, limits: Limits
) -> InferRequest:
    """Read a request for a model of this ``signature``; ``header_length`` bytes of it are JSON, None: all.

    Arrays may be views of ``body``. Raises ``BadRequest``, or ``TooLarge`` for what the node does not take at once.
    """
    whole = memoryview(body)
    if header_length == 0:
        asked = tuple(Output(name=spec.name, binary=True) for spec in signature.outputs)
        return InferRequest(id=None, inputs=inputs.raw(whole, signature, limits), outputs=asked)
    end = len(whole) if header_length is None else header_length
    request = wire.read(whole[:end], [spec.name for spec in signature.inputs])
    parameters = request.parameters or wire.RequestParameters()
    if parameters.sequence_id or parameters.sequence_start or parameters.sequence_end:
        raise BadRequest("sequences are not kept here: every request stands alone; leave the sequence parameters out")
    outputs = _outputs(request.outputs, bool(parameters.binary_data_output), signature)
    return InferRequest(
        id=request.id,
        inputs=inputs.arrays(request.inputs, whole[end:], signature, limits),
        outputs=outputs,
        timeout=parameters.timeout / 1e6 if parameters.timeout else None,
    )


def _outputs(text: Raw, default: bool, signature: Signature) -> tuple[Output, ...]:
    specs = {spec.name: spec for spec in signature.outputs}
    wanted: dict[str, Output] = {}
    for each in wire.outputs(text):
        if each.name not in specs:
            raise BadRequest(f"the model has no output {each.name[:80]!r}; it gives {names(signature.outputs)}")
        if each.name in wanted:
            raise BadRequest(f"output {each.name!r} is asked for twice")
        parameters = each.parameters or wire.OutputParameters()
        if parameters.shared_memory_region is not None:
            raise BadRequest(f"output {each.name!r}: shared memory is not offered here; take it from the answer")
        if parameters.classification and specs[each.name].datatype in ("BOOL", "BYTES"):
            raise BadRequest(f"output {each.name!r} is {specs[each.name].datatype}: there are no classes to rank")
        binary = default if parameters.binary_data is None else parameters.binary_data
        wanted[each.name] = Output(name=each.name, binary=binary, classes=parameters.classification or 0)
    return tuple(wanted.values()) or tuple(Output(name=name, binary=default) for name in specs)
