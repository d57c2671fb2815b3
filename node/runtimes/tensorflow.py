"""TensorFlow behind the ``Runtime`` protocol: a SavedModel, a ``.keras`` file or a Keras application, loaded once.

Whatever comes in becomes one function of tensors, in the signature's order, and is *frozen*: its variables become
constants of the graph, which on the CPU is a quarter faster than the signature and five times faster than
``model.predict``. Names, types and number of inputs and outputs are the model's own; the batch dimension stays free.
Refused, in one line each: a fixed batch size, no batch dimension, no inputs, unknown rank, types the protocols have no
word for. Outputs without a batch dimension (a running mean, a version number) are left out.
"""

import functools
import gc
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.errors import MissingExtra, ModelError
from node.machine import cores
from node.runtimes import applications, quiet
from node.runtimes.base import Signature
from node.runtimes.reasons import summary
from node.tensors import Tensors, TensorSpec, datatype

log = logging.getLogger(__name__)

_NOISE = re.compile(rb"^([IW]\d{4} |WARNING: All log messages before absl)")


@functools.cache
def tensorflow() -> tuple[Any, Any]:
    """Import TensorFlow and Keras (seconds), quietly, with threads and memory set; returns both modules.

    Raises ``MissingExtra``. Thread and memory settings hold only before the first operation, which is why everybody
    gets TensorFlow from here.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with quiet.without(_NOISE):
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
    # A third of a million objects that stay for ever: without them a sweep of the collector, which holds the loop,
    # takes a tenth of the time (measured: 35 ms instead of 300).
    gc.freeze()
    return tf, keras


@dataclass(frozen=True, slots=True)
class Frozen:
    """A model as one function of tensors, in the signature's order, to a list of tensors, in the signature's order.

    ``concrete`` is the same as a ``ConcreteFunction``, for converters: its inputs are called ``input_0``, ``input_1``
    and stand in that order too. ``frozen``: no variables are left in it; else ``keep`` must live as long as it does.
    """

    function: Callable[..., list[Any]]
    concrete: Any
    signature: Signature
    frozen: bool
    keep: Any


class TensorFlowRuntime:
    """A frozen function and what it takes."""

    name = "tensorflow"

    def __init__(self, path: Path, kind: str) -> None:
        """Load ``path``, see ``freeze``; takes seconds. Raises ``ModelError``."""
        self._constant = tensorflow()[0].constant
        self._model: Frozen | None = freeze(path, kind)
        self.signature = self._model.signature
        self.frozen = self._model.frozen

    def run(self, inputs: Tensors) -> Tensors:
        """See ``Runtime``."""
        if self._model is None:
            raise ModelError("this model has been closed")
        answer = self._model.function(*(self._constant(inputs[spec.name]) for spec in self.signature.inputs))
        return {spec.name: each.numpy() for spec, each in zip(self.signature.outputs, answer, strict=True)}

    def close(self) -> None:
        """See ``Runtime``."""
        self._model = None

    def snapshot(self) -> dict[str, object]:
        """See ``Runtime``."""
        return {"runtime": self.name, "frozen": self.frozen}


def freeze(path: Path, kind: str) -> Frozen:
    """Load what ``path`` stands for as one frozen function; ``kind`` is that of ``models.ModelSource``.

    ``keras``: a ``.keras`` file; ``saved_model``: a folder; ``application``: a reference, see ``applications``. What
    cannot be frozen, such as look-up tables, is returned unfrozen with a warning. Raises ``ModelError``.
    """
    tf, keras = tensorflow()
    try:
        if kind == "saved_model":
            loaded = _saved_model(tf, path)
        elif kind == "application":
            loaded = _keras(keras, applications.build(keras, applications.parse(str(path))))
        else:
            loaded = _keras(keras, keras.saving.load_model(path, compile=False))
        inputs = _inputs(tf, path, loaded)
        concrete, outputs = _traced(tf, path, loaded, inputs)
    except ModelError:
        raise
    except Exception as error:  # loaders raise whatever a foreign file provokes
        raise ModelError(f"{path} cannot be loaded: {summary(error)}") from error
    signature = Signature(inputs=inputs, outputs=outputs)
    try:
        constant = _without_variables(concrete)
        if len(constant.inputs) == len(inputs):
            return Frozen(constant, constant, signature, frozen=True, keep=None)
        reason = "it has look-up tables or other resources"  # which have become inputs that nobody could fill
    except Exception as error:  # noqa: BLE001 - whatever stands in the way, the model can be served as it is
        reason = summary(error)
    log.warning("%s is served without freezing: %s", path, reason)
    return Frozen(concrete, concrete, signature, frozen=False, keep=loaded.keep)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model before tracing: what each input is called and is, and a call from their tensors, in that order."""

    inputs: list[tuple[str, Any, Any]]  # name, shape with its batch dimension (None: rank unknown), dtype
    call: Callable[[Sequence[Any]], Mapping[str, Any]]
    keep: Any


def _keras(keras: Any, model: Any) -> _Loaded:
    """A functional or sequential model; names are those of its layers, which, unlike the tensors', are in the file."""
    inputs = list(getattr(model, "inputs", None) or [])

    def call(tensors: Sequence[Any]) -> Mapping[str, Any]:
        structure = getattr(model, "input", inputs[0])  # a sequential model has no such structure, but one input
        answer = model(keras.tree.pack_sequence_as(structure, list(tensors)), training=False)
        if isinstance(answer, dict):
            return answer
        layers = getattr(model, "output_names", None) or [model.layers[-1].name]
        return dict(zip(_unique(layers), keras.tree.flatten(answer), strict=True))

    names = _unique(each.name for each in inputs)
    return _Loaded([(name, each.shape, each.dtype) for name, each in zip(names, inputs, strict=True)], call, model)


def _saved_model(tf: Any, path: Path) -> _Loaded:
    """The signature ``serving_default``, or else the first there is, under its own names."""
    loaded = tf.saved_model.load(str(path))
    signatures = dict(loaded.signatures)
    function = signatures.get("serving_default") or next(iter(signatures.values()), None)
    if function is None:
        raise ModelError(f"{path} has no serving signature; export it again with model.export(...)")
    specs = function.structured_input_signature[1]
    names = list(specs)

    def call(tensors: Sequence[Any]) -> Mapping[str, Any]:
        answer = function(**dict(zip(names, tensors, strict=True)))
        return {name: answer[name] for name in sorted(answer, key=_natural)}  # the file keeps no order of outputs

    return _Loaded([(name, spec.shape, spec.dtype) for name, spec in specs.items()], call, loaded)


def _inputs(tf: Any, path: Path, loaded: _Loaded) -> tuple[TensorSpec, ...]:
    if not loaded.inputs:
        raise ModelError(f"{path} says of no inputs what they are; export it as a SavedModel: model.export(...)")
    found = []
    for name, given, dtype in loaded.inputs:
        shape = tf.TensorShape(given)
        if shape.rank is None:
            raise ModelError(f"{path} takes {name} of unknown rank; export it with the shape said")
        if shape.rank == 0 or shape[0] is not None:
            fixed = "no batch dimension" if shape.rank == 0 else f"a fixed batch size of {shape[0]}"
            raise ModelError(f"{path} has {fixed} in {name}; export it with a free batch dimension")
        found.append(TensorSpec(name=name, datatype=_word(tf, path, name, dtype), shape=tuple(shape[1:])))
    return tuple(found)


def _traced(tf: Any, path: Path, loaded: _Loaded, inputs: tuple[TensorSpec, ...]) -> tuple[Any, tuple[TensorSpec, ...]]:
    """Return the model as a ``ConcreteFunction`` from tensors to a list of tensors, and what that list holds.

    A list, because of a dictionary freezing leaves nothing but tensors in the order of its sorted names.
    """
    outputs: list[TensorSpec] = []

    def flat(*tensors: Any) -> list[Any]:
        answer = loaded.call(tensors)
        kept = {name: each for name, each in answer.items() if each.shape.rank is None or _has_rows(each.shape)}
        outputs[:] = [_output(tf, path, name, each) for name, each in kept.items()]
        return list(kept.values())

    concrete = tf.function(flat, autograph=False).get_concrete_function(
        *(
            tf.TensorSpec([None, *spec.shape], tf.string if spec.datatype == "BYTES" else spec.dtype, f"input_{number}")
            for number, spec in enumerate(inputs)
        )
    )
    if not outputs:
        raise ModelError(f"{path} gives no output with one row for each input; export it with a free batch dimension")
    return concrete, tuple(outputs)


def _has_rows(shape: Any) -> bool:
    return shape.rank > 0 and shape[0] is None


def _output(tf: Any, path: Path, name: str, tensor: Any) -> TensorSpec:
    if tensor.shape.rank is None:
        raise ModelError(f"{path} gives {name} of unknown rank; export it with the shape said")
    return TensorSpec(name=name, datatype=_word(tf, path, name, tensor.dtype), shape=tuple(tensor.shape[1:]))


def _word(tf: Any, path: Path, name: str, dtype: Any) -> str:
    """Return the protocols' word for a TensorFlow type; its handles are objects to numpy too, but no bytes."""
    dtype = tf.as_dtype(dtype)
    word = (
        "BYTES"
        if dtype == tf.string
        else None
        if dtype in (tf.resource, tf.variant)
        else datatype(dtype.as_numpy_dtype)
    )
    if word is None:
        raise ModelError(
            f"{path} has {dtype.name} in {name}, which no protocol can carry; export it with a cast to float32"
        )
    return word


def _unique(names: Iterable[str]) -> list[str]:
    """Number the names that come again: dense, dense_1."""
    seen: list[str] = []
    for name in names:
        free = (each for each in (name, *(f"{name}_{number}" for number in range(1, 10_000))) if each not in seen)
        seen.append(next(free))
    return seen


def _natural(name: str) -> list[Any]:
    """Order names as people do: output_2 before output_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _without_variables(concrete: Any) -> Any:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(concrete)
