"""The JSON of an ``/infer`` request as it is written, before anything in it is held against a model.

Nothing is made of a list longer than the model has use for: the number of inputs is fixed, and what has no number of
its own (shapes, outputs, data) stays text until somebody knows how much of it to expect.
"""

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Protocol

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from node.errors import BadRequest

# Longer than any honest list of outputs or of sizes.
_MOST_OUTPUTS = 64 * 1024
_MOST_SHAPE = 1024


class RequestParameters(msgspec.Struct):
    """What is asked of the request as a whole; ``timeout`` in microseconds."""

    timeout: Annotated[int, Meta(ge=0)] | None = None
    binary_data_output: bool | None = None
    sequence_id: int | str | None = None
    sequence_start: bool | None = None
    sequence_end: bool | None = None


class InputParameters(msgspec.Struct):
    """Where an input's elements are, if not in ``data``."""

    binary_data_size: Annotated[int, Meta(ge=0)] | None = None
    shared_memory_region: str | None = None


class OutputParameters(msgspec.Struct):
    """How an output is wanted."""

    binary_data: bool | None = None
    classification: Annotated[int, Meta(ge=0)] | None = None
    shared_memory_region: str | None = None


class Input(msgspec.Struct):
    """One input."""

    name: str
    shape: Raw
    datatype: str
    parameters: InputParameters | None = None
    data: Raw | UnsetType = UNSET

    @property
    def elements(self) -> memoryview | None:
        """The text of ``data``, None without any."""
        if isinstance(self.data, UnsetType) or bytes(memoryview(self.data)[:4]) == b"null":
            return None
        return memoryview(self.data)

    @property
    def sizes(self) -> list[int]:
        """The shape, every dimension at least 1. Raises ``BadRequest``."""
        text = memoryview(self.shape)
        try:
            return _SHAPE.decode(text[:_MOST_SHAPE])
        except msgspec.MsgspecError as error:
            reason = str(error) if len(text) <= _MOST_SHAPE else "too long"
            raise BadRequest(f"input {self.name[:80]!r} has a shape that is none: {reason}") from error


class Output(msgspec.Struct):
    """One output."""

    name: str
    parameters: OutputParameters | None = None


class Request(Protocol):
    """The whole."""

    inputs: Sequence[Input]
    id: str | None
    parameters: RequestParameters | None
    outputs: Raw


_SHAPE = msgspec.json.Decoder(list[Annotated[int, Meta(ge=1)]])
_OUTPUTS: msgspec.json.Decoder[list[Output] | None] = msgspec.json.Decoder(list[Output] | None)


def read(text: memoryview, inputs: Sequence[str]) -> Request:
    """Decode a request for a model that takes ``inputs``. Raises ``BadRequest``."""
    try:
        return _decoder(len(inputs)).decode(text)
    except RecursionError as error:
        raise BadRequest("the JSON is nested too deep") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        if "of length" in reason and "`$.inputs`" in reason:
            raise BadRequest(
                f"the model takes {', '.join(map(repr, inputs))}; give each of these inputs once"
            ) from error
        raise BadRequest(f"the request is not as the protocol has it: {reason}") from error


def outputs(text: Raw) -> Sequence[Output]:
    """Decode the list of outputs, none for all. Raises ``BadRequest``."""
    if len(memoryview(text)) > _MOST_OUTPUTS:
        raise BadRequest("the list of outputs is too long")
    try:
        return _OUTPUTS.decode(text) or ()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"outputs are not as the protocol has them: {str(error).splitlines()[0]}") from error


@cache
def _decoder(inputs: int) -> msgspec.json.Decoder[Request]:
    """Return what reads so many inputs: one that is too many ends the reading, whatever else the body has in store."""
    request = msgspec.defstruct(
        "Request",
        [
            ("inputs", tuple[(Input,) * inputs]),  # type: ignore[misc]  # made at run time
            ("id", str | None, None),
            ("parameters", RequestParameters | None, None),
            ("outputs", Raw, Raw(b"null")),
        ],
    )
    return msgspec.json.Decoder(request)
