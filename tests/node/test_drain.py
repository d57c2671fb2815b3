"""Registering and leaving: the registry hears first, and no request is lost."""

import asyncio
import contextlib

import aiohttp
import pytest

from registry.directory import HttpCheck
from registry.errors import RegistrationRefused
from registry.model import Health


async def post(session, node, data):
    async with session.post(f"{node.url}/classify", data=data) as reply:
        return reply.status, await reply.json(), reply.headers


async def test_it_registers_once_it_is_warm_with_a_check_on_readyz(make_node, directory, runtime, until):
    runtime.gate.clear()
    node = make_node(zone="a", tags=("blue",), weight=3, check_interval=1.0)
    starting = asyncio.ensure_future(node.start())
    await until(lambda: runtime.batches)
    assert directory.registrations == {}
    runtime.gate.set()
    await starting
    (registration,) = directory.registrations.values()
    assert (registration.service, registration.id) == ("digits", "digits-a1b2")
    assert (registration.address, registration.port) == ("127.0.0.1", node.port)
    assert registration.check == HttpCheck(url=f"{node.url}/readyz", interval=1.0)
    assert (registration.zone, registration.tags, registration.weight) == ("a", ("blue",), 3)
    assert (registration.version, registration.meta["model"]) == ("1", "digits")


async def test_a_registry_that_is_away_does_not_keep_it_from_serving(make_node, directory, session, png):
    directory.fail()
    node = make_node()
    await node.start()
    assert (await post(session, node, png()))[0] == 200
    assert "node_registry_sync_failures_total 1.0" in node.metrics.text().decode()


async def test_a_registration_that_is_refused_is_told(make_node, directory):
    directory.fail(RegistrationRefused("digits-a1b2 belongs to somebody else"))
    with pytest.raises(RegistrationRefused):
        await make_node().start()


async def test_nothing_is_registered_when_told_not_to(make_node, directory):
    node = make_node(register=False)
    await node.start()
    assert node.registry == ""
    assert directory.registrations == {}


async def test_ids_differ_from_run_to_run(make_node):
    first, second = make_node(id=""), make_node(id="")
    assert first.id.startswith("digits-")
    assert first.id != second.id


async def test_the_registry_hears_of_it_while_it_still_serves(make_node, directory, session, png, until):
    node = make_node(drain_grace=0.3)
    await node.start()
    assert (await post(session, node, png()))[2].get("Connection") != "close"
    draining = asyncio.ensure_future(node.drain())
    watch = directory.watch("digits", passing_only=False)
    async for snapshot in watch:
        if snapshot.instances and snapshot.instances[0].health is Health.DRAINING:
            break
    async with session.get(f"{node.url}/readyz") as reply:
        assert (reply.status, (await reply.json())["reason"]) == (503, "draining")
        assert reply.headers["Connection"] == "close"
    status, _, headers = await post(session, node, png())
    assert status == 200
    assert headers["Connection"] == "close"
    await until(lambda: node.intake.refusing)
    await draining
    assert directory.registrations == {}
    assert node.lifecycle.state == "stopped"


async def test_new_work_is_refused_at_once_when_the_grace_is_over(node, session, png):
    node.intake.refusing = True
    status, body, headers = await post(session, node, png())
    assert (status, body["reason"]) == (503, "draining")
    assert headers["Retry-After"] == "0"
    assert headers["Connection"] == "close"


async def test_what_is_inside_is_finished(node, session, png, runtime, until):
    runtime.gate.clear()
    inside = [asyncio.ensure_future(post(session, node, png())) for _ in range(8)]
    await until(lambda: node.admission.requests == 8)
    draining = asyncio.ensure_future(node.drain())
    await until(lambda: node.intake.refusing)
    assert not draining.done()
    runtime.gate.set()
    assert {status for status, _, _ in await asyncio.gather(*inside)} == {200}
    await draining


async def test_draining_under_load_loses_no_request(make_node, directory, png, until):
    """Clients look the node up before each request and use their kept-alive connections, as the protocol says."""
    node = make_node(drain_grace=0.3)
    await node.start()
    answered, failed = [], []

    async def client():
        async with aiohttp.ClientSession() as session:
            while (await directory.lookup("digits")).instances:
                try:
                    status, _, _ = await post(session, node, png())
                except aiohttp.ClientError as error:
                    failed.append(repr(error))
                    return
                (answered if status == 200 else failed).append(status)

    clients = [asyncio.ensure_future(client()) for _ in range(16)]
    await until(lambda: failed or len(answered) > 2 * len(clients))
    await node.drain()
    await asyncio.gather(*clients)
    assert failed == []


async def test_a_second_signal_hurries(make_node, session, png, runtime, until):
    node = make_node(drain_grace=60, drain_timeout=60)
    await node.start()
    draining = asyncio.ensure_future(node.drain())
    await until(lambda: node.lifecycle.leaving)
    async with asyncio.timeout(5):
        node.hurry()
        await draining
    assert node.lifecycle.state == "stopped"


async def test_hurrying_answers_what_is_queued(make_node, session, png, runtime, until, queued):
    node = make_node(drain_grace=60, drain_timeout=60)
    await node.start()
    runtime.gate.clear()
    warm = len(runtime.batches)
    running = asyncio.ensure_future(post(session, node, png()))
    await until(lambda: len(runtime.batches) == warm + 1)
    second = asyncio.ensure_future(post(session, node, png()))
    await until(lambda: queued(node) == 1)
    node.hurry()
    draining = asyncio.ensure_future(node.drain())
    status, body, _ = await second
    assert (status, body["reason"]) == (503, "draining")
    runtime.gate.set()
    assert (await running)[0] == 200
    await draining


async def test_stopping_twice_or_before_the_start_is_fine(make_node):
    node = make_node()
    await node.stop()
    await node.start()
    await node.stop()
    await node.stop()
    assert node.lifecycle.state == "stopped"


async def test_a_registry_outage_does_not_hold_up_leaving(make_node, directory):
    node = make_node()
    await node.start()
    directory.fail()
    async with asyncio.timeout(8):
        await node.drain()
    assert node.lifecycle.state == "stopped"
    with contextlib.suppress(Exception):
        await node.stop()
