"""Schemas of the Open Inference Protocol and Triton's extensions.

Names and fields of the first part are those of the protocol's own document (open_inference_rest.yaml at
https://github.com/kserve/open-inference-protocol); fields of Triton's extensions are added, none is left out.
"""

from collections.abc import Sequence
from typing import Any

from node.tensors import DTYPES

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TRUTH: Schema = {"type": "boolean"}


def thing(fields: Schema, required: Sequence[str] = (), description: str = "") -> Schema:
    """Return the schema of an object."""
    schema: Schema = {"type": "object", "properties": fields}
    if required:
        schema["required"] = list(required)
    return schema | ({"description": description} if description else {})


def listed(items: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


_SHAPE = listed({"type": "integer"})
_DATATYPE: Schema = {"type": "string", "enum": list(DTYPES)}
_TENSOR: Schema = {"name": TEXT, "shape": _SHAPE, "datatype": TEXT, "parameters": ref("parameters")}
_DURATION = thing({"count": COUNT, "ns": COUNT}, ("count", "ns"), "How often, and how long in all (nanoseconds).")
_STAGES = ("compute_input", "compute_infer", "compute_output")
_OUTCOMES = ("success", "fail", "queue", *_STAGES, "cache_hit", "cache_miss")
_FIELD = thing({"name": TEXT, "data_type": TEXT, "dims": _SHAPE}, ("name", "data_type", "dims"))

SCHEMAS: Schema = {
    "metadata_server_response": thing(
        {"name": TEXT, "version": TEXT, "extensions": listed(TEXT)}, ("name", "version", "extensions")
    ),
    "metadata_server_error_response": ref("Error"),
    "metadata_model_response": thing(
        {
            "name": TEXT,
            "versions": listed(TEXT),
            "platform": TEXT,
            "inputs": listed(ref("metadata_tensor")),
            "outputs": listed(ref("metadata_tensor")),
        },
        ("name", "platform"),
    ),
    "metadata_tensor": thing(
        {"name": TEXT, "datatype": _DATATYPE, "shape": _SHAPE},
        ("name", "datatype", "shape"),
        "One input or output; the batch comes first, -1 is any size.",
    ),
    "metadata_model_error_response": ref("Error"),
    "inference_request": thing(
        {
            "id": TEXT,
            "parameters": ref("parameters"),
            "inputs": listed(ref("request_input")),
            "outputs": listed(ref("request_output")),
        },
        ("inputs",),
    ),
    "parameters": thing(
        {},
        (),
        "Of a request: timeout (microseconds), binary_data_output. Of an input: binary_data_size. Of an output: "
        "binary_data, classification (how many of the best classes to answer with).",
    ),
    "request_input": thing(
        _TENSOR | {"datatype": _DATATYPE, "data": ref("tensor_data")},
        ("name", "shape", "datatype", "data"),
        "One input. In the binary form parameters.binary_data_size stands for data.",
    ),
    "tensor_data": listed({"anyOf": [ref("tensor_data"), {"type": "number"}, TEXT, TRUTH]})
    | {"description": "The elements row by row, flat or nested."},
    "request_output": thing({"name": TEXT, "parameters": ref("parameters")}, ("name",)),
    "response_output": thing(_TENSOR | {"data": ref("tensor_data")}, ("name", "shape", "datatype", "data")),
    "inference_response": thing(
        {
            "model_name": TEXT,
            "model_version": TEXT,
            "id": TEXT,
            "parameters": ref("parameters"),
            "outputs": listed(ref("response_output")),
        },
        ("model_name", "outputs"),
    ),
    "inference_error_response": ref("Error"),
    "health_live": thing({"live": TRUTH}, ("live",)),
    "health_ready": thing({"ready": TRUTH}, ("ready",)),
    "model_ready": thing({"name": TEXT, "ready": TRUTH}, ("name", "ready")),
    "model_config": thing(
        {
            "name": TEXT,
            "platform": TEXT,
            "backend": TEXT,
            "max_batch_size": COUNT,
            "input": listed(_FIELD),
            "output": listed(_FIELD),
            "dynamic_batching": thing({}),
        },
        ("name", "max_batch_size", "input", "output"),
        "As Triton's model configuration has it; sizes without the batch.",
    ),
    "statistic_duration": _DURATION,
    "model_statistics": thing(
        {
            "model_stats": listed(
                thing(
                    {
                        "name": TEXT,
                        "version": TEXT,
                        "last_inference": COUNT,
                        "inference_count": COUNT,
                        "execution_count": COUNT,
                        "inference_stats": thing({key: ref("statistic_duration") for key in _OUTCOMES}, _OUTCOMES),
                        "batch_stats": listed(
                            thing(
                                {"batch_size": COUNT} | {key: ref("statistic_duration") for key in _STAGES},
                                ("batch_size", *_STAGES),
                            )
                        ),
                    },
                    ("name", "version", "inference_count", "execution_count", "inference_stats", "batch_stats"),
                )
            )
        },
        ("model_stats",),
        "What each version has done since it was loaded.",
    ),
    "repository_index_request": thing({"ready": TRUTH}, (), "ready: only versions that serve."),
    "repository_index": listed(
        thing({"name": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT}, ("name", "version", "state", "reason"))
    ),
    "repository_change": thing({"parameters": {"type": ["object", "null"]}}),
    "nothing": thing({}, (), "Done."),
}
