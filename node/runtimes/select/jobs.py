"""What passes between the process that serves and the one that tries (``trial``): files in a folder of the job's."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from node.models import ModelSource
from node.runtimes.select.choosing import Candidate, Trial

T = TypeVar("T")

JOB, RESULT, DOING = "job.json", "result.json", "doing"

_SUFFIXES = {"litert": ".tflite", "onnx": ".onnx"}


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to try besides the model's own format, at which batch sizes; ``samples``: a folder of pictures, if any."""

    source: ModelSource
    others: tuple[Candidate, ...]
    batches: tuple[int, ...]
    samples: Path | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of every candidate, the model's own format first, and in words what they were compared on.

    ``pictures``: those were real ones.
    """

    trials: tuple[Trial, ...]
    samples: str
    pictures: bool


def file_of(candidate: Candidate) -> str:
    """Return the name of the file a candidate is converted to."""
    return f"model{'-' * bool(candidate.quantize)}{candidate.quantize}{_SUFFIXES[candidate.runtime]}"


def encode(message: msgspec.Struct) -> bytes:
    """Return a message as JSON."""
    return msgspec.json.encode(message, enc_hook=str)


def decode(data: bytes, kind: type[T]) -> T:
    """Return the message that ``data`` is. Raises ``msgspec.MsgspecError``."""
    return msgspec.json.decode(data, type=kind, dec_hook=_path)


def _path(kind: type[Any], value: Any) -> Any:
    return kind(value)
