"""KServe's own client, V1 and V2, against a node; it lives in an environment of its own, see ``kserve.txt``."""

import asyncio
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def kserve(environment):
    return environment(HERE / "kserve.txt")


@pytest.mark.timeout(960)  # installing it the first time
async def test_everything_its_client_can_ask(kserve, node, serve_echo):
    echo = await serve_echo("FP32")
    script = await asyncio.create_subprocess_exec(
        str(kserve),
        str(HERE / "kserve_calls.py"),
        node.url,
        echo.url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(script.communicate(), 120)
    assert script.returncode == 0, said.decode()
