"""Registrations that survive: a registry that comes back with nothing or with all it had, and a second owner of an id.

Instances register again by themselves, and clients keep their list meanwhile.
"""

import asyncio

import pytest

from infra.consul.agent import ConsulAgent, free_port
from registry import HttpCheck, Registrar, Registration, TtlCheck, connect
from registry.embedded import EmbeddedRegistry
from registry.errors import RegistrationRefused, RegistryUnavailable


class Embedded:
    """The embedded registry, to be lost and started again on one port."""

    def __init__(self):
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"

    async def start(self):
        self._registry = await EmbeddedRegistry(port=self._port).__aenter__()

    async def lose(self):
        await self._registry.__aexit__(None, None, None)

    stop = restart = lose


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

    async def restart(self):
        """Be killed with its disk as it is; ``start`` goes on from there."""
        self._agent.kill()

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


@pytest.fixture
async def directory(registry):
    directory = connect(registry.address)
    yield directory
    await directory.close()


@pytest.fixture
async def clients(registry):
    """A directory of its own for those who look up."""
    directory = connect(registry.address)
    yield directory
    await directory.close()


async def test_instances_register_again_and_a_watch_never_sees_an_empty_list(registry, directory, clients):
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
            # Others may see the instance before the answer that tells of it has reached its own process.
            while not registrar.snapshot().registered:
                await asyncio.sleep(0.05)
        # A second instance is the next thing the watch tells of.
        other = Registration(service="digits", id="d2", address="127.0.0.1", port=9002)
        await directory.register(other)
        async with asyncio.timeout(20):
            assert [each.id for each in (await waiting).instances] == ["d1", "d2"]
        await directory.deregister("d2")


@pytest.fixture
async def answering():
    """The address of a port that answers HTTP checks."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def until(condition):
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.05)


def me(check, port=9001):
    return Registration(service="digits", id="d1", address="127.0.0.1", port=port, check=check)


@pytest.mark.parametrize("mode", ["ttl", "http"])
async def test_an_instance_outlives_a_restart_of_its_agent_and_is_removed_at_the_end(
    registry, directory, answering, mode
):
    async def listed():
        try:
            return [each.id for each in (await directory.lookup("digits")).instances]
        except RegistryUnavailable:
            return []

    check = TtlCheck(ttl=15) if mode == "ttl" else HttpCheck(url=f"http://127.0.0.1:{answering}/", interval=1)
    async with Registrar(directory, me(check), beat=0.3) as registrar:
        await until(listed)
        await registry.restart()
        await until(lambda: asyncio.sleep(0, registrar.failures))
        await registry.start()
        await until(listed)
        await until(lambda: asyncio.sleep(0, not registrar.snapshot().last_error))
        assert registrar.snapshot().registered
        assert await directory.registered(me(check))
    assert await listed() == []
    assert not await directory.registered(me(check))


async def test_an_agent_that_is_down_when_the_node_starts_has_it_when_it_comes(registry, directory):
    await registry.lose()
    async with Registrar(directory, me(TtlCheck(ttl=15)), beat=0.3) as registrar:
        assert not registrar.snapshot().registered
        await registry.start()
        await until(lambda: asyncio.sleep(0, registrar.snapshot().registered))
        assert await directory.registered(me(TtlCheck(ttl=15)))


async def test_two_nodes_that_take_one_id_at_once_end_with_one_owner_and_an_error_for_the_other(registry, directory):
    async def run(port, stop):
        directory = connect(registry.address)
        try:
            async with Registrar(directory, me(TtlCheck(ttl=15), port), beat=0.3) as registrar:
                await until(lambda: asyncio.sleep(0, stop.is_set() or not registrar.snapshot().registered))
                return port if registrar.snapshot().registered else registrar.snapshot().last_error
        except RegistrationRefused as error:
            return str(error)
        finally:
            await directory.close()

    async def owner():
        return [each.port for each in (await directory.lookup("digits")).instances]

    stop = asyncio.Event()
    nodes = {port: asyncio.create_task(run(port, stop)) for port in (9001, 9002)}
    async with asyncio.timeout(30):
        await asyncio.wait(nodes.values(), return_when=asyncio.FIRST_COMPLETED)
        (kept,) = [port for port, node in nodes.items() if not node.done()]
        while await owner() != [kept]:
            await asyncio.sleep(0.02)
        stop.set()
        outcomes = [await node for node in nodes.values()]
    refused = f"registered at {directory.source} for 127.0.0.1:{kept}, which is alive; choose another id"
    assert sorted((outcome == kept, refused in str(outcome)) for outcome in outcomes) == [(False, True), (True, False)]


async def test_an_id_that_another_takes_by_force_is_left_to_it(registry, directory, caplog):
    other = connect(registry.address)
    async with Registrar(directory, me(TtlCheck(ttl=15)), beat=0.3) as registrar:
        await other.deregister("d1")
        await other.register(me(TtlCheck(ttl=60), 9002))
        await until(lambda: asyncio.sleep(0, "127.0.0.1:9002, which is alive" in registrar.snapshot().last_error))
        assert not registrar.snapshot().registered
    assert await other.registered(me(None, 9002))
    assert "ERROR" in [record.levelname for record in caplog.records]
    await other.close()
