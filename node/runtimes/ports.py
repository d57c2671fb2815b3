"""A model file's inputs and outputs as the file has them, batch dimension included, and what that means for a batch.

The batch comes first in every input and is free, or fixed at one, and then a batch is run row by row; anything else is
refused. Outputs without the dimension belong to the item where the model takes one at a time, else they are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from node.errors import ModelError
from node.runtimes.base import Signature
from node.tensors import Array, TensorSpec

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output: ``shape`` includes the batch, None in it is free; ``datatype``: None where we have no word.

    ``foreign`` is the file's own word for the type.
    """

    name: str
    shape: Shape
    datatype: str | None
    foreign: str


class Ports:
    """All inputs and outputs of a file. Raises ``ModelError`` for what cannot be served in batches."""

    def __init__(self, path: Path, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        self._path = path
        self.row_by_row = self._has_batch_of_one(inputs)
        self._whole = {port.name for port in outputs if self.row_by_row and port.shape[:1] != (1,)}
        # A size of one may be what a converter made of a free size; whether it is shows when it is run.
        kept = [port for port in outputs if port.name in self._whole or port.shape[:1] in ((None,), (1,))]
        if not kept:
            raise ModelError(f"{path} gives no output with one row for each input; convert it again with a free batch")
        self.signature = Signature(inputs=tuple(map(self._spec, inputs)), outputs=tuple(map(self._spec, kept)))

    def as_rows(self, name: str, array: Array, count: int) -> Array:
        """Return an output of ``count`` items with one row for each. Raises ``ModelError`` if the model gave others."""
        if name in self._whole:
            return array[np.newaxis]
        if array.ndim == 0 or len(array) != count:
            raise ModelError(f"{self._path} gives {name} of shape {array.shape} for {count} items, not a row for each")
        return array

    def _has_batch_of_one(self, inputs: Sequence[Port]) -> bool:
        sizes = {port.shape[:1] for port in inputs}
        if sizes == {(None,)}:
            return False
        if sizes == {(1,)}:
            return True
        shapes = ", ".join(f"{port.name} {port.shape}" for port in inputs) or "it takes no input"
        raise ModelError(f"{self._path} has no free batch dimension ({shapes}); convert it again with a free one")

    def _spec(self, port: Port) -> TensorSpec:
        if port.datatype is None:
            raise ModelError(f"{self._path} has {port.name} of type {port.foreign}, which no protocol here can carry")
        shape = port.shape if port.name in self._whole else port.shape[1:]
        return TensorSpec(name=port.name, datatype=port.datatype, shape=shape)
