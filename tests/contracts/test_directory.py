"""The law of a ``Directory``, over everything that keeps it.

It runs over the embedded registry, a real Consul agent, a cluster of three real servers (written to one, read from
another), the look-up service over an embedded and over a real registry (read through it), and the shipped fake.

1. What is registered is seen: by a look-up and by a watch, as it was registered, passing from the start.
2. What is filtered out is not seen; tag, zone, version and metadata narrow, they never add.
3. Draining is leaving: once ``maintenance(id, True)`` returned, no passing look-up names the instance; all-health
   look-ups name it as ``draining``. Back in service it is passing again.
4. Once ``deregister(id)`` returned, no look-up names the instance; doing it again is no error.
5. An unknown service is an empty list. An unknown id is an ``UnknownInstance`` for ``beat`` and ``maintenance``.
6. Snapshots are ordered by id, and a watch gives the first list and then changes only.
7. Health is what the checks say: silence past a TTL and a port nobody answers are critical, and a beat is passing.
8. An id belongs to one living instance; the same instance may register again, and a dead one may be replaced.

"Once returned" holds for who reads where the write was made. Through another server, or a look-up service, a write is
seen *soon*, not at once: there the tests wait for it, and then hold it to the same.

The static list keeps 2, 5 and 6 only: it takes no registrations. So does the look-up service's client by itself.
"""

import asyncio
import itertools
import os
import ssl

import msgspec
import pytest
from aiohttp import web

from infra.consul.agent import free_port
from registry import Health, HttpCheck, Registration, TcpCheck, TtlCheck, connect
from registry.errors import RegistrationRefused, UnknownInstance, Unsupported
from tests.certificates import Authority
from tests.contracts.elsewhere import Elsewhere

_numbers = itertools.count(1)


@pytest.fixture
def service():
    """A service name of this test's own: the real agent is shared."""
    return f"law-{os.getpid()}-{next(_numbers)}"


def me(service, number=1, **changes):
    fields = {"id": f"{service}-{number}", "address": "127.0.0.1", "port": 9000 + number, "check": TtlCheck(ttl=60)}
    return Registration(service=service, **(fields | changes))


async def ids(directory, service, **question):
    return [each.id.removeprefix(f"{service}-") for each in (await directory.lookup(service, **question)).instances]


async def seen(directory, service, condition, **question):
    """Wait until a look-up's instances are as the condition says; give them."""
    async with asyncio.timeout(20):
        while True:
            instances = (await directory.lookup(service, **question)).instances
            if condition(instances):
                return instances
            await asyncio.sleep(0.02)


async def names(directory, service, expected, **question):
    """A look-up names these: at once, or soon where the write was made elsewhere."""
    if isinstance(directory, Elsewhere):
        await seen(directory, service, lambda found: len(found) == len(expected), **question)
    assert await ids(directory, service, **question) == expected


def unhealthy(instances):
    return any(each.health is not Health.PASSING for each in instances)


async def test_what_is_registered_is_seen_as_it_was_registered(directory, service):
    await directory.register(
        me(service, tags=("a", "b"), meta={"key": "Value"}, zone="z1", version="2", weight=7, warning_weight=3)
    )
    (found,) = await seen(directory, service, len)
    assert (found.id, found.service, found.endpoint) == (f"{service}-1", service, "127.0.0.1:9001")
    assert (found.zone, found.version, found.weight, found.tags) == ("z1", "2", 7, ("a", "b"))
    assert found.meta["key"] == "Value"
    assert found.health is Health.PASSING
    assert await directory.registered(me(service))


async def test_registering_again_replaces(directory, service):
    await directory.register(me(service))
    await directory.register(me(service, version="2"))
    (found,) = await seen(directory, service, lambda found: found and found[0].version == "2")
    assert found.id == f"{service}-1"


async def test_instances_are_ordered_by_id(directory, service):
    for number in (3, 1, 2):
        await directory.register(me(service, number))
    await seen(directory, service, lambda found: len(found) == 3)
    assert await ids(directory, service) == ["1", "2", "3"]


async def test_filters_narrow(directory, service):
    await directory.register(me(service, 1, tags=("gpu", "x"), zone="a", version="1", meta={"rack": "r1"}))
    await directory.register(me(service, 2, tags=("gpu",), zone="b", version="1"))
    await directory.register(me(service, 3, zone="a", version="2", meta={"rack": "r1", "gpu": "no"}))
    await seen(directory, service, lambda found: len(found) == 3)
    assert await ids(directory, service, tag="gpu") == ["1", "2"]
    assert await ids(directory, service, zone="a") == ["1", "3"]
    assert await ids(directory, service, version="1") == ["1", "2"]
    assert await ids(directory, service, tag="gpu", zone="a", version="1") == ["1"]
    assert await ids(directory, service, tag="none") == []
    assert await ids(directory, service, meta={"rack": "r1"}) == ["1", "3"]
    assert await ids(directory, service, meta={"rack": "r1", "gpu": "no"}) == ["3"]
    assert await ids(directory, service, meta={"rack": "none"}) == []


async def test_an_unknown_service_is_an_empty_list(directory, service):
    snapshot = await directory.lookup(service)
    assert (snapshot.service, snapshot.instances, snapshot.source) == (service, (), directory.source)


async def test_an_unknown_id_is_told(directory, service):
    assert not await directory.registered(me(service))
    with pytest.raises(UnknownInstance):
        await directory.beat(f"{service}-1")
    with pytest.raises(UnknownInstance):
        await directory.maintenance(f"{service}-1", True)
    await directory.deregister(f"{service}-1")


async def test_draining_is_leaving_and_coming_back(directory, service):
    for number in (1, 2):
        await directory.register(me(service, number))
    await seen(directory, service, lambda found: len(found) == 2)
    await directory.maintenance(f"{service}-1", True, "because")
    await names(directory, service, ["2"])
    everyone = (await directory.lookup(service, passing_only=False)).instances
    assert [each.health for each in everyone] == [Health.DRAINING, Health.PASSING]
    await directory.maintenance(f"{service}-1", False)
    await seen(directory, service, lambda found: len(found) == 2)


async def test_deregistered_is_gone(directory, service):
    for number in (1, 2):
        await directory.register(me(service, number))
    await seen(directory, service, lambda found: len(found) == 2)
    await directory.deregister(f"{service}-1")
    await names(directory, service, ["2"], passing_only=False)
    assert not await directory.registered(me(service))
    await directory.deregister(f"{service}-1")


async def test_registering_again_ends_maintenance(real, service):
    await real.register(me(service))
    await seen(real, service, len)
    await real.maintenance(f"{service}-1", True)
    await real.register(me(service))
    await seen(real, service, len)


async def test_a_watch_gives_the_first_list_and_then_every_change(directory, service):
    watch = directory.watch(service)
    seen = []
    async with asyncio.timeout(20):
        seen.append(await anext(watch))
        for change in (
            directory.register(me(service, 1)),
            directory.register(me(service, 2)),
            directory.maintenance(f"{service}-1", True),
            directory.maintenance(f"{service}-1", False),
            directory.deregister(f"{service}-2"),
            directory.deregister(f"{service}-1"),
        ):
            waiting = asyncio.ensure_future(anext(watch))
            await change
            seen.append(await waiting)
    assert [[each.id.removeprefix(f"{service}-") for each in snapshot.instances] for snapshot in seen] == [
        [], ["1"], ["1", "2"], ["2"], ["1", "2"], ["1"], [],
    ]  # fmt: skip
    assert watch.status().live
    await watch.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def test_a_watch_of_every_health_sees_draining(directory, service):
    await directory.register(me(service))
    await seen(directory, service, len)
    watch = directory.watch(service, passing_only=False)
    async with asyncio.timeout(20):
        assert (await anext(watch)).instances[0].health is Health.PASSING
        waiting = asyncio.ensure_future(anext(watch))
        await directory.maintenance(f"{service}-1", True)
        assert (await waiting).instances[0].health is Health.DRAINING
    await watch.aclose()


async def test_closing_the_directory_ends_its_watches(real, service):
    watch = real.watch(service)
    await anext(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0.05)
    await real.close()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_silence_is_critical_and_a_beat_is_passing(real, service):
    await real.register(me(service, check=TtlCheck(ttl=1)))
    found = await seen(real, service, unhealthy, passing_only=False)
    assert found[0].health is Health.CRITICAL
    assert await ids(real, service) == []
    await real.beat(f"{service}-1", "here again")
    assert await seen(real, service, len)


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_a_port_nobody_answers_is_critical(real, service, kind):
    port = free_port()
    http, tcp = (
        HttpCheck(url=f"http://127.0.0.1:{port}/", interval=1),
        TcpCheck(address=f"127.0.0.1:{port}", interval=1),
    )
    await real.register(me(service, check=http if kind == "http" else tcp))
    assert await seen(real, service, len)
    found = await seen(real, service, lambda found: found[0].health is not Health.PASSING, passing_only=False)
    assert found[0].health is Health.CRITICAL


async def test_a_certificate_the_registry_does_not_know_passes_only_where_the_check_says_so(
    registry_url, service, tmp_path
):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*Authority(tmp_path).issue("node"))
    asked = []

    async def ready(request):
        asked.append(request)
        return web.Response()

    runner = web.ServerRunner(web.Server(ready, access_log=None))
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    directory = connect(registry_url)
    check = HttpCheck(url=f"https://127.0.0.1:{port}/", interval=1, tls_skip_verify=True)
    await directory.register(me(service, check=check))
    async with asyncio.timeout(20):
        while len(asked) < 2:
            await asyncio.sleep(0.02)
    assert await ids(directory, service) == ["1"]
    await directory.register(me(service, check=msgspec.structs.replace(check, tls_skip_verify=False)))
    (found,) = await seen(directory, service, unhealthy, passing_only=False)
    assert found.health is Health.CRITICAL
    await directory.deregister(f"{service}-1")
    await directory.close()
    await runner.cleanup()


async def test_a_living_instance_keeps_its_id(real, service):
    await real.register(me(service))
    with pytest.raises(RegistrationRefused, match=r"127\.0\.0\.1:9001"):
        await real.register(me(service, port=9999))
    await real.register(me(service))
    (found,) = await seen(real, service, len)
    assert found.port == 9001


async def test_a_dead_one_is_replaced_and_the_new_one_is_passing_at_once(real, service):
    await real.register(me(service, check=TtlCheck(ttl=1)))
    await seen(real, service, unhealthy, passing_only=False)
    await real.register(me(service, port=9999))
    (found,) = await seen(real, service, len)
    assert found.port == 9999


async def test_an_instance_without_a_check_is_passing(real, service):
    await real.register(me(service, check=None))
    assert await seen(real, service, len)


async def test_a_directory_that_takes_no_registrations_says_so_and_what_to_do(service):
    for address in ("static://127.0.0.1:9001", "lookup://127.0.0.1:8700"):
        directory = connect(address)
        for call in (
            directory.register(me(service)),
            directory.registered(me(service)),
            directory.beat(f"{service}-1"),
            directory.maintenance(f"{service}-1", True),
            directory.deregister(f"{service}-1"),
        ):
            with pytest.raises(Unsupported, match="--registry consul://"):
                await call
        await directory.close()


async def test_a_static_list_is_narrowed_by_filters():
    directory = connect("static://127.0.0.1:9001")
    assert len((await directory.lookup("anything")).instances) == 1
    for question in ({"tag": "x"}, {"zone": "a"}, {"version": "1"}, {"meta": {"k": "v"}}):
        assert (await directory.lookup("anything", **question)).instances == ()
    await directory.close()


async def test_a_static_list_is_followed_and_never_changes():
    directory = connect("static://127.0.0.1:9002,127.0.0.1:9001")
    watch = directory.watch("anything")
    first = await anext(watch)
    assert [each.endpoint for each in first.instances] == ["127.0.0.1:9001", "127.0.0.1:9002"]
    assert (await directory.lookup("anything")).instances == first.instances
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    assert not waiting.done()
    await directory.close()
    with pytest.raises(StopAsyncIteration):
        await waiting
