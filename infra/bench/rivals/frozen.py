"""The frozen function and the decoding that every rival gets: the same model, the same pixels as a node's.

Imports nothing else of this project, because LitServe and mosec run in virtual environments that do not have it.
"""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infra.bench.rivals import VARIABLE

SIDE = 224
# The function's ends in the graph that ``infra.bench.weights`` writes.
INPUT, OUTPUT = "x:0", "Identity:0"

Pixels = NDArray[np.uint8]
Scores = NDArray[np.float32]


def cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode(data: bytes) -> Pixels:
    """Decode a JPEG at the reduced size that is still large enough, and resize it to ``SIDE`` x ``SIDE`` x 3."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (SIDE, SIDE))
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def load(path: Path | None = None, *, threads: int | None = None) -> Callable[[Pixels], Scores]:
    """Load the graph (by default the environment's) and return batch of pixels to batch of scores, warmed up."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads or cores())
    tf.config.threading.set_inter_op_parallelism_threads(2)
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString((path or Path(os.environ[VARIABLE])).read_bytes())
    whole = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(graph, name=""), [])
    function = whole.prune(INPUT, OUTPUT)

    def run(batch: Pixels) -> Scores:
        scores: Scores = function(tf.constant(batch)).numpy()
        return scores

    for size in (1, 2, 4, 8, 16, 32):
        for _ in range(2):
            run(np.zeros((size, SIDE, SIDE, 3), np.uint8))
    return run


def answer(scores: Scores) -> dict[str, Any]:
    """The best class of one image, as every rival answers."""
    best = int(scores.argmax())
    return {"index": best, "score": float(scores[best])}
