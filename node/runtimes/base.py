"""The seam between a node and whatever runs its model.

A runtime takes a batch of named arrays and returns named arrays with one row for each item; what the model wants
besides (scaling, threads, devices) is its own affair. Each is loaded once and called from one thread at a time.
"""

from typing import Protocol

import msgspec

from node.tensors import Tensors, TensorSpec


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What the model takes and gives, in the model's own names, types and order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def picture(self) -> TensorSpec | None:
        """The input a picture can go to: the only one, numbers, three-dimensional; None where there is no such."""
        only = self.inputs[0]
        fits = len(self.inputs) == 1 and len(only.shape) == 3 and only.datatype not in ("BOOL", "BYTES")
        return only if fits else None

    @property
    def scores(self) -> TensorSpec | None:
        """The output that is one row of scores for each item: the only such; None where there is none, or several."""
        found = [each for each in self.outputs if len(each.shape) == 1 and each.datatype in ("FP16", "FP32", "FP64")]
        return found[0] if len(found) == 1 else None


class Runtime(Protocol):
    """A loaded model."""

    @property
    def name(self) -> str:
        """The engine, in a word: ``tensorflow``."""
        ...

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        ...

    def run(self, inputs: Tensors) -> Tensors:
        """Return every output for a batch of any size; it may block.

        ``inputs`` has each input of the signature, C-contiguous, in its dtype; they are not kept after the call. The
        arrays returned are the caller's own.
        """
        ...

    def close(self) -> None:
        """Give the model's memory back."""
        ...

    def snapshot(self) -> dict[str, object]:
        """Engine, and whatever helps to explain its speed."""
        ...
