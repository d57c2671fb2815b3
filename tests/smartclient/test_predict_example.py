"""``docs/examples/predict.py``, run as a stranger would run it, against a server written to the protocol's letter."""

import asyncio
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

ROOT = Path(__file__).parents[2]
LENGTH = "Inference-Header-Content-Length"
METADATA = {"name": "sums", "versions": ["1"], "platform": "test", "inputs": [], "outputs": []}


class Sums:
    """Adds its FP32 inputs up along the last axis; ``asked`` lists the paths."""

    def __init__(self, *inputs: str) -> None:
        self.inputs = inputs
        self.asked: list[str] = []

    async def __call__(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        if request.method == "GET":
            inputs = [{"name": name, "datatype": "FP32", "shape": [-1, 2]} for name in self.inputs]
            return web.json_response(METADATA | {"inputs": inputs})
        body = await request.read()
        at = length = int(request.headers[LENGTH])
        outputs, binary = [], b""
        for tensor in json.loads(body[:length])["inputs"]:
            if tensor["name"] not in self.inputs:
                return web.json_response({"error": f"unexpected input {tensor['name']!r}"}, status=400)
            size = tensor["parameters"]["binary_data_size"]
            sums = np.frombuffer(body[at : at + size], "<f4").reshape(tensor["shape"]).sum(axis=-1)
            at += size
            shape, size = list(sums.shape), {"binary_data_size": sums.nbytes}
            outputs.append({"name": f"sum_{tensor['name']}", "datatype": "FP32", "shape": shape, "parameters": size})
            binary += sums.tobytes()
        head = json.dumps({"model_name": "sums", "model_version": "1", "outputs": outputs}).encode()
        return web.Response(body=head + binary, headers={LENGTH: str(len(head))})


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", np.array([[1, 2], [3, 4]], dtype=np.float32))
    np.save(tmp_path / "b.npy", np.array([[0.5, 0.5]], dtype=np.float32))
    return tmp_path


async def run(folder: Path, address: str, *arguments: str) -> tuple[int | None, str, str]:
    registry = {"TWOSTEP_REGISTRY": f"static://{address}", "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    example = str(ROOT / "docs" / "examples" / "predict.py")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, example, *arguments, cwd=folder, env=registry, stdout=pipe, stderr=pipe
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_one_array_goes_to_the_models_sole_input(fleet, arrays: Path) -> None:
    sums = Sums("pixels")
    [node] = await fleet(1, handler=sums)
    status, out, err = await run(arrays, node.address, "sums", "a.npy")
    assert (status, err) == (0, "")
    assert out.splitlines()[1:] == ["sum_pixels: float32[2]", "[3. 7.]"]
    assert out.startswith("sums on ")
    assert sums.asked == ["GET /v2/models/sums", "POST /v2/models/sums/infer"]


async def test_named_arrays_need_no_metadata(fleet, arrays: Path) -> None:
    sums = Sums("a", "b")
    [node] = await fleet(1, handler=sums)
    status, out, err = await run(arrays, node.address, "sums", "a=a.npy", "b=b.npy")
    assert (status, err) == (0, "")
    assert out.splitlines()[1:] == ["sum_a: float32[2]", "[3. 7.]", "sum_b: float32[1]", "[1.]"]
    assert sums.asked == ["POST /v2/models/sums/infer"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sums", "a.npy"], "model 'sums' has 2 inputs ('a', 'b'); give arrays by name"),
        (["sums", "c=a.npy"], "unexpected input 'c'"),
        (["sums", "nowhere.npy"], "nowhere.npy"),
        (["sums"], "usage: "),
    ],
)
async def test_a_mistake_is_told_in_one_line(fleet, arrays: Path, arguments: list[str], said: str) -> None:
    [node] = await fleet(1, handler=Sums("a", "b"))
    status, out, err = await run(arrays, node.address, *arguments)
    assert (status, out) == (1, "")
    assert said in err
    assert len(err.splitlines()) == 1
