"""LiteRT (TensorFlow Lite) behind the ``Runtime`` protocol: a ``.tflite`` file on the CPU, through XNNPACK.

One interpreter for all batch sizes: a change of size costs 0.1 ms once the arena has grown to the largest (MobileNetV2,
float32 and int8); an interpreter for each size would pack the weights again each time (40 MB and more). Inputs are
copied in, 1 ms of 80 for 32 images; outputs are copied out; the GIL is free while it computes.

Names are those of the file's signature, else those of its tensors; order and types are the file's own, quantised ones
included. A file whose batch is fixed at one is run row by row. The file is read, not mapped, so that overwriting it in
place cannot end the process.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from node.errors import MissingExtra, ModelError
from node.machine import cores
from node.runtimes.pieces import in_pieces
from node.runtimes.ports import Port, Ports
from node.runtimes.quiet import without
from node.runtimes.reasons import summary
from node.tensors import Tensors, datatype, rows

_NOISE = re.compile(rb"^INFO: ")
_SIGNATURE = "serving_default"


class LiteRTRuntime:
    """An interpreter, the tensors of its inputs and outputs by name, and the shapes it is set to at present."""

    name = "litert"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Load a file, to run on as many threads as there are cores, or as are asked for.

        Raises ``ModelError``, and ``MissingExtra`` without the package.
        """
        self._threads = threads or cores()
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MissingExtra("ai_edge_litert", "litert") from error
        try:
            content = path.read_bytes()
            with without(_NOISE):  # C++ tells of its delegate, once in a process
                interpreter: Any = Interpreter(model_content=content, num_threads=self._threads)
                if all((each["shape_signature"][1:] > 0).all() for each in interpreter.get_input_details()):
                    interpreter.allocate_tensors()  # fails on what cannot run; free sizes come with a batch
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{path} cannot be loaded: {summary(error)}") from error
        self._path = path
        self._interpreter = interpreter
        inputs, outputs = _named(interpreter)
        self._ports = Ports(path, _ports(inputs), _ports(outputs))
        self.signature = self._ports.signature
        self._inputs = {name: details["index"] for name, details in inputs.items()}
        self._outputs = {spec.name: outputs[spec.name]["index"] for spec in self.signature.outputs}
        self._set_to: dict[str, tuple[int, ...]] = {}

    def run(self, inputs: Tensors) -> Tensors:
        """See ``Runtime``."""
        return in_pieces(self._run, inputs, 1) if self._ports.row_by_row else self._run(inputs)

    def close(self) -> None:
        """See ``Runtime``."""
        self._interpreter = None

    def snapshot(self) -> dict[str, object]:
        """See ``Runtime``."""
        return {"runtime": self.name, "threads": self._threads, "row_by_row": self._ports.row_by_row}

    def _run(self, inputs: Tensors) -> Tensors:
        interpreter = self._interpreter
        if interpreter is None:
            raise ModelError(f"{self._path} has been closed")
        shapes = {name: inputs[name].shape for name in self._inputs}
        if shapes != self._set_to:
            self._resize(shapes)
        for name, index in self._inputs.items():
            interpreter.set_tensor(index, inputs[name])
        interpreter.invoke()
        count = rows(inputs)
        return {
            name: self._ports.as_rows(name, interpreter.get_tensor(index), count)
            for name, index in self._outputs.items()
        }

    def _resize(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._set_to = {}  # should this fail half-way, nothing is to be relied on
        for name, shape in shapes.items():
            self._interpreter.resize_tensor_input(self._inputs[name], shape)
        self._interpreter.allocate_tensors()
        self._set_to = shapes


def _named(interpreter: Any) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return the details of inputs and outputs by name, in the file's order."""
    ports = (interpreter.get_input_details(), interpreter.get_output_details())
    names = [{each["index"]: each["name"] for each in port} for port in ports]
    signatures = interpreter.get_signature_list()
    if signatures:
        runner = interpreter.get_signature_runner(_SIGNATURE if _SIGNATURE in signatures else next(iter(signatures)))
        signed = [
            {each["index"]: name for name, each in port.items()}
            for port in (runner.get_input_details(), runner.get_output_details())
        ]
        if [set(each) for each in signed] == [set(each) for each in names]:  # else it is of another part of the file
            names = signed
    inputs, outputs = ({known[each["index"]]: each for each in port} for port, known in zip(ports, names, strict=True))
    return inputs, outputs


def _ports(named: dict[str, dict[str, Any]]) -> list[Port]:
    return [
        Port(
            name=name,
            shape=tuple(None if size < 0 else int(size) for size in details["shape_signature"]),
            # Strings have a numpy type of their own here.
            datatype="BYTES" if details["dtype"] is np.bytes_ else datatype(details["dtype"]),
            foreign=getattr(details["dtype"], "__name__", str(details["dtype"])),
        )
        for name, details in named.items()
    ]
