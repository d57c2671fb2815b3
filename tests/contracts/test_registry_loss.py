"""A registry that comes back with nothing: instances register again by themselves and clients keep their list."""

import asyncio

import pytest

from infra.consul.agent import ConsulAgent, free_port
from registry import Registrar, Registration, TtlCheck, connect
from registry.embedded import EmbeddedRegistry


class Embedded:
    """The embedded registry, to be lost and started again on one port."""

    def __init__(self):
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"

    async def start(self):
        self._registry = await EmbeddedRegistry(port=self._port).__aenter__()

    async def lose(self):
        await self._registry.__aexit__(None, None, None)

    stop = lose


class Consul:
    """A real agent, to be killed and started again with an empty disk."""

    def __init__(self):
        self._agent = ConsulAgent.dev()
        self.address = self._agent.address

    async def start(self):
        await asyncio.to_thread(self._agent.start)

    async def lose(self):
        self._agent.kill()
        self._agent.wipe()

    async def stop(self):
        await asyncio.to_thread(self._agent.__exit__)


@pytest.fixture(params=[Embedded, pytest.param(Consul, marks=pytest.mark.consul)])
async def registry(request):
    if request.param is Consul:
        request.getfixturevalue("consul_binary")
    registry = request.param()
    await registry.start()
    yield registry
    await registry.stop()


async def test_instances_register_again_and_a_watch_never_sees_an_empty_list(registry):
    directory, clients = connect(registry.address), connect(registry.address)
    me = Registration(service="digits", id="d1", address="127.0.0.1", port=9001, check=TtlCheck(ttl=30))
    async with Registrar(directory, me, beat=0.5) as registrar:
        watch = clients.watch("digits")
        async with asyncio.timeout(20):
            while not (await anext(watch)).instances:
                pass
        waiting = asyncio.ensure_future(anext(watch))

        await registry.lose()
        async with asyncio.timeout(20):
            while not registrar.failures:
                await asyncio.sleep(0.05)
            assert not waiting.done()
            await registry.start()
            while not watch.status().live or not (await clients.lookup("digits")).instances:
                await asyncio.sleep(0.05)
        assert registrar.snapshot().registered
        # A second instance is the next thing the watch tells of.
        other = Registration(service="digits", id="d2", address="127.0.0.1", port=9002)
        await directory.register(other)
        async with asyncio.timeout(20):
            assert [each.id for each in (await waiting).instances] == ["d1", "d2"]
        await directory.deregister("d2")
    await directory.close()
    await clients.close()
