"""The document at ``/openapi.json``: it names every route, no other, and means what it says."""

import jsonschema_rs
import pytest

from node.openapi.document import document
from node.openapi.operations import OPERATIONS


@pytest.fixture(scope="module")
def described():
    return document("1.2.3")


async def test_every_route_is_in_the_document_and_the_other_way_round(node):
    routes = {
        (route.method.lower(), route.resource.canonical)
        for route in node._runner.app.router.routes()
        if route.method != "HEAD"
    }
    assert routes == {(each.method, each.path) for each in OPERATIONS}


async def test_a_node_serves_the_document(node, session, described):
    async with session.get(f"{node.url}/openapi.json") as reply:
        assert reply.status == 200
        assert reply.content_type == "application/json"
        served = await reply.json()
    assert served["paths"] == described["paths"]
    assert served["components"] == described["components"]


def references(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from [inner] if key == "$ref" else references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_leads_to_a_schema_that_is_one(described):
    components = described["components"]
    named = {reference.removeprefix("#/components/schemas/") for reference in references(described)}
    assert named <= set(components["schemas"])
    for schema in components["schemas"].values():
        jsonschema_rs.validator_for({**schema, "components": components})


def test_the_names_of_the_open_inference_protocol_are_kept(described):
    """The schemas of its own document, open_inference_rest.yaml, and their required fields."""
    official = {
        "metadata_server_response": {"name", "version", "extensions"},
        "metadata_server_error_response": {"error"},
        "metadata_model_response": {"name", "platform"},
        "metadata_tensor": {"name", "datatype", "shape"},
        "metadata_model_error_response": {"error"},
        "inference_request": {"inputs"},
        "parameters": set(),
        "request_input": {"name", "shape", "datatype", "data"},
        "tensor_data": set(),
        "request_output": {"name"},
        "response_output": {"name", "shape", "datatype", "data"},
        "inference_response": {"model_name", "outputs"},
        "inference_error_response": set(),
    }
    schemas = described["components"]["schemas"]
    for name, required in official.items():
        schema = schemas[name]
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        assert required <= set(schema.get("required", ())), name


def test_operations_have_names_of_their_own(described):
    ids = [operation["operationId"] for path in described["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids)) == len(OPERATIONS)
