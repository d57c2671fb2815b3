"""A node that is told to stop leaves the registry first, finishes its work, and nobody notices."""

import asyncio
import json
import signal
import subprocess
from pathlib import Path

import aiohttp
import pytest

from infra.consul.agent import ConsulAgent
from infra.fleet import LocalFleet
from infra.load import choose
from smartclient import AsyncSmartClient

pytestmark = [pytest.mark.e2e, pytest.mark.tensorflow]


async def passing(curl: str, fleet: LocalFleet, service: str) -> list[str]:
    """Ids as plain curl sees them."""
    url = fleet.address.replace("consul://", "http://") + f"/v1/health/service/{service}?passing"
    process = await asyncio.create_subprocess_exec(curl, "-fsS", url, stdout=subprocess.PIPE)
    body, _ = await process.communicate()
    return [entry["Service"]["ID"] for entry in json.loads(body)]


@pytest.mark.consul
@pytest.mark.parametrize("kind", ["embedded", "real consul"])
async def test_a_drained_node_leaves_the_registry_before_it_stops_answering(
    kind: str, curl: str, digits_model: Path, consul_agent: ConsulAgent
) -> None:
    registry = "embedded" if kind == "embedded" else f"consul://{consul_agent.address}"
    service = "digits-drain"
    images = choose(digits_model / "samples", 40)
    with LocalFleet(registry=registry) as fleet:
        fleet.start_registry()
        for name in ("drain-1", "drain-2"):
            fleet.start_node(name, digits_model, "--name", service, "--check-interval", "1")
        nodes = {each.id: each for each in (await fleet.wait_passing(service, 2)).instances}
        assert await passing(curl, fleet, service) == ["drain-1", "drain-2"]

        stopping = asyncio.Event()
        failures: list[str] = []
        answered_by: list[str] = []

        async def load(client: AsyncSmartClient) -> None:
            while not stopping.is_set():
                for image in images:
                    try:
                        answered_by.append((await client.classify(image)).node)
                    except Exception as error:
                        failures.append(repr(error))

        async def straight(session: aiohttp.ClientSession) -> int:
            """Ask drain-1 itself, as a client with an old list would; 0 when nobody listens any more."""
            try:
                async with session.post(f"{nodes['drain-1'].url}/classify", data=images[0].read_bytes()) as reply:
                    return reply.status
            except aiohttp.ClientConnectionError:
                return 0

        async with AsyncSmartClient(service, registry=fleet.address) as client, aiohttp.ClientSession() as session:
            loads = [asyncio.create_task(load(client)) for _ in range(8)]
            while not {"drain-1", "drain-2"} <= set(answered_by):
                await asyncio.sleep(0.01)
            fleet.nodes["drain-1"].send(signal.SIGTERM)
            while "drain-1" in await passing(curl, fleet, service):
                await asyncio.sleep(0.02)
            assert await straight(session) == 200  # gone from the list, and still answering
            while fleet.nodes["drain-1"].running:
                await asyncio.sleep(0.02)
            after = len(answered_by)
            assert await straight(session) == 0
            while len(answered_by) < after + 100:
                await asyncio.sleep(0.01)
            stopping.set()
            await asyncio.gather(*loads)
        assert failures == []
        assert set(answered_by[after:]) == {"drain-2"}
        assert fleet.nodes.pop("drain-1").popen.returncode == 0
