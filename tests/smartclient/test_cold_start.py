"""A client that starts while its registry is away, with the list another one left on disk."""

import asyncio
import random

import msgspec
import pytest

from infra.consul.agent import free_port
from registry import Registration, connect
from registry.embedded import EmbeddedRegistry
from registry.testing import ManualClock, ScriptedDirectory, instance
from smartclient.cache import DiscoveryCache
from smartclient.client import AsyncSmartClient
from smartclient.errors import BadOption, RegistryGone
from smartclient.sync import SmartClient


@pytest.fixture
async def registry():
    """An address where a registry can be started and stopped; it holds the services given to ``start``."""

    class Registry:
        address = f"127.0.0.1:{free_port()}"
        running = None

        async def start(self, *nodes):
            self.running = await EmbeddedRegistry(port=int(self.address.split(":")[1])).__aenter__()
            directory = connect(self.address)
            for node in nodes:
                me = Registration(service="digits", id=node.name, address="127.0.0.1", port=node.port)
                await directory.register(me)
            await directory.close()

        async def stop(self):
            running, self.running = self.running, None
            if running is not None:
                await running.__aexit__(None, None, None)

    made = Registry()
    yield made
    await made.stop()


async def test_a_client_classifies_without_a_registry_and_says_how_old_its_list_is(registry, fleet, tmp_path):
    nodes = await fleet(3)
    await registry.start(*nodes)
    async with AsyncSmartClient("digits", registry.address, cache_dir=tmp_path) as first:
        await first.ready()
        assert not first.snapshot()["discovery"]["saved"]
    await registry.stop()

    async with AsyncSmartClient("digits", registry.address) as without:
        with pytest.raises(RegistryGone):
            await without.classify(b"image")
    async with AsyncSmartClient("digits", registry.address, cache_dir=tmp_path) as cold:
        answered = {(await cold.classify(b"image")).node for _ in range(6)}
        assert answered == {node.name for node in nodes}
        state = cold.snapshot()["discovery"]
        assert state["saved"]
        assert state["age_s"] > 0

        await registry.start(*nodes[:2])
        async with asyncio.timeout(60):
            while (state := cold.snapshot()["discovery"])["saved"]:
                await asyncio.sleep(0.05)
        assert state["instances"] == 2


async def test_the_age_of_a_saved_list_is_its_own_and_not_that_of_its_reading():
    clock = ManualClock()

    class Away(ScriptedDirectory):
        async def lookup(self, service, **filters):
            found = await super().lookup(service, **filters)
            self.fail()
            return msgspec.structs.replace(found, saved=True, fetched_at=clock.time() - 3600)

    cache = DiscoveryCache(Away([instance(1)]), "digits", lambda _: None, clock=clock, rng=random.Random(1))
    await cache.load()
    await clock.advance(60)
    state = cache.snapshot()
    assert (state["saved"], state["age_s"], state["live"]) == (True, 3660.0, False)
    await cache.close()


async def test_the_blocking_client_takes_the_folder_too(registry, fleet, tmp_path):
    await registry.start(*await fleet(1))

    def classify():
        with SmartClient("digits", registry.address, cache_dir=tmp_path) as client:
            return client.classify(b"image").label, client.snapshot()["discovery"]["saved"]

    assert await asyncio.to_thread(classify) == ("7", False)
    await registry.stop()
    assert await asyncio.to_thread(classify) == ("7", True)


def test_a_folder_for_a_directory_object_is_refused(tmp_path):
    with pytest.raises(BadOption, match="cache_dir"):
        AsyncSmartClient("digits", connect("static://127.0.0.1:1"), cache_dir=tmp_path)
