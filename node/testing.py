"""Fakes for your own tests: a runtime that needs no TensorFlow, and a model folder for it.

With both a whole ``NodeServer`` runs in milliseconds; ``tests/node/test_server.py`` shows how. The fake tells the grey
levels of a picture apart: level 0 to 25 is class 0, 26 to 51 is class 1, up to class 9.
"""

import threading
from pathlib import Path

import msgspec
import numpy as np

from node.models import MANIFEST, Manifest, digest
from node.preprocessing import Colour, Preprocessing
from node.runtimes.base import Signature
from node.tensors import Tensors, TensorSpec

PREPROCESSING = Preprocessing(height=8, width=8, colour=Colour.GREY)
CLASSES = 10
_LEVELS = 26


class ScriptedRuntime:
    """A ``Runtime`` that answers at once, waits at ``gate``, or fails on a batch that holds the ``poison`` level.

    ``batches`` lists the sizes that were run, warm-up included. Clear ``gate`` to make runs wait, set it to go on.
    """

    name = "scripted"
    signature = Signature(
        inputs=(TensorSpec(name="pixels", datatype="UINT8", shape=(8, 8, 1)),),
        outputs=(TensorSpec(name="scores", datatype="FP32", shape=(CLASSES,)),),
    )

    def __init__(self, *, poison: int | None = None) -> None:
        self.poison = poison
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[int] = []
        self.closed = False

    def run(self, inputs: Tensors) -> Tensors:
        """See ``Runtime``."""
        batch = inputs["pixels"]
        self.batches.append(len(batch))
        self.gate.wait(30)
        levels = batch.mean(axis=(1, 2, 3))
        if self.poison is not None and (levels.astype(int) == self.poison).any():
            raise RuntimeError("poison in the batch")
        scores = np.full((len(batch), CLASSES), 0.01, np.float32)
        scores[np.arange(len(batch)), (levels // _LEVELS).astype(int)] = 0.91
        return {"scores": scores}

    def close(self) -> None:
        """See ``Runtime``."""
        self.closed = True

    def snapshot(self) -> dict[str, object]:
        """See ``Runtime``."""
        return {"runtime": self.name}


def write_model(folder: Path, *, version: int = 1) -> Path:
    """Write a model folder whose model file is empty of sense and whose manifest is in order; returns ``folder``."""
    target = folder / str(version)
    target.mkdir(parents=True)
    (target / "model.keras").write_bytes(b"not a model")
    manifest = Manifest(
        format="keras",
        file="model.keras",
        name=folder.name,
        version=str(version),
        labels=tuple(str(number) for number in range(CLASSES)),
        preprocessing=PREPROCESSING,
        sha256=digest(target / "model.keras"),
    )
    (target / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return folder
