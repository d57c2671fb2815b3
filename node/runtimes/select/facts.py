"""What a choice of a runtime depends on: the model, its samples, what is installed, the machine."""

import contextlib
import importlib.metadata
import platform
from pathlib import Path

from node.machine import cores
from node.models import ModelSource, digest
from node.runtimes import applications
from node.runtimes.select.samples import pictures_in

# Raised when what is stored of a choice changes its meaning.
_ENTRIES = 2
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "ai-edge-litert", "onnxruntime", "onnxruntime-gpu", "tf2onnx")


def home(source: ModelSource) -> Path | None:
    """Return the folder that a model's versions, or its bare file, are in; nothing for what is on no disk."""
    if source.kind == "application":
        return None
    parent = source.path.absolute().parent
    return parent.parent if parent.name.isdigit() else parent


def facts(source: ModelSource, samples: Path | None) -> dict[str, object]:
    """Return everything a choice depends on besides what was asked for; ``samples``: a folder of pictures."""
    installed = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return {
        "entries": _ENTRIES,
        "model": _identity(source),
        "preprocessing": source.preprocessing,
        "samples": _names_and_sizes(samples) if samples else [],
        "installed": installed,
        "machine": (cores(), _processor(), sorted(map(str, Path("/dev").glob("nvidia[0-9]*")))),
    }


def _identity(source: ModelSource) -> str:
    if source.kind != "application":
        return source.sha256 or digest(source.path)
    weights = Path(applications.parse(str(source.path)).weights)
    return f"{source.path} {digest(weights) if weights.is_file() else ''}"


def _names_and_sizes(folder: Path) -> list[tuple[str, int]]:
    """Tell sets of pictures apart without reading them, wherever the folder is mounted."""
    return [(each.relative_to(folder).as_posix(), each.stat().st_size) for each in pictures_in(folder)]


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
