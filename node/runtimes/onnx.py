"""ONNX Runtime behind the ``Runtime`` protocol: an ``.onnx`` file, on CUDA where this build has it, or the CPU.

Its threads do not spin while they wait: spinning makes a lone request a tenth faster, takes 30 ms of the cores after
each, and halves the speed where decoding wants the cores as well (MobileNetV2, 2 cores). Its arena is kept: without
it, batches of 8 and more take nearly twice as long. Names, order and types are the file's own; a file whose batch is
fixed at one is run row by row.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from node.errors import BadRequest, MissingExtra, ModelError
from node.machine import cores
from node.runtimes.pieces import in_pieces
from node.runtimes.ports import Port, Ports
from node.runtimes.reasons import summary
from node.tensors import Array, Tensors, rows

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_ERRORS_ONLY = 3
# https://onnx.ai/onnx/repo-docs/IR.html, "Tensor Element Types", as ONNX Runtime writes them.
_WORDS = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class OnnxRuntime:
    """A session and what it takes."""

    name = "onnx"

    def __init__(self, path: Path) -> None:
        """Load a file. Raises ``ModelError``, and ``MissingExtra`` without the package."""
        # Official builds since 1.29 report every session to their makers; what a node serves is its owner's affair.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("onnxruntime", "onnx") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _ERRORS_ONLY
        available = onnxruntime.get_available_providers()
        try:
            self._session: Any = onnxruntime.InferenceSession(
                path, options, providers=[each for each in _PROVIDERS if each in available]
            )
        except Exception as error:  # its errors share no root
            raise ModelError(f"{path} cannot be loaded: {summary(error)}") from error
        self._path = path
        self._ports = Ports(path, _ports(self._session.get_inputs()), _ports(self._session.get_outputs()))
        self.signature = self._ports.signature
        self._strings = {each.name for each in self.signature.inputs if each.datatype == "BYTES"}

    def run(self, inputs: Tensors) -> Tensors:
        """See ``Runtime``. Raises ``BadRequest`` for bytes that are no UTF-8, which is what ONNX's strings are."""
        return in_pieces(self._run, inputs, 1) if self._ports.row_by_row else self._run(inputs)

    def close(self) -> None:
        """See ``Runtime``."""
        self._session = None

    def snapshot(self) -> dict[str, object]:
        """See ``Runtime``."""
        providers = self._session.get_providers() if self._session else []
        return {
            "runtime": self.name,
            "threads": cores(),
            "providers": providers,
            "row_by_row": self._ports.row_by_row,
        }

    def _run(self, inputs: Tensors) -> Tensors:
        if self._session is None:
            raise ModelError(f"{self._path} has been closed")
        fed = {
            each.name: _text(each.name, inputs[each.name]) if each.name in self._strings else inputs[each.name]
            for each in self.signature.inputs
        }
        given = self._session.run([each.name for each in self.signature.outputs], fed)
        count = rows(inputs)
        return {
            each.name: self._ports.as_rows(each.name, _bytes(array) if each.datatype == "BYTES" else array, count)
            for each, array in zip(self.signature.outputs, given, strict=True)
        }


def _ports(found: list[Any]) -> list[Port]:
    return [
        Port(
            name=each.name,
            # A free size is a name, or nothing.
            shape=tuple(size if isinstance(size, int) else None for size in each.shape),
            datatype=_WORDS.get(each.type),
            foreign=each.type,
        )
        for each in found
    ]


def _text(name: str, array: Array) -> Array:
    try:
        return _each(array, lambda item: item.decode())
    except UnicodeDecodeError as error:
        raise BadRequest(f"input {name} holds bytes that are no UTF-8 text") from error


def _bytes(array: Array) -> Array:
    return _each(array, lambda item: item.encode())


def _each(array: Array, change: Callable[[Any], object]) -> Array:
    changed = np.empty(array.size, np.object_)
    changed[:] = [change(item) for item in array.flat]
    return changed.reshape(array.shape)
