"""Schemas of the node's own interface and of TensorFlow Serving's.

Where the code has a type for what it answers, the schema is made of that type. Requests to TensorFlow Serving depend on
the model: what each takes stands in its ``/metadata``.
"""

from typing import Any

import msgspec

from node.load import Load
from node.openapi import oip
from node.openapi.oip import TEXT, Schema, listed, ref, thing
from node.protocols import admin, image
from node.protocols.tfserving import describe

_TYPES = (image.Answer, Load, admin.Drain, admin.Label, describe.Models, describe.ModelStatus, describe.ModelMetadata)

_ERROR = thing(
    {
        "error": TEXT | {"description": "One sentence, for people."},
        "reason": TEXT | {"description": "A word, for programs."},
        "node": TEXT,
        "wait_ms": {"type": "number", "description": "How long a request would have waited, where that was why."},
        "results": listed(ref("Result")) | {"description": "What was wrong with each image of a form."},
    },
    ("error", "reason", "node"),
    "Every refusal, of every protocol.",
)
_ANY: Schema = {}
_NAMED: Schema = {"type": "object", "additionalProperties": True}
_SIGNATURE = TEXT | {"description": "serving_default, or nothing."}

_TFSERVING: Schema = {
    "PredictRequest": {
        "type": "object",
        "properties": {
            "signature_name": _SIGNATURE,
            "instances": listed(_ANY) | {"minItems": 1},
            "inputs": {"anyOf": [listed(_ANY), _NAMED]},
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
        "description": "Rows (instances) or columns (inputs): values, or objects with the names of the model's inputs. "
        'Bytes, and whole image files for models that take pictures, are {"b64": …}.',
    },
    "PredictResponse": {
        "type": "object",
        "properties": {"predictions": listed(_ANY), "outputs": {"anyOf": [listed(_ANY), _NAMED]}},
        "description": "predictions for instances, outputs for inputs; an only output has no name. "
        "NaN, Infinity and -Infinity stand bare, which JSON proper does not have.",
    },
    "ExamplesRequest": {
        "type": "object",
        "properties": {
            "signature_name": _SIGNATURE,
            "context": _NAMED | {"description": "Features that all examples share."},
            "examples": listed(_NAMED) | {"minItems": 1},
        },
        "required": ["examples"],
        "description": "Features by name, each a value or a flat list; a picture also as image/encoded.",
    },
    "ClassifyResponse": thing(
        {"results": listed(listed(listed({"type": ["string", "number"]}) | {"minItems": 2, "maxItems": 2}))},
        ("results",),
        "For each example every label with its score.",
    ),
    "RegressResponse": thing({"results": listed({"type": "number"})}, ("results",), "One number for each example."),
}

_OWN: Schema = {
    "Error": _ERROR,
    "Alive": thing({"status": {"const": "alive"}}, ("status",)),
    "Health": thing(
        {
            "status": {"const": "alive"},
            "node": TEXT,
            "state": {"enum": ["starting", "loading", "warming", "ready", "draining", "stopped"]},
            "entered": {"type": "object", "additionalProperties": {"type": "number"}},
        },
        ("status", "node", "state", "entered"),
        "The node's state, and when it entered each (seconds since the epoch).",
    ),
    "Ready": thing({"status": {"const": "ready"}, "node": TEXT}, ("status", "node")),
    "State": _NAMED | {"description": "The node as it stands: state, what it holds, every model."},
    "Document": _NAMED | {"description": "This document."},
}


def schemas() -> dict[str, Any]:
    """Return every schema by its name."""
    _, made = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    return _OWN | made | _TFSERVING | oip.SCHEMAS
