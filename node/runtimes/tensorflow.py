"""TensorFlow behind the ``Runtime`` protocol: a SavedModel folder or a ``.keras`` file, loaded once.

Whatever comes in is wrapped as one function from uint8 pixels to a row of scores and *frozen*: its variables become
constants of the graph, which on the CPU is a quarter faster than the signature and five times faster than
``model.predict``. The batch dimension stays free. Refused, in one line each: more than one input, encoded strings as
input, channels first, a fixed batch size, outputs that are not one row of scores.
"""

import contextlib
import functools
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from node.errors import MissingExtra, ModelError
from node.images import Pixels
from node.machine import cores
from node.runtimes.base import Scores, Signature

log = logging.getLogger(__name__)

_NOISE = re.compile(rb"^([IW]\d{4} |WARNING: All log messages before absl)")
_INPUTS = ("uint8", "float16", "float32", "float64", "int32")


@functools.cache
def tensorflow() -> tuple[Any, Any]:
    """Import TensorFlow and Keras (seconds), quietly, with threads and memory set; returns both modules.

    Raises ``MissingExtra``. Thread and memory settings hold only before the first operation, which is why everybody
    gets TensorFlow from here.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with _without_start_up_noise():
        try:
            import keras
            import tensorflow as tf
        except ImportError as error:
            raise MissingExtra(str(error.name or "tensorflow"), "node") from error
        try:
            tf.config.threading.set_intra_op_parallelism_threads(cores())
            # Batches come one after another; more than two operations at once only compete for the same cores.
            tf.config.threading.set_inter_op_parallelism_threads(2)
            for device in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(device, True)
        except RuntimeError as error:  # somebody used TensorFlow before us; it works all the same
            log.debug("TensorFlow's settings stay as they are: %s", error)
    return tf, keras


class TensorFlowRuntime:
    """A frozen function and what it takes."""

    name = "tensorflow"

    def __init__(self, path: Path, kind: str) -> None:
        """Load ``path``, a ``.keras`` file (kind ``keras``) or a SavedModel folder (``saved_model``); takes seconds.

        Raises ``ModelError``.
        """
        tf, keras = tensorflow()
        self._constant = tf.constant
        try:
            function, self.signature, self._loaded = (_keras if kind == "keras" else _saved_model)(tf, keras, path)
            spec = tf.TensorSpec([None, self.signature.height, self.signature.width, self.signature.channels], tf.uint8)
            concrete = tf.function(function).get_concrete_function(spec)
        except ModelError:
            raise
        except Exception as error:  # loaders raise whatever a foreign file provokes
            raise ModelError(f"{path} cannot be loaded: {_summary(error)}") from error
        self.frozen = False
        self._function: Callable[[Any], Any] = concrete
        try:
            self._function = _freeze(concrete)
            self.frozen, self._loaded = True, None
        except Exception as error:  # noqa: BLE001 - tables and other resources cannot be frozen; serve unfrozen
            log.warning("%s is served without freezing: %s", path, _summary(error))

    def run(self, batch: Pixels) -> Scores:
        """See ``Runtime``."""
        answer = self._function(self._constant(batch))
        scores = answer[0] if isinstance(answer, (list, tuple)) else answer
        return np.asarray(scores.numpy())

    def close(self) -> None:
        """See ``Runtime``."""
        self._loaded = None
        self._function = _closed

    def snapshot(self) -> dict[str, object]:
        """See ``Runtime``."""
        return {"runtime": self.name, "frozen": self.frozen, "input_dtype": self.signature.dtype}


def _keras(tf: Any, keras: Any, path: Path) -> tuple[Callable[[Any], Any], Signature, Any]:
    model = keras.saving.load_model(path, compile=False)
    inputs = list(getattr(model, "inputs", None) or [])
    if len(inputs) != 1:
        raise ModelError(
            f"{path} takes {len(inputs) or 'an unknown number of'} inputs; a node serves models of one image"
        )
    dtype = str(inputs[0].dtype)
    signature = _checked(path, tuple(inputs[0].shape), dtype)
    return lambda pixels: _scores(path, tf, model(tf.cast(pixels, dtype), training=False)), signature, model


def _saved_model(tf: Any, keras: Any, path: Path) -> tuple[Callable[[Any], Any], Signature, Any]:  # noqa: ARG001 - one form
    loaded = tf.saved_model.load(str(path))
    signatures = dict(loaded.signatures)
    call = signatures.get("serving_default") or next(iter(signatures.values()), None)
    if call is None:
        raise ModelError(f"{path} has no serving signature; export it again with model.export(...)")
    inputs = list(call.structured_input_signature[1].items())
    if len(inputs) != 1:
        raise ModelError(f"{path} takes {len(inputs)} inputs; a node serves models of one image")
    name, spec = inputs[0]
    shape = () if spec.shape.rank is None else tuple(spec.shape)
    signature = _checked(path, shape, spec.dtype.name)
    return lambda pixels: _scores(path, tf, call(**{name: tf.cast(pixels, spec.dtype)})), signature, loaded


def _checked(path: Path, shape: tuple[int | None, ...], dtype: str) -> Signature:
    if dtype not in _INPUTS:
        raise ModelError(f"{path} takes {dtype} input; a node serves models that take pixels ({', '.join(_INPUTS)})")
    if len(shape) != 4 or shape[3] not in (1, 3):
        raise ModelError(f"{path} takes input of shape {shape}; expected (batch, height, width, 1 or 3 channels)")
    if shape[0] is not None:
        raise ModelError(f"{path} has a fixed batch size of {shape[0]}; export it with a free batch dimension")
    return Signature(height=shape[1], width=shape[2], channels=shape[3], dtype=dtype)


def _scores(path: Path, tf: Any, answer: Any) -> Any:
    """Return the one output that is a row of scores for each image, as float32."""
    rows = [each for each in tf.nest.flatten(answer) if each.shape.rank == 2]
    if len(rows) != 1:
        shapes = ", ".join(str(tuple(each.shape)) for each in tf.nest.flatten(answer))
        raise ModelError(
            f"{path} gives outputs of shape {shapes}; a node serves models with one row of scores per image"
        )
    return tf.cast(rows[0], tf.float32)


def _freeze(concrete: Any) -> Any:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(concrete)


def _closed(_: Any) -> Any:
    raise ModelError("this model has been closed")


def _summary(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


@contextlib.contextmanager
def _without_start_up_noise() -> Iterator[None]:
    """Hold back what TensorFlow's C++ half writes to file descriptor 2 before its log level counts.

    Everything but its start-up information is written out afterwards.
    """
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, AttributeError, ValueError):  # no such descriptor here: nothing to hold back
        yield
        return
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            buffer.seek(0)
            for line in buffer:
                if not _NOISE.match(line):
                    os.write(2, line)
