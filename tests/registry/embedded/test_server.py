"""The embedded registry over HTTP, as curl sees it; what clients see is in ``tests/contracts/test_clients.py``."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web

from registry.embedded import EmbeddedRegistry
from registry.errors import ConfigurationError
from registry.testing import ManualClock

PASSING = {"Name": "digits", "ID": "d1", "Port": 9001, "Check": {"TTL": "60s", "Status": "passing"}}


@pytest.fixture
async def registry():
    async with EmbeddedRegistry() as registry:
        yield registry


@pytest.fixture
async def ask(registry):
    """GET or PUT on the registry: status, headers and text."""
    async with aiohttp.ClientSession(f"http://{registry.address}") as session:

        async def ask(path, *, method="GET", data=None):
            if not isinstance(data, bytes | None):
                data = json.dumps(data).encode()
            async with session.request(method, path, data=data) as reply:
                return reply.status, reply.headers, await reply.text()

        yield ask


async def instances(ask, query="passing"):
    status, headers, text = await ask(f"/v1/health/service/digits?{query}")
    assert status == 200
    return [entry["Service"]["ID"] for entry in json.loads(text)], int(headers["X-Consul-Index"])


async def test_a_blocking_query_returns_at_a_change_of_its_service_only(registry, ask):
    _, index = await instances(ask)
    blocked = asyncio.ensure_future(instances(ask, f"passing&index={index}&wait=30s"))
    while registry.snapshot()["waiting"] == 0:
        await asyncio.sleep(0.01)
    await ask("/v1/agent/service/register", method="PUT", data=PASSING | {"Name": "faces", "ID": "f1"})
    await ask("/v1/kv/k", method="PUT", data=b"v")
    await asyncio.sleep(0.05)
    assert not blocked.done()
    await ask("/v1/agent/service/register", method="PUT", data=PASSING)
    found, after = await blocked
    assert found == ["d1"]
    assert after > index


async def test_a_blocking_query_returns_after_its_wait():
    clock = ManualClock()
    async with EmbeddedRegistry(clock=clock) as registry, aiohttp.ClientSession() as session:
        url = f"http://{registry.address}/v1/health/service/digits?index=1&wait=10s"
        blocked = asyncio.ensure_future(session.get(url))
        while registry.snapshot()["waiting"] == 0:
            await asyncio.sleep(0.01)
        await clock.advance(9.9)
        assert registry.snapshot()["waiting"] == 1
        await clock.advance(0.8)  # a sixteenth more at most
        async with await blocked as reply:
            assert await reply.json() == []


async def test_an_index_of_another_life_is_answered_at_once(ask):
    assert await instances(ask, "index=99999&wait=30s") == ([], 1)


async def test_a_client_that_hangs_up_leaves_nothing_waiting(registry):
    _, writer = await asyncio.open_connection(*registry.address.split(":"))
    writer.write(b"GET /v1/health/service/digits?index=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    while registry.snapshot()["waiting"] == 0:
        await asyncio.sleep(0.01)
    writer.close()
    await writer.wait_closed()
    while registry.snapshot()["waiting"]:
        await asyncio.sleep(0.01)


async def test_a_service_is_given_once_its_hash_changed(registry, ask):
    async def service(query=""):
        return json.loads((await ask(f"/v1/agent/service/d1{query}"))[2])

    await ask("/v1/agent/service/register", method="PUT", data=PASSING)
    known = (await service())["ContentHash"]
    assert (await service("?hash=another&wait=30s"))["ContentHash"] == known
    blocked = asyncio.ensure_future(service(f"?hash={known}&wait=30s"))
    while registry.snapshot()["waiting"] == 0:
        await asyncio.sleep(0.01)
    await ask("/v1/agent/service/register", method="PUT", data=PASSING)  # the same again is no change
    await ask("/v1/agent/service/register", method="PUT", data=PASSING | {"Port": 9002})
    found = await blocked
    assert (found["Port"], found["ContentHash"] != known) == (9002, True)


async def test_a_query_of_a_key_returns_at_a_change_of_that_key_only(registry, ask):
    await ask("/v1/kv/k", method="PUT", data=b"1")
    index = (await ask("/v1/kv/k"))[1]["X-Consul-Index"]
    blocked = asyncio.ensure_future(ask(f"/v1/kv/k?raw&index={index}&wait=30s"))
    while registry.snapshot()["waiting"] == 0:
        await asyncio.sleep(0.01)
    await ask("/v1/kv/kk", method="PUT", data=b"1")
    await ask("/v1/kv/kk", method="DELETE")
    await asyncio.sleep(0.05)
    assert not blocked.done()
    await ask("/v1/kv/k", method="PUT", data=b"2")
    assert (await blocked)[2] == "2"


async def test_stopping_ends_blocking_queries_at_once():
    async with aiohttp.ClientSession() as session:
        async with EmbeddedRegistry() as registry:
            url = f"http://{registry.address}/v1/health/service/digits?index=1&wait=600s"
            blocked = asyncio.ensure_future(session.get(url))
            while registry.snapshot()["waiting"] == 0:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(5), await blocked as reply:
            assert reply.status == 200


async def test_what_it_does_not_serve_is_said_in_one_line(ask):
    status, _, text = await ask("/v1/connect/ca/roots")
    assert status == 404
    assert "embedded registry" in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("path", "method", "status", "text"),
    [
        ("/v1/agent/services", "POST", 405, "method POST not allowed"),
        ("/v1/health/service/", "GET", 400, "Missing service name"),
        ("/v1/health/service/digits?index=x", "GET", 400, "Invalid index"),
        ("/v1/health/service/digits?wait=x", "GET", 400, "Invalid wait time"),
        ("/v1/health/service/digits?passing=maybe", "GET", 400, "?passing"),
        ("/v1/health/service/digits?dc=x", "GET", 500, "No path to datacenter"),
        ("/v1/agent/service/none", "GET", 404, "unknown service ID: none"),
        ("/v1/agent/service/maintenance/none", "PUT", 400, "Missing value for enable"),
        ("/v1/agent/service/maintenance/none?enable=true", "PUT", 404, "Unknown service"),
        ("/v1/agent/check/pass/none", "PUT", 404, "Unknown check"),
        ("/v1/kv/", "GET", 400, "Missing key name"),
        ("/v1/kv/k?acquire=s", "PUT", 400, "no sessions and no locks"),
        ("/v1/session/create", "PUT", 400, "no sessions and no locks"),
        ("/v1/health/service/digits?partition=x", "GET", 400, "Partitions are a Consul Enterprise feature"),
        ("/v1/health/service/digits?filter=x&index=1", "GET", 400, "boolean expression"),
        ("/v1/agent/service/a%0Ab", "GET", 404, "/v1/agent/service/a b is not served here"),
    ],
)
async def test_errors_are_one_line_of_text(ask, path, method, status, text):
    answered, _, body = await ask(path, method=method)
    assert answered == status
    assert text in body
    assert len(body.splitlines()) == 1


async def test_pretty_is_pretty(ask):
    _, _, text = await ask("/v1/agent/self?pretty")
    assert text.splitlines()[1].startswith('    "Config"')


async def test_a_value_too_large_is_refused(ask):
    assert (await ask("/v1/kv/k", method="PUT", data=b"x" * (512 * 1024)))[0] == 200
    assert (await ask("/v1/kv/k", method="PUT", data=b"x" * (512 * 1024 + 1)))[0] == 413


async def test_state_outlives_the_process(tmp_path):
    file = tmp_path / "registry.json"
    async with EmbeddedRegistry(file=file) as registry, aiohttp.ClientSession(f"http://{registry.address}") as session:
        async with session.put("/v1/agent/service/register", json=PASSING):
            pass
        async with session.put("/v1/kv/key", data=b"\x00value"):
            pass
        before = registry.snapshot()
    async with EmbeddedRegistry(file=file) as registry, aiohttp.ClientSession(f"http://{registry.address}") as session:
        after = registry.snapshot()
        assert after | {"address": ""} == before | {"address": ""}
        async with session.get("/v1/health/service/digits?passing") as reply:
            assert [entry["Service"]["ID"] for entry in await reply.json()] == ["d1"]
        async with session.get("/v1/kv/key?raw") as reply:
            assert await reply.read() == b"\x00value"


async def test_state_is_written_while_it_runs_and_never_half(tmp_path):
    file = tmp_path / "registry.json"
    async with EmbeddedRegistry(file=file) as registry, aiohttp.ClientSession(f"http://{registry.address}") as session:
        async with session.put("/v1/agent/service/register", json=PASSING):
            pass
        async with asyncio.timeout(5):
            while not json.loads(file.read_text())["services"]:
                await asyncio.sleep(0.02)
        assert [path.name for path in tmp_path.iterdir()] == ["registry.json"]


@pytest.mark.parametrize("content", ["garbage", "{}x", '{"format":"another"}', '{"index":"x"}'])
async def test_a_file_that_is_no_state_is_refused_and_left_alone(tmp_path, content):
    file = tmp_path / "registry.json"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match="move it away"):
        async with EmbeddedRegistry(file=file):
            pass
    assert file.read_text() == content


async def test_a_file_that_cannot_be_written_is_said_at_the_start(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be written"):
        async with EmbeddedRegistry(file=tmp_path / "none" / "registry.json"):
            pass


async def test_a_port_in_use_is_said_with_what_to_do(registry):
    with pytest.raises(ConfigurationError, match=f"in use.*--port.*consul://{registry.address}"):
        async with EmbeddedRegistry(port=int(registry.address.split(":")[1])):
            pass


@pytest.mark.parametrize(
    ("answer", "status"), [(204, "passing"), (429, "warning"), (500, "critical"), (301, "critical")]
)
async def test_an_http_check_goes_by_the_answers_status(answer, status):
    async def handle(request):
        assert request.headers["X-Secret"] == "s"
        return web.Response(status=answer)

    app = web.Application()
    app.router.add_post("/health", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/health"
    check = {"HTTP": url, "Method": "POST", "Header": {"X-Secret": ["s"]}, "Interval": "1s", "Name": "c"}
    clock = ManualClock()
    async with (
        EmbeddedRegistry(clock=clock) as registry,
        aiohttp.ClientSession(f"http://{registry.address}") as session,
    ):
        async with session.put("/v1/agent/check/register", json=check) as reply:
            assert reply.status == 200
        await clock.advance(1)
        async with asyncio.timeout(5):
            while True:
                async with session.get("/v1/agent/checks") as reply:
                    found = (await reply.json())["c"]
                if str(answer) in found["Output"]:
                    break
                await asyncio.sleep(0.01)
        assert found["Status"] == status
    await runner.cleanup()


async def test_checks_follow_the_world_and_end_with_their_registration(registry, ask):
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    check = {"TCP": f"127.0.0.1:{port}", "Interval": "1s", "Timeout": "1s"}
    await ask("/v1/agent/service/register", method="PUT", data=PASSING | {"Check": check})
    async with asyncio.timeout(10):
        while (await instances(ask))[0] != ["d1"]:
            await asyncio.sleep(0.05)
        server.close()
        await server.wait_closed()
        while (await instances(ask))[0] == ["d1"]:
            await asyncio.sleep(0.05)
    assert len(registry._checks._running) == 1
    await ask("/v1/agent/service/deregister/d1", method="PUT")
    await asyncio.sleep(0)
    assert registry._checks._running == {}
