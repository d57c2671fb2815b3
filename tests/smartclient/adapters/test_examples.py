"""The programs of ``docs/examples`` that use an HTTP library people know, run as a stranger would run them.

Their nodes are real servers in the test's process; the registry is a static list, and the embedded one.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from registry import Registration, connect
from registry.embedded import EmbeddedRegistry

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "docs" / "examples"
LENGTH = "Inference-Header-Content-Length"
CLASSIFIERS = ["aiohttp_client.py", "httpx_client.py", "requests_client.py"]


@pytest.fixture(params=["static", "embedded"])
async def registered(request, fleet, at) -> AsyncIterator[object]:
    """Start nodes and make them known: ``await registered(service, count, handler)`` gives them and the registry."""
    async with AsyncExitStack() as stack:

        async def register(service: str, count: int, handler: object = None) -> tuple[list[object], str]:
            nodes = await fleet(count, handler)
            if request.param == "static":
                return nodes, at(*nodes)
            registry = await stack.enter_async_context(EmbeddedRegistry())
            directory = connect(registry.url)
            for node in nodes:
                known = Registration(service=service, id=node.name, address="127.0.0.1", port=node.port)
                await directory.register(known)
            await directory.close()
            return nodes, registry.url

        yield register


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path in paths:
        path.write_bytes(b"png")
    return [str(path) for path in paths]


async def run(example: str, registry: str, *arguments: str) -> tuple[int | None, str, str]:
    """Run it with every warning shown, so that anything left open is seen on standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "always::ResourceWarning", str(EXAMPLES / example), *arguments),
        env={"TWOSTEP_REGISTRY": registry, "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode, out.decode(), err.decode()


class Sums:
    """An inference server with one model, ``sums``, which adds up the last axis of its FP32 input."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        if request.path in {"/v2/health/live", "/v2/health/ready", "/v2/models/sums/ready"}:
            return web.Response()
        if request.path == "/v2/models/sums":
            inputs = [{"name": "numbers", "datatype": "FP32", "shape": [-1, 2]}]
            outputs = [{"name": "sum", "datatype": "FP32", "shape": [-1]}]
            return web.json_response({"name": "sums", "platform": "test", "inputs": inputs, "outputs": outputs})
        if request.path == "/v2/models/sums/infer":
            return self._infer(await request.read(), int(request.headers[LENGTH]))
        return web.json_response({"error": f"nothing at {request.path}"}, status=404)

    @staticmethod
    def _infer(body: bytes, length: int) -> web.Response:
        [tensor] = json.loads(body[:length])["inputs"]
        sums = np.frombuffer(body[length:], "<f4").reshape(tensor["shape"]).sum(axis=-1)
        output = {"name": "sum", "datatype": "FP32", "shape": list(sums.shape)}
        output["parameters"] = {"binary_data_size": sums.nbytes}
        head = json.dumps({"model_name": "sums", "model_version": "1", "outputs": [output]}).encode()
        return web.Response(body=head + sums.tobytes(), headers={LENGTH: str(len(head))})


@pytest.mark.parametrize("example", CLASSIFIERS)
async def test_images_go_straight_to_the_nodes(example: str, registered, images: list[str]) -> None:
    nodes, registry = await registered("digits", 2)
    status, out, err = await run(example, registry, "digits", *images)
    assert (status, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[:2] for line in lines] == [[Path(image).name, "7"] for image in images]
    assert {line[2] for line in lines} == {"digits-1", "digits-2"}
    assert {each["Host"] for node in nodes for each in node.seen} == {"digits.service.consul"}


@pytest.mark.parametrize("example", CLASSIFIERS)
async def test_a_dead_node_costs_no_failed_image(example: str, registered, images: list[str]) -> None:
    nodes, registry = await registered("digits", 3)
    await nodes[0].stop()
    status, out, err = await run(example, registry, "digits", *images)
    assert (status, len(out.splitlines())) == (0, 6)
    assert "Traceback" not in err


@pytest.mark.parametrize("example", CLASSIFIERS)
async def test_nobody_there_is_told_in_a_line(example: str, fleet, at, images: list[str]) -> None:
    [node] = await fleet(1)
    await node.stop()
    status, out, err = await run(example, at(node), "digits", images[0])
    assert (status, out) == (1, "")
    last = err.splitlines()[-1]
    assert last.startswith(f"{example}: ")
    assert f"{node.address}: connection refused" in last
    assert "Traceback" not in err


@pytest.mark.parametrize("example", [*CLASSIFIERS, "tritonclient_client.py"])
async def test_usage(example: str) -> None:
    status, out, err = await run(example, "")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith(f"usage: {example} SERVICE")


@pytest.fixture
def arrays(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number}.npy" for number in range(4)]
    for number, path in enumerate(paths):
        np.save(path, np.array([[number, 1], [number, 2]], dtype=np.float32))
    return [str(path) for path in paths]


async def test_tritonclient_asks_each_time_another_node(registered, arrays: list[str]) -> None:
    nodes, registry = await registered("sums", 2, Sums())
    status, out, err = await run("tritonclient_client.py", registry, "sums", "sums", *arrays)
    assert (status, err) == (0, "")
    assert out.splitlines() == [f"{n}.npy\tsum\t[{n + 1}.0, {n + 2}.0]" for n in range(4)]
    assert all(node.seen for node in nodes)
    asked = nodes[0].handler.asked
    assert asked[:3] == ["GET /v2/health/live", "GET /v2/models/sums/ready", "GET /v2/models/sums"]
    assert asked[3:] == ["POST /v2/models/sums/infer"] * 4


async def test_tritonclient_does_not_notice_a_dead_node_nor_one_that_hangs_up(
    fleet, raw_server, cutting, at, arrays: list[str]
) -> None:
    nodes = await fleet(2, Sums())
    await nodes[0].stop()
    registry = at(*nodes, await raw_server(cutting))
    status, out, err = await run("tritonclient_client.py", registry, "sums", "sums", *arrays)
    assert (status, len(out.splitlines())) == (0, 4), err
    assert "Traceback" not in err


async def test_tritonclient_tells_a_servers_refusal(fleet, at, arrays: list[str]) -> None:
    nodes = await fleet(1, Sums())
    status, out, err = await run("tritonclient_client.py", at(*nodes), "sums", "other", *arrays)
    assert (status, out) == (1, "")
    assert "'other' is not ready at 'sums'" in err
