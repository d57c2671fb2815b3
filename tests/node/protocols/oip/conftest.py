"""Nodes whose model gives back what it gets."""

import pytest

from node.config import NodeConfig
from node.repository import Model
from node.server import NodeServer
from tests.node.protocols.oip.echoing import Echo


@pytest.fixture
async def serve_echo(tmp_path):
    """Start nodes that serve ``echo``, with the datatypes given and options of ``NodeConfig``."""
    started = []

    async def start(*datatypes, **options):
        file = tmp_path / "echo.keras"
        file.write_bytes(b"not a model")
        settings = {"models": (Model(path=file),), "port": 0, "id": "echo-1", "register": False} | options
        node = NodeServer(NodeConfig(**settings), open=lambda _: Echo(*datatypes))
        started.append(node)
        await node.start()
        return node

    yield start
    for node in started:
        await node.stop()
