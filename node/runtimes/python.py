"""A Python callable as a model: PyTorch, scikit-learn, or whatever else has no runtime of its own here.

The model folder, or a version folder in it, holds ``model.py`` with the inputs and outputs of one item, as (name,
datatype, shape) in the protocol's words (None: any size), and a function that loads it::

    import torch

    inputs = [("image", "FP32", (3, 224, 224))]
    outputs = [("scores", "FP32", (1000,))]

    def load(folder):
        net = torch.jit.load(folder / "net.pt").eval()

        def run(batch):  # {"image": float32 array (rows, 3, 224, 224)}
            with torch.inference_mode():
                return {"scores": net(torch.from_numpy(batch["image"])).numpy()}

        return run

``inputs`` and ``outputs`` may stand on the object that ``load`` returns instead, if only that knows; its ``close`` is
called in the end, if it has one. One array will do where there is one output. Pictures come as ``model.json`` beside it
says (scale, mean, layout). Other files of the folder are imported as ``from .net import Net``: modules belong to one
version, so versions coexist, and nothing of them is left behind. ``run`` is called from one thread at a time; the
arrays it gets are used again afterwards. The code runs with all rights of the node, so serve none you would not run.
"""

import importlib
import importlib.util
import itertools
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from node.errors import ModelError
from node.runtimes.base import Signature
from node.runtimes.reasons import summary
from node.tensors import DTYPES, Array, Tensors, TensorSpec, datatype, rows

log = logging.getLogger(__name__)

_numbers = itertools.count(1)
_EXAMPLE = 'write it like {} = [("image", "FP32", (3, 224, 224))], the batch dimension left out'


class PythonRuntime:
    """What a ``model.py`` loads, held to what it says of itself."""

    name = "python"

    def __init__(self, script: Path) -> None:
        """Import ``script``, a ``model.py``, and call its ``load``. Raises ``ModelError``."""
        self._script = script = script.absolute()  # the code may change the working directory, or read files later
        self._module = f"twostep_model_{next(_numbers)}"
        try:
            with _telling(script), _no_bytecode():
                module = _imported(self._module, script)
                load = getattr(module, "load", None)
                if not callable(load):
                    raise ModelError(f"{script} has no function load(folder) that returns the model")
                model = load(script.parent)
            self.signature = Signature(
                inputs=_specs(script, "inputs", model, module), outputs=_specs(script, "outputs", model, module)
            )
            if not callable(model):
                raise ModelError(f"load in {script} returns {type(model).__name__}, which cannot be called with arrays")
        except BaseException:
            self._forget()
            raise
        self._model: Callable[[dict[str, Array]], Any] | None = model

    def run(self, inputs: Tensors) -> Tensors:
        """See ``Runtime``; raises ``ModelError`` where the answer is none of ``outputs``, and what the code raises."""
        if self._model is None:
            raise ModelError("this model has been closed")
        answer = self._model(dict(inputs))
        outputs = self.signature.outputs
        if not isinstance(answer, Mapping):
            if len(outputs) > 1:
                raise ModelError(
                    f"{self._script} answers with {type(answer).__name__}, not a dict of {_names(outputs)}"
                )
            answer = {outputs[0].name: answer}
        if set(answer) != {spec.name for spec in outputs}:
            raise ModelError(f"{self._script} answers with {', '.join(map(str, answer))}, not with {_names(outputs)}")
        return {spec.name: self._checked(spec, answer[spec.name], inputs) for spec in outputs}

    def close(self) -> None:
        """See ``Runtime``."""
        model, self._model = self._model, None
        try:
            if callable(close := getattr(model, "close", None)):
                close()
        except Exception as error:  # noqa: BLE001 - it is on its way out, whatever it says
            log.warning("%s: closing it failed: %s", self._script, summary(error))
        self._forget()

    def snapshot(self) -> dict[str, object]:
        """See ``Runtime``."""
        return {"runtime": self.name, "script": str(self._script)}

    def _checked(self, spec: TensorSpec, answer: Any, inputs: Tensors) -> Array:
        # Numpy's own types for strings drop zero bytes at the end, and want one encoding for all.
        given = np.asarray(answer, object if spec.datatype == "BYTES" else None)
        array, count = _converted(spec, given), rows(inputs)
        if array is None or array.ndim == 0 or len(array) != count or not spec.fits(array.shape[1:]):
            raise ModelError(
                f"{self._script} answers {count} rows with {spec.name} of {given.dtype} {given.shape}; "
                f"it said {spec.datatype} {(count, *spec.shape)}"
            )
        # The caller may keep what it gets, and writes the next batch over the inputs.
        return array.copy() if any(np.may_share_memory(array, each) for each in inputs.values()) else array

    def _forget(self) -> None:
        for name in [each for each in sys.modules if each.partition(".")[0] == self._module]:
            del sys.modules[name]


def _imported(name: str, script: Path) -> ModuleType:
    """Import a file as a package of a name of its own, so that ``from .other import …`` finds its neighbours."""
    spec = importlib.util.spec_from_file_location(name, script, submodule_search_locations=[str(script.parent)])
    if spec is None or spec.loader is None:
        raise ModelError(f"{script} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def _telling(script: Path) -> Iterator[None]:
    """Turn whatever the code raises into one line with the place in its own files."""
    try:
        yield
    except ModelError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(f"{script} cannot be loaded: {_told(error, script.parent)}") from error


def _told(error: BaseException, folder: Path) -> str:
    text = f"{type(error).__name__}: {summary(error)}"
    if isinstance(error, ModuleNotFoundError) and error.name and (folder / f"{error.name}.py").is_file():
        text += f"; write: from .{error.name} import …"
    if isinstance(error, SyntaxError):
        place = f"{Path(error.filename or '').name}:{error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [each for each in frames if Path(each.filename).is_relative_to(folder)]
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    return f"{text} ({place})" if place else text


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Leave no ``__pycache__`` in a model folder, and find files that have just been written there."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _specs(script: Path, what: str, model: Any, module: ModuleType) -> tuple[TensorSpec, ...]:
    said = getattr(model, what, None)
    if said is None:
        said = getattr(module, what, None)
    try:
        specs = tuple(_spec(*each) for each in said or ())
    except (TypeError, ValueError) as error:
        raise ModelError(f"{what} in {script} cannot be read: {summary(error)}; {_EXAMPLE.format(what)}") from error
    if not specs or len({spec.name for spec in specs}) < len(specs):
        problem = "names one twice" if specs else "is missing"
        raise ModelError(f"{what} in {script} {problem}; {_EXAMPLE.format(what)}")
    return specs


def _spec(name: str, kind: Any, shape: Any) -> TensorSpec:
    word = kind if kind in DTYPES else datatype(kind)
    if word is None:
        raise ValueError(f"{kind!r} is none of {', '.join(DTYPES)}")
    sizes = tuple(None if size is None or int(size) < 0 else int(size) for size in shape)
    return TensorSpec(name=str(name), datatype=word, shape=sizes)


def _converted(spec: TensorSpec, array: Array) -> Array | None:
    """Return the array in the type that was announced where that loses nothing but precision; else None."""
    if spec.datatype == "BYTES":
        return _as_bytes(array)
    if array.dtype == spec.dtype:
        return array
    if not np.can_cast(array.dtype, spec.dtype, "same_kind"):
        return None
    converted = array.astype(spec.dtype)
    if array.dtype.kind in "iu" and not np.array_equal(converted, array):  # too large for it
        return None
    return converted


def _as_bytes(array: Array) -> Array | None:
    """Return an object array of bytes; text becomes UTF-8."""
    items = [each.encode() if isinstance(each, str) else each for each in array.ravel().tolist()]
    if not all(isinstance(each, bytes) for each in items):
        return None
    return np.array(items, object).reshape(array.shape)


def _names(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(spec.name for spec in specs)
