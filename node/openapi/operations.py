"""Every operation of a node, as data: where it is, what it takes, what it answers, how it can be refused.

``tests/node/test_openapi.py`` holds this table against the routes of the application, in both directions.
"""

from typing import Any

import msgspec

from node.openapi.oip import TEXT, Schema, ref

JSON = "application/json"
BINARY = "application/octet-stream"
_FILE: Schema = {"type": "string", "format": "binary"}

# How work, a look at a model, and steering can be refused; errors.py says what each means.
READING = (401, 404, 503)
WORK = (400, 401, 404, 408, 413, 415, 500, 503, 504)
STEERING = (400, 401, 403, 404, 408, 413, 415)


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path.

    ``answers``: schema, or content type and schema, of a 200. ``takes``: content by type. ``parameters``: of the query
    and headers, by name; those of the path follow from it.
    """

    method: str
    path: str
    tag: str
    summary: str
    answers: str | dict[str, Any]
    takes: dict[str, Any] | None = None
    needs_body: bool = True
    query: dict[str, Schema] = {}
    headers: dict[str, Schema] = {}
    refused: tuple[int, ...] = ()
    admin: bool = False
    work: bool = False


def _get(path: str, tag: str, summary: str, answers: str | dict[str, Any], **more: Any) -> Operation:
    return Operation(method="get", path=path, tag=tag, summary=summary, answers=answers, **more)


def _post(path: str, tag: str, summary: str, answers: str | dict[str, Any], **more: Any) -> Operation:
    return Operation(method="post", path=path, tag=tag, summary=summary, answers=answers, **more)


def _work(path: str, tag: str, summary: str, answers: str | dict[str, Any], takes: Schema, **more: Any) -> Operation:
    return _post(path, tag, summary, answers, takes=takes, work=True, **({"refused": WORK} | more))


_MODEL = {"model": TEXT | {"description": "Which model; the node's first when left out."}}
_JSON_LENGTH = {"Inference-Header-Content-Length": {"type": "integer", "minimum": 0}}

OWN = (
    _work(
        "/classify",
        "images",
        "Classify one image, or the images of a form",
        "Answer",
        {
            BINARY: {"schema": _FILE},
            "image/*": {"schema": _FILE},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "array", "items": _FILE}}}
            },
        },
        query=_MODEL
        | {
            "version": TEXT | {"description": "Which version; the newest when left out."},
            "top": {"type": "integer", "minimum": 1, "maximum": 100, "default": 5},
        },
        refused=(*WORK, 422),
    ),
    _get("/healthz", "node", "Whether the process answers", "Health"),
    _get("/readyz", "node", "Whether it may take traffic", "Ready", refused=(503,)),
    _get("/load", "node", "How busy it is", "Load", query=_MODEL, refused=(404, 503)),
    _get("/metrics", "node", "Metrics in Prometheus' text format", {"text/plain": {"schema": TEXT}}),
    _get("/openapi.json", "node", "This document", "Document"),
    _get("/admin/state", "steering", "Everything about the node", "State", refused=(401, 403), admin=True),
    _post(
        "/admin/drain",
        "steering",
        "Leave the registry, then refuse work; the process stays",
        "State",
        takes={JSON: {"schema": ref("Drain")}},
        needs_body=False,
        refused=STEERING,
        admin=True,
    ),
    _post("/admin/undrain", "steering", "Come back into service", "State", refused=STEERING, admin=True),
    Operation(
        method="put",
        path="/admin/models/{model}/labels/{label}",
        tag="steering",
        summary="Point a label at a loaded version",
        answers="State",
        takes={JSON: {"schema": ref("Label")}},
        refused=(*STEERING, 503),
        admin=True,
    ),
    Operation(
        method="delete",
        path="/admin/models/{model}/labels/{label}",
        tag="steering",
        summary="Take a label away",
        answers="State",
        refused=STEERING,
        admin=True,
    ),
)


def _tfserving(which: str) -> tuple[Operation, ...]:
    model, tag = "/v1/models/{model}" + which, "TensorFlow Serving"
    predict, examples = ({JSON: {"schema": ref(name)}} for name in ("PredictRequest", "ExamplesRequest"))
    return (
        _get(model, tag, "How the versions of a model fare", "ModelStatus", refused=(401, 404)),
        _get(f"{model}/metadata", tag, "What a model takes and gives", "ModelMetadata", refused=READING),
        _work(f"{model}:predict", tag, "Run a model", "PredictResponse", predict),
        _work(f"{model}:classify", tag, "Score labels for examples", "ClassifyResponse", examples),
        _work(f"{model}:regress", tag, "Get a number for each example", "RegressResponse", examples),
    )


TFSERVING = (
    _get("/", "TensorFlow Serving", "Whether there is a server (KServe V1)", "Alive"),
    _get("/v1/models", "TensorFlow Serving", "The models there are (KServe V1)", "Models", refused=(401,)),
    *(operation for which in ("", "/versions/{version}", "/labels/{label}") for operation in _tfserving(which)),
)


def _oip(which: str) -> tuple[Operation, ...]:
    model, tag = "/v2/models/{model}" + which, "Open Inference Protocol"
    return (
        _get(model, tag, "Model metadata", "metadata_model_response", refused=READING),
        _get(f"{model}/ready", tag, "Whether a model is ready", "model_ready", refused=READING),
        _get(f"{model}/config", tag, "Model configuration, as Triton's", "model_config", refused=READING),
        _get(f"{model}/stats", tag, "What a model has done", "model_statistics", refused=READING),
        _work(
            f"{model}/infer",
            tag,
            "Inference",
            {JSON: {"schema": ref("inference_response")}, BINARY: {"schema": _FILE}},
            {JSON: {"schema": ref("inference_request")}, BINARY: {"schema": _FILE}},
            headers=_JSON_LENGTH,
        ),
    )


OIP = (
    *(_get(path, "Open Inference Protocol", "Server metadata", "metadata_server_response") for path in ("/v2", "/v2/")),
    _get("/v2/health/live", "Open Inference Protocol", "Whether the server is live", "health_live"),
    _get("/v2/health/ready", "Open Inference Protocol", "Whether it is ready", "health_ready", refused=(503,)),
    _get(
        "/v2/models/stats", "Open Inference Protocol", "What all models have done", "model_statistics", refused=(401,)
    ),
    *(operation for which in ("", "/versions/{version}") for operation in _oip(which)),
    _post(
        "/v2/repository/index",
        "model repository",
        "The models and the condition of each version",
        "repository_index",
        takes={JSON: {"schema": ref("repository_index_request")}},
        needs_body=False,
        refused=(400, 401, 408, 413, 415),
    ),
    *(
        _post(
            f"/v2/repository/models/{{model}}/{verb}",
            "model repository",
            summary,
            "nothing",
            takes={JSON: {"schema": ref("repository_change")}},
            needs_body=False,
            refused=(400, 401, 403, 404, 408, 413, 415, 503),
            admin=True,
        )
        for verb, summary in (
            ("load", "Bring a model to what is wanted of it, new versions included"),
            ("unload", "Take a model out of service"),
        )
    ),
)

OPERATIONS = (*OWN, *TFSERVING, *OIP)
