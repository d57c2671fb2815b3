"""The clients over look-up services: they go on when one is gone, and when all are."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from registry.lookup.service import LookupService
from registry.testing import ScriptedDirectory, instance
from smartclient import AsyncSmartClient, SmartClient


@asynccontextmanager
async def node(name):
    async def handle(request):
        return web.Response(text=name)

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


class Services:
    """Two look-up services over one scripted registry, and three nodes, of which it names the first ``count``."""

    def __init__(self, ports):
        self._ports = ports
        self._upstream = ScriptedDirectory()
        self._running = [LookupService(self._upstream, port=0) for _ in range(2)]
        self.name(1)

    def name(self, count):
        self._upstream.set([instance(number, port=port) for number, port in enumerate(self._ports[:count])])

    async def __aenter__(self):
        for each in self._running:
            await each.__aenter__()
        self.url = "lookup://" + ",".join(each.address for each in self._running)
        return self

    async def __aexit__(self, *exception):
        while self._running:
            await self.kill()

    async def kill(self):
        """Stop one: the one that is read from, while there are two."""
        self._running.sort(key=lambda each: each.snapshot()["readers"])
        await self._running.pop().__aexit__()


@pytest.fixture
async def services():
    async with node("one") as one, node("two") as two, node("three") as three, Services([one, two, three]) as services:
        yield services


async def answering(get, wanted):
    """Ask until these nodes have answered, and no call has failed meanwhile."""
    async with asyncio.timeout(30):
        seen = set()
        while seen != wanted:
            seen.add((await get("/")).text())
            await asyncio.sleep(0.01)


async def through_everything(services, get, instances):
    await answering(get, {"one"})
    services.name(2)
    await answering(get, {"one", "two"})
    await services.kill()
    services.name(3)
    await answering(get, {"one", "two", "three"})
    await services.kill()
    for _ in range(6):
        assert (await get("/")).status == 200
    assert instances() == 3


async def test_an_async_client_goes_on_without_one_service_and_without_any(services):
    async with AsyncSmartClient("digits", services.url) as client:
        await through_everything(services, client.get, lambda: client.snapshot()["discovery"]["instances"])


async def test_a_blocking_client_goes_on_without_one_service_and_without_any(services):
    client = await asyncio.to_thread(SmartClient, "digits", services.url)

    async def get(path):
        return await asyncio.to_thread(client.get, path)

    await through_everything(services, get, lambda: client.snapshot()["discovery"]["instances"])
    await asyncio.to_thread(client.close)
