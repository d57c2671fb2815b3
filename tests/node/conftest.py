"""A node with a fake model, ready in milliseconds."""

import asyncio
import io

import aiohttp
import numpy as np
import pytest
from PIL import Image

from node.config import NodeConfig
from node.images import encode_png
from node.repository import Model
from node.server import NodeServer
from node.testing import ScriptedRuntime, write_model
from registry.testing import ScriptedDirectory


@pytest.fixture
def model(tmp_path):
    """A model folder the scripted runtime goes with."""
    return write_model(tmp_path / "digits")


@pytest.fixture
def runtime():
    fake = ScriptedRuntime()
    yield fake
    fake.gate.set()


@pytest.fixture
def directory():
    return ScriptedDirectory()


@pytest.fixture
async def make_node(model, runtime, directory):
    """Make nodes with options of ``NodeConfig``; they are stopped in the end."""
    made = []

    def make(**options):
        settings = {"models": (Model(path=model),), "port": 0, "id": "digits-a1b2", "drain_grace": 0.05} | options
        config = NodeConfig(**settings)
        node = NodeServer(config, open=lambda _: runtime, directory=directory if config.register else None)
        made.append(node)
        return node

    yield make
    runtime.gate.set()
    for node in made:
        await node.stop()


@pytest.fixture
async def node(make_node):
    """A ready, registered node."""
    server = make_node()
    await server.start()
    return server


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as client:
        yield client


@pytest.fixture
def png():
    """Return a grey PNG; the scripted runtime calls it ``level // 26``."""

    def make(level=30):
        return encode_png(np.full((8, 8, 1), level, np.uint8))

    return make


@pytest.fixture
def photo():
    """A JPEG too large to be decoded in place."""
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(noise).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def queued():
    """How many items wait in a node's queues."""
    return lambda node: sum(served.batcher.depth for served in node.repository.serving())


@pytest.fixture
def until():
    """Wait for something to become true."""

    async def wait(condition):
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.002)

    return wait
