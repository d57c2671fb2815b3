"""A frozen TensorFlow function as a LiteRT or an ONNX file, with its own names, order and types, the batch left free.

int8 is full-integer quantisation of weights and activations (B. Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018) with inputs and outputs as they were. A softmax
stays in float: in eight bits its smallest step is 1/256, too coarse for the scores of a thousand classes. Converters
are loud and keep what memory they have taken, so this belongs in a process of its own (``select.trial``).
"""

from collections.abc import Iterator
from typing import Any

from node.errors import MissingExtra, ModelError
from node.runtimes.tensorflow import Frozen, tensorflow
from node.tensors import Tensors, rows

_OPSET = 17  # LayerNormalization came with it; ONNX Runtime knows it since 1.12
_SIGNATURE = "serving_default"
_KEPT_IN_FLOAT = ["SOFTMAX"]


def to_litert(model: Frozen, calibration: Tensors | None = None) -> bytes:
    """Return the model as a ``.tflite`` file, in int8 where there are inputs to calibrate with.

    Raises ``ModelError`` for what cannot be frozen, and whatever the converter raises.
    """
    _must_be_frozen(model)
    converter = tensorflow()[0].lite.TFLiteConverter
    if calibration is None:
        return _with_names(converter.from_concrete_functions([model.concrete]).convert(), model)
    return _with_names(_int8(model, calibration), model)


def to_onnx(model: Frozen) -> bytes:
    """Return the model as an ``.onnx`` file. Raises ``ModelError``, ``MissingExtra``, and what the converter raises."""
    _must_be_frozen(model)
    tensorflow()  # before tf2onnx imports it, unprepared
    try:
        from tf2onnx import convert
    except ImportError as error:
        raise MissingExtra("tf2onnx", "onnx") from error
    concrete, signature = model.concrete, model.signature
    inputs, outputs = [each.name for each in concrete.inputs], [each.name for each in concrete.outputs]
    made, _ = convert.from_graph_def(
        concrete.graph.as_graph_def(), input_names=inputs, output_names=outputs, opset=_OPSET
    )
    names = dict(zip(inputs, (each.name for each in signature.inputs), strict=True))
    names |= dict(zip(outputs, (each.name for each in signature.outputs), strict=True))
    _rename(made.graph, names)
    return bytes(made.SerializeToString())


def _must_be_frozen(model: Frozen) -> None:
    if not model.frozen:
        raise ModelError("it cannot be frozen: it has look-up tables or other resources")


def _int8(model: Frozen, calibration: Tensors) -> bytes:
    tf = tensorflow()[0]
    names = [spec.name for spec in model.signature.inputs]

    def one_by_one() -> Iterator[list[Any]]:
        for row in range(rows(calibration)):
            yield [calibration[name][row : row + 1] for name in names]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([model.concrete])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = one_by_one
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=_KEPT_IN_FLOAT)
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=one_by_one, debug_options=options
    )
    return bytes(debugger.get_nondebug_quantized_model())


def _with_names(content: bytes, model: Frozen) -> bytes:
    """Name the file's tensors, and add a signature that says the same: the converter has names of its own."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    whole = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    graph = whole.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = _SIGNATURE, 0
    signature.inputs = _tensor_maps(schema, graph, graph.inputs, model.signature.inputs)
    signature.outputs = _tensor_maps(schema, graph, graph.outputs, model.signature.outputs)
    whole.signatureDefs = [signature]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(whole))


def _tensor_maps(schema: Any, graph: Any, tensors: Any, specs: Any) -> list[Any]:
    maps = []
    for index, spec in zip(tensors, specs, strict=True):
        graph.tensors[index].name = spec.name
        each = schema.TensorMapT()
        each.name, each.tensorIndex = spec.name, int(index)
        maps.append(each)
    return maps


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Give tensors of an ONNX graph other names, also where the bodies of its loops and branches use them."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for uses in (node.input, node.output):
            uses[:] = [names.get(each, each) for each in uses]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, names)
