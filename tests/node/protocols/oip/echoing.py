"""A model that gives back what it gets, in every datatype: for tests of protocols."""

import numpy as np

from node.runtimes.base import Signature
from node.tensors import DTYPES, Tensors, TensorSpec


class Echo:
    """A ``Runtime`` with an input ``x_…`` of any width for each of ``datatypes``, given back as output ``y_…``.

    Floats come back as they are, NaN included.
    """

    name = "echo"

    def __init__(self, *datatypes: str) -> None:
        self.datatypes = datatypes or tuple(DTYPES)
        self.batches: list[int] = []
        self.signature = Signature(inputs=self._specs("x"), outputs=self._specs("y"))

    def run(self, inputs: Tensors) -> Tensors:
        """See ``Runtime``."""
        self.batches.append(len(inputs[f"x_{self.datatypes[0]}"]))
        return {f"y_{each}": np.array(inputs[f"x_{each}"]) for each in self.datatypes}

    def close(self) -> None:
        """See ``Runtime``."""

    def snapshot(self) -> dict[str, object]:
        """See ``Runtime``."""
        return {"runtime": self.name}

    def _specs(self, prefix: str) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name=f"{prefix}_{each}", datatype=each, shape=(None,)) for each in self.datatypes)
