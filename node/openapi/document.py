"""The document itself, OpenAPI 3.1, and the route that serves it.

What a status means is taken from ``errors``, where each family says it. A token is asked for where the node was told to
ask for one; the document says where that can be.
"""

import re
from typing import Any

import msgspec
from aiohttp import web

from node import errors
from node.intake import DEADLINE_HEADER
from node.load import HEADER
from node.openapi.oip import COUNT, TEXT, Schema, ref
from node.openapi.operations import JSON, OPERATIONS, Operation
from node.openapi.schemas import schemas

PATH = "/openapi.json"
_IN_BRACES = re.compile(r"{(\w+)}")
_FAMILIES = (
    errors.BadRequest,
    errors.Unauthorized,
    errors.Forbidden,
    errors.NotFound,
    errors.SlowBody,
    errors.TooLarge,
    errors.Unsupported,
    errors.BadImage,
    errors.InternalError,
    errors.Overloaded,
    errors.DeadlineExceeded,
)
_MEANING = {
    family.status: (family.__doc__ or "").splitlines()[0].replace(f" ({family.status})", "") for family in _FAMILIES
}
_PATH_PARAMETERS = {
    "model": {"description": "The model's name.", "example": "digits"},
    "version": {"description": "A version, by its number.", "example": "1"},
    "label": {"description": "A version, by one of its labels.", "example": "stable"},
}
# What a caller may say of itself, and what an answer to work says besides.
_DEADLINE: Schema = {
    "name": DEADLINE_HEADER,
    "in": "header",
    "schema": {"type": "number", "exclusiveMinimum": 0},
    "description": "Milliseconds the caller will still wait.",
    "example": 2000,
}
_SAID = {
    "Server-Timing": "Milliseconds in the queue, decoding, and in the model.",
    HEADER: "How busy the node is, in ORCA's text form.",
}


class Description:
    """The route ``/openapi.json``; ``version`` is the program's."""

    def __init__(self, version: str) -> None:
        self._body = msgspec.json.encode(document(version))

    def routes(self) -> list[web.RouteDef]:
        """See ``aiohttp.web``."""
        return [web.get(PATH, self._show)]

    async def _show(self, _: web.Request) -> web.Response:
        return web.Response(body=self._body, content_type=JSON)


def document(version: str) -> dict[str, Any]:
    """Return the whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "A Twostep node",
            "version": version,
            "description": "One machine that answers for its models: images, tensors, and what it says of itself.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": operation.method + re.sub(r"\W+", "_", operation.path),
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": {"200": _answer(operation)} | {str(status): _refusal(status) for status in operation.refused},
    }
    if parameters := _parameters(operation):
        said["parameters"] = parameters
    if operation.takes is not None:
        said["requestBody"] = {"content": operation.takes, "required": operation.needs_body}
    if operation.admin:
        said["security"] = [{"token": []}]
    elif 401 in operation.refused:
        said["security"] = [{}, {"token": []}]
    return said


def _parameters(operation: Operation) -> list[Schema]:
    found: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": TEXT, **_PATH_PARAMETERS[name]}
        for name in _IN_BRACES.findall(operation.path)
    ]
    found += [{"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()]
    found += [{"name": name, "in": "header", "schema": schema} for name, schema in operation.headers.items()]
    return [*found, _DEADLINE] if operation.work else found


def _answer(operation: Operation) -> Schema:
    answers = operation.answers
    content = {JSON: {"schema": ref(answers)}} if isinstance(answers, str) else answers
    said: Schema = {"description": "Done.", "content": content}
    if operation.work:
        said["headers"] = {name: {"schema": TEXT, "description": text} for name, text in _SAID.items()}
    return said


def _refusal(status: int) -> Schema:
    said: Schema = {"description": _MEANING[status], "content": {JSON: {"schema": ref("Error")}}}
    if status == 503:
        said["headers"] = {"Retry-After": {"schema": COUNT, "description": "Seconds; 0: another node, at once."}}
    return said
