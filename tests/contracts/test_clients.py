"""Clients this project did not write, doing what their own documentation shows, over the embedded registry and Consul.

py-consul, synchronous and asyncio, and the npm package ``consul``: real packages and documented calls. Agents take
their own time to tell the catalog, so what is written is waited for.
"""

import asyncio
import itertools
import os
import shutil
import time
from pathlib import Path

import consul
import consul.aio
import pytest

SCRIPTS = Path(__file__).parent / "clients"
_numbers = itertools.count(1)


@pytest.fixture
def place(registry_url):
    """Host and port of a registry."""
    host, port = registry_url.removeprefix("consul://").split(":")
    return host, int(port)


@pytest.fixture
def name():
    """A service name of this test's own: the real agent is shared."""
    return f"client-{os.getpid()}-{next(_numbers)}"


def until(read, condition):
    """What ``read`` gives, once it is as the condition says."""
    give_up = time.monotonic() + 20
    while not condition(value := read()):
        assert time.monotonic() < give_up, value
        time.sleep(0.02)
    return value


def ids(answer):
    return [entry["Service"]["ID"] for entry in answer[1]]


async def with_the_synchronous_client(place, test):
    """Run a blocking test in a thread: the embedded registry answers in this one."""

    def run():
        client = consul.Consul(host=place[0], port=place[1])
        try:
            test(client)
        finally:
            client.http.close()

    await asyncio.to_thread(run)


async def test_py_consul_keeps_keys(place, name):
    def test(client):
        assert client.kv.get(f"{name}/none")[1] is None
        assert client.kv.put(f"{name}/a", "text", flags=7)
        index, found = client.kv.get(f"{name}/a")
        assert (found["Value"], found["Flags"]) == (b"text", 7)
        assert not client.kv.put(f"{name}/a", "never", cas=found["ModifyIndex"] - 1)
        assert client.kv.put(f"{name}/a", b"\x00\xff", cas=found["ModifyIndex"])
        changed, found = client.kv.get(f"{name}/a", index=index, wait="10s")
        assert (found["Value"], int(changed) > int(index)) == (b"\x00\xff", True)
        assert client.kv.put(f"{name}/b/c", "")
        assert client.kv.get(f"{name}/", keys=True)[1] == [f"{name}/a", f"{name}/b/c"]
        assert client.kv.get(f"{name}/", keys=True, separator="/")[1] == [f"{name}/a", f"{name}/b/"]
        assert [pair["Key"] for pair in client.kv.get(name, recurse=True)[1]] == [f"{name}/a", f"{name}/b/c"]
        assert client.kv.delete(f"{name}/b/c")
        assert client.kv.delete(name, recurse=True)
        assert client.kv.get(name, recurse=True)[1] is None

    await with_the_synchronous_client(place, test)


async def test_py_consul_registers_and_finds(place, name):
    def test(client):
        assert client.agent.service.register(
            name, service_id=f"{name}-1", address="10.0.0.1", port=9001, tags=["a", "b"], meta={"zone": "z"},
            weights={"Passing": 5, "Warning": 1}, check=consul.Check.ttl("60s"),
        )  # fmt: skip
        assert client.agent.services()[f"{name}-1"]["Port"] == 9001
        _, (entry,) = until(lambda: client.health.service(name), lambda answer: len(answer[1]) == 1)
        assert entry["Service"]["Meta"] == {"zone": "z"}
        assert entry["Service"]["Weights"] == {"Passing": 5, "Warning": 1}
        assert ids(client.health.service(name, passing=True)) == []
        assert client.agent.check.ttl_pass(f"service:{name}-1", "fine")
        until(lambda: ids(client.health.service(name, passing=True, tag="a")), [f"{name}-1"].__eq__)
        assert client.agent.checks()[f"service:{name}-1"]["Output"] == "fine"
        assert ids(client.health.service(name, tag="none")) == []
        assert sorted(client.catalog.services()[1][name]) == ["a", "b"]
        assert [each["ServiceID"] for each in client.catalog.service(name)[1]] == [f"{name}-1"]
        (machine,) = client.catalog.nodes()[1]
        assert f"{name}-1" in client.catalog.node(machine["Node"])[1]["Services"]
        assert [check["CheckID"] for check in client.health.checks(name)[1]] == [f"service:{name}-1"]
        mine = f"service:{name}-1"
        assert mine in {check["CheckID"] for check in client.health.node(machine["Node"])[1]}
        assert mine in {check["CheckID"] for check in client.health.state("passing")[1]}
        assert client.catalog.datacenters() == ["dc1"]
        assert client.status.leader() in client.status.peers()
        assert client.agent.self()["Config"]["NodeName"] == machine["Node"]
        assert len(client.agent.members()) == 1
        assert client.agent.service.deregister(f"{name}-1")
        until(lambda: client.health.service(name)[1], [].__eq__)

    await with_the_synchronous_client(place, test)


async def test_py_consul_reports_and_drains(place, name):
    def test(client):
        passing = [name]
        check = consul.Check.ttl("60s") | {"status": "passing"}
        assert client.agent.service.register(name, port=9001, check=check)
        until(lambda: ids(client.health.service(name, passing=True)), passing.__eq__)
        for report, status in (("warn", "warning"), ("fail", "critical"), ("pass", "passing")):
            assert getattr(client.agent.check, f"ttl_{report}")(f"service:{name}", report)
            found = client.agent.checks()[f"service:{name}"]
            assert (found["Status"], found["Output"]) == (status, report)
        assert client.agent.service.maintenance(name, True, "why")
        until(lambda: ids(client.health.service(name, passing=True)), [].__eq__)
        assert client.agent.service.maintenance(name, False)
        until(lambda: ids(client.health.service(name, passing=True)), passing.__eq__)
        assert client.agent.maintenance(True, "why")
        until(lambda: ids(client.health.service(name, passing=True)), [].__eq__)
        assert client.agent.maintenance(False)
        until(lambda: ids(client.health.service(name, passing=True)), passing.__eq__)
        assert client.agent.check.register(f"{name}-extra", check=consul.Check.ttl("60s"), service_id=name)
        until(lambda: ids(client.health.service(name, passing=True)), [].__eq__)
        assert client.agent.check.deregister(f"{name}-extra")
        until(lambda: ids(client.health.service(name, passing=True)), passing.__eq__)
        assert client.agent.service.deregister(name)

    await with_the_synchronous_client(place, test)


async def test_py_consuls_checks_probe(place, name):
    host, port = place

    def test(client):
        checks = {
            "http": consul.Check.http(f"http://{host}:{port}/v1/status/leader", "1s", timeout="5s"),
            "tcp": consul.Check.tcp(host, port, "1s", timeout="5s"),
            "gone": consul.Check.http(f"http://{host}:{port}/no/such", "1s", deregister="10m"),
        }
        for key, check in checks.items():
            assert client.agent.service.register(name, service_id=f"{name}-{key}", port=port, check=check)
        until(
            lambda: sorted(ids(client.health.service(name, passing=True))),
            [f"{name}-http", f"{name}-tcp"].__eq__,
        )
        until(lambda: "404" in client.agent.checks()[f"service:{name}-gone"]["Output"], bool)
        for key in checks:
            assert client.agent.service.deregister(f"{name}-{key}")

    await with_the_synchronous_client(place, test)


async def test_py_consuls_asynchronous_client_sees_changes(place, name):
    async with asyncio.timeout(60), consul.aio.Consul(host=place[0], port=place[1]) as client:
        index, found = await client.health.service(name, passing=True)
        assert found == []

        async def changed(wanted):
            nonlocal index
            found = None
            while found != wanted:
                index, entries = await client.health.service(name, passing=True, index=index, wait="20s")
                found = [entry["Service"]["ID"] for entry in entries]

        for change, wanted in [
            (lambda: client.agent.service.register(name, port=1, check=consul.Check.ttl("60s")), None),
            (lambda: client.agent.check.ttl_pass(f"service:{name}"), [name]),
            (lambda: client.agent.service.maintenance(name, True), []),
            (lambda: client.agent.service.maintenance(name, False), [name]),
            (lambda: client.agent.check.ttl_fail(f"service:{name}"), []),
            (lambda: client.agent.check.ttl_pass(f"service:{name}"), [name]),
            (lambda: client.agent.service.deregister(name), []),
        ]:
            waiting = asyncio.ensure_future(changed(wanted)) if wanted is not None else None
            assert await change()
            if waiting is not None:
                await waiting
        assert await client.kv.put(f"{name}/a", "text")
        index, found = await client.kv.get(f"{name}/a")
        blocked = asyncio.ensure_future(client.kv.get(f"{name}/a", index=index, wait="20s"))
        await asyncio.sleep(0)
        assert await client.kv.put(f"{name}/a", "more")
        assert (await blocked)[1]["Value"] == b"more"
        assert await client.kv.delete(name, recurse=True)


async def test_py_consuls_sessions_and_locks_work_or_are_refused_in_a_line(place, name, request):
    def test(client):
        if "consul" in request.node.callspec.id:
            session = client.session.create(ttl=10)
            assert client.kv.put(f"{name}/lock", "me", acquire=session)
            assert client.kv.put(f"{name}/lock", "me", release=session)
            assert client.session.destroy(session)
            return
        with pytest.raises(consul.ConsulException, match="embedded registry"):
            client.session.create(ttl=10)
        for option in ("acquire", "release"):
            with pytest.raises(consul.ConsulException, match="embedded registry has no sessions"):
                client.kv.put(f"{name}/lock", "me", **{option: "a session"})
        assert client.kv.get(f"{name}/lock")[1] is None

    await with_the_synchronous_client(place, test)


async def test_the_npm_package_does_what_its_readme_shows(place, name, nodejs, npm_packages, tmp_path):
    (tmp_path / "node_modules").symlink_to(npm_packages("consul@2.0.1") / "node_modules")
    script = shutil.copy(SCRIPTS / "consul.mjs", tmp_path)
    process = await asyncio.create_subprocess_exec(
        nodejs, script, place[0], str(place[1]), name,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, output) == (0, b"done\n"), errors.decode()
