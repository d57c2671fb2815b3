"""Schemathesis over a running node: whatever its own document allows, and what it does not, costs no server error.

Requests are made from ``/openapi.json`` both ways, as the document has them and broken, the same ones in every run.
Each operation has a node of its own, for some of them take a model or the node out of service. Names in paths are
mostly the real ones, some bodies are in order, and most deadlines are generous: what leads nowhere tests nothing else.
"""

import asyncio
import threading
import zlib

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from node.config import NodeConfig
from node.intake import DEADLINE_HEADER
from node.openapi.document import document
from node.repository import Model
from node.server import NodeServer
from node.testing import ScriptedRuntime, write_model

EXAMPLES = 15
TOKEN = "s3cret-s3cret-s3cret"
REAL = {"model": "digits", "version": "1", "label": "stable"}
SOUND = {
    ":predict": {"instances": [[[[0]] * 8] * 8]},
    ":classify": {"examples": [{"pixels": [0] * 64}]},
    "/infer": {"inputs": [{"name": "pixels", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": [0] * 64}]},
    "/labels/{label}": {"version": "1"},
}
# Refusals that the document names, of requests that came at a bad moment.
BUSY = {(503, "overloaded"), (503, "draining"), (504, "deadline")}

schema = schemathesis.openapi.from_dict(document("test"))
schema.config.generation.update(modes=list(GenerationMode))


def chosen(given, parts):
    """True for one of so many, as the generated thing itself decides."""
    return zlib.crc32(repr(given).encode(errors="replace")) % parts == 0


@schema.hook
def map_path_parameters(context, path_parameters):
    """Lead four of five to what is there."""
    return {name: given if chosen(given, 5) else REAL[name] for name, given in (path_parameters or {}).items()}


@schema.hook
def map_headers(context, headers):
    """Leave four of five as much time as they need."""
    return {
        name: value if name != DEADLINE_HEADER or chosen(headers, 5) else "10000"
        for name, value in (headers or {}).items()
    }


@schema.hook
def map_body(context, body):
    """Make one of four a body that is in order, so that the rest of the request meets one."""
    sound = next((sound for end, sound in SOUND.items() if context.operation.path.endswith(end)), None)
    return sound if sound is not None and isinstance(body, dict) and chosen(body, 4) else body


class Running:
    """A node in a thread of its own."""

    def __init__(self, config):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.node = self.do(self._make(config))
        self.do(self.node.start())

    async def _make(self, config):
        return NodeServer(config, open=lambda _: ScriptedRuntime())

    def do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def stop(self):
        self.do(self.node.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def running(tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(TOKEN)
    tokens.chmod(0o600)
    config = NodeConfig(
        models=(Model(path=write_model(tmp_path / "digits")),),
        labels=(("digits", "stable", "1"),),
        port=0,
        register=False,
        drain_grace=0.01,
        admin_token_file=tokens,
    )
    server = Running(config)
    yield server.node
    server.stop()


@pytest.fixture
def http():
    with requests.Session() as session:
        yield session


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_no_request_is_a_server_error(case, running, http):
    reply = case.call(base_url=running.url, session=http, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10)
    if reply.status_code >= 500:
        assert (reply.status_code, reply.json()["reason"]) in BUSY, reply.text
    case.validate_response(
        reply,
        checks=[
            CHECKS.get_one("status_code_conformance"),
            CHECKS.get_one("content_type_conformance"),
            CHECKS.get_one("response_schema_conformance"),
        ],
    )
