"""Which engine runs what, and loading it: each is imported when it is wanted, for TensorFlow alone takes seconds."""

import importlib.util
from pathlib import Path

from node.errors import MissingExtra
from node.machine import cores
from node.models import ModelSource
from node.runtimes.base import Runtime
from node.runtimes.pieces import Lanes

# What a model's format is run by as it is.
_OWN = {"keras": "tensorflow", "saved_model": "tensorflow", "application": "tensorflow"}
# What converting to an engine's format and running it there needs, and the extra of ours that brings it.
_NEEDS = {"litert": (("ai_edge_litert",), "litert"), "onnx": (("onnxruntime", "tf2onnx"), "onnx")}
CONVERTED_TO = tuple(_NEEDS)
# What running a format as it is needs.
_ENGINES = {
    "tensorflow": ("tensorflow", "node"),
    "litert": ("ai_edge_litert", "litert"),
    "onnx": ("onnxruntime", "onnx"),
}

# Bytes of model files that lanes may read together, for each of them keeps weights of its own.
_LANES_BYTES = 512 * 1024 * 1024


def own_engine(kind: str) -> str:
    """Return the engine of a format: ``tensorflow`` runs ``keras``, ``onnx`` runs ``onnx``."""
    return _OWN.get(kind, kind)


def missing(engine: str) -> MissingExtra | None:
    """Return what is lacking, if anything is, to convert to ``engine``'s format and run that."""
    modules, extra = _NEEDS[engine]
    absent = next((each for each in modules if importlib.util.find_spec(each) is None), None)
    return None if absent is None else MissingExtra(absent, extra)


def ensure_installed(source: ModelSource) -> None:
    """Raise ``MissingExtra`` where the engine of a model's own format is not installed; nothing is imported."""
    module, extra = _ENGINES.get(own_engine(source.kind), ("", ""))
    if module and importlib.util.find_spec(module) is None:
        raise MissingExtra(module, extra)


def open_as_it_is(source: ModelSource) -> Runtime:
    """Load a model with the engine of its own format. Raises ``ModelError`` and ``MissingExtra``."""
    engine = own_engine(source.kind)
    if engine == "tensorflow":
        from node.runtimes.tensorflow import TensorFlowRuntime

        return TensorFlowRuntime(source.path, source.kind)
    if engine == "python":
        from node.runtimes.python import PythonRuntime

        return PythonRuntime(source.path)
    return open_file(engine, source.path)


def open_file(engine: str, path: Path) -> Runtime:
    """Load a file in the format of LiteRT or ONNX Runtime. Raises ``ModelError`` and ``MissingExtra``."""
    if engine == "litert":
        from node.runtimes.litert import LiteRTRuntime

        return LiteRTRuntime(path)
    from node.runtimes.onnx import OnnxRuntime

    return OnnxRuntime(path)


def open_lanes(engine: str, path: Path, runtime: Runtime, piece: int = 0) -> Lanes | None:
    """Put a lane for each core beside a runtime of the same file; None where that cannot be, or is too much."""
    count = cores()
    if engine != "litert" or count < 2 or count * path.stat().st_size > _LANES_BYTES:
        return None
    from node.runtimes.litert import LiteRTRuntime

    return Lanes(runtime, [LiteRTRuntime(path, threads=1) for _ in range(count)], piece)
