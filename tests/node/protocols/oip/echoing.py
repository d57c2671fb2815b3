"""A model that gives back what it gets, in every datatype, and nodes that serve it: for tests of protocols."""

import numpy as np
import pytest

from node.config import NodeConfig
from node.repository import Model
from node.runtimes.base import Signature
from node.server import NodeServer
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


@pytest.fixture
async def serve_echo(tmp_path):
    """Start nodes that serve ``echo``, with the datatypes given and options of ``NodeConfig``."""
    started = []

    async def start(*datatypes, **options):
        file = tmp_path / "echo.keras"
        file.write_bytes(b"not a model")
        settings = {"models": (Model(path=file),), "port": 0, "id": "echo-1", "register": False} | options
        node = NodeServer(NodeConfig(**settings), open=lambda _: Echo(*datatypes))
        started.append(node)
        await node.start()
        return node

    yield start
    for node in started:
        await node.stop()
