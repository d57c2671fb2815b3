"""Whatever is sent: a status below 500 and one line, and the registry goes on."""

import asyncio
import gc
import io
import json
import random
from urllib.parse import quote, urlencode

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from registry.embedded import EmbeddedRegistry

BODIES = {
    "nothing": b"",
    "no JSON": b"<html>",
    "half": b'{"Name": "s"',
    "no text": b"\xff\xfe",
    "NUL": b'{"Name": "\x00"}',
    "half a character": b'{"Name": "s", "ID": "\\ud800"}',
    "deep": b"[" * 100_000,
    "deep and whole": b'{"Check":' * 50_000 + b"1" + b"}" * 50_000,
    "huge": b'{"Name": "' + b"x" * 3_000_000 + b'"}',
    "a huge number": b'{"Name": "s", "Port": ' + b"9" * 5000 + b"}",
    "no number": b'{"Name": "s", "Port": NaN}',
    "a list": b"[]",
    "numbers": b'{"Name": 1, "ID": 2}',
    "an endless time": b'{"Name": "s", "TTL": "' + b"9" * 400 + b's"}',
    "a weight too heavy": b'{"Name": "s", "Weights": {"Passing": 9223372036854775808}}',
}
WRITES = ["/v1/agent/service/register", "/v1/agent/check/register", "/v1/agent/check/update/c"]
QUERIES = [
    "/v1/health/service/s?index=" + "9" * 5000,
    "/v1/health/service/s?index=١",
    "/v1/health/service/s?wait=" + "9" * 400 + "h",
    "/v1/health/service/s?wait=NaN",
    "/v1/health/service/s?filter=" + "(" * 4000,
    "/v1/health/service/s?filter=Service.ID+matches+`" + "(a%2b)%2b" * 100 + "`",
    "/v1/health/service/s%00%0A%ff/..%2f..",
    "/v1/kv/k?separator=%00&keys",
    "/v1/agent/service/%F0%9F%98%80",
    "/v1/agent/check/pass/" + "x" * 5000,
]
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["1h", "http://h/", "passing"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text()
            | st.sampled_from(
                [
                    "Name",
                    "ID",
                    "Port",
                    "Tags",
                    "Meta",
                    "Check",
                    "Checks",
                    "Weights",
                    "TTL",
                    "HTTP",
                    "Interval",
                    "Status",
                ]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@pytest.fixture
async def registry():
    async with EmbeddedRegistry() as registry:
        yield registry


@pytest.fixture
async def session(registry):
    async with aiohttp.ClientSession(f"http://{registry.address}") as session:
        yield session


async def still_right(session):
    """Whether everything can still be read."""
    for path in ("/v1/agent/services", "/v1/agent/checks", "/v1/health/state/any", "/v1/kv/?recurse"):
        async with session.get(path) as reply:
            assert reply.status in {200, 404}
            await reply.read()


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_hostile_body_is_refused_in_a_line(session, path, body):
    async with asyncio.timeout(30), session.put(path, data=io.BytesIO(body)) as reply:
        text = await reply.text()
        # A name may hold anything; the rest is refused.
        assert reply.status in ({200} if b"\x00" in body else set()) | {400, 404, 413}, text
        assert len(text.splitlines()) <= 1
        assert len(text) < 10_000
    await still_right(session)


@pytest.mark.parametrize("path", QUERIES)
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_a_hostile_query_is_answered(session, method, path):
    async with asyncio.timeout(30), session.request(method, path) as reply:
        assert reply.status < 500
        assert len((await reply.text()).splitlines()) <= 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200_000 + b"\r\n",
        b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x00\x00 this is TLS\r\n\r\n",
    ],
)
async def test_a_flood_of_headers_is_refused_and_the_connection_closed(registry, session, head, caplog):
    reader, writer = await asyncio.open_connection(*registry.address.split(":"))
    async with asyncio.timeout(30):
        try:
            writer.write(head)
            answer = await reader.read()
        except ConnectionError:
            answer = b""  # closed while we were still talking
    writer.close()
    assert answer == b"" or answer.split()[1].startswith(b"4")
    assert caplog.records == []  # a log that strangers can fill
    await still_right(session)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(bodies=st.lists(st.tuples(st.sampled_from(WRITES), ANYTHING), max_size=8))
async def test_no_body_breaks_it(registry, bodies):
    async with aiohttp.ClientSession(f"http://{registry.address}") as session:
        for path, body in bodies:
            async with session.put(path, data=json.dumps(body)) as reply:
                assert reply.status in {200, 400, 404}
                assert len((await reply.text()).splitlines()) <= 1
        await still_right(session)


OPTIONS = st.sampled_from(["flags", "cas", "keys", "recurse", "raw", "separator", "acquire", "index", "dc"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.text(min_size=1), st.binary(max_size=50), st.dictionaries(OPTIONS, st.text(), max_size=3))
async def test_no_key_breaks_it(registry, key, value, options):
    async with aiohttp.ClientSession() as session:
        url = URL(f"http://{registry.address}/v1/kv/{quote(key, safe='')}?{urlencode(options)}", encoded=True)
        for method in ("PUT", "GET", "DELETE"):
            async with session.request(method, url, data=value) as reply:
                assert reply.status < 500 or await reply.text() == "No path to datacenter"
    async with aiohttp.ClientSession(f"http://{registry.address}") as session:
        await still_right(session)


async def test_readers_that_come_and_go_leave_nothing_behind(registry, session):
    async def come_and_go(number):
        _, writer = await asyncio.open_connection(*registry.address.split(":"))
        writer.write(b"GET /v1/health/service/s-%d?index=1 HTTP/1.1\r\nHost: x\r\n\r\n" % number)
        return writer

    async def objects(rounds):
        for _ in range(rounds):
            writers = [await come_and_go(rng.randrange(50)) for _ in range(100)]
            while registry.snapshot()["waiting"] < len(writers):
                await asyncio.sleep(0.01)
            for writer in writers:
                writer.close()
            while registry.snapshot()["waiting"]:
                await asyncio.sleep(0.01)
            await asyncio.gather(*(writer.wait_closed() for writer in writers))
            while len(registry._runner.server.connections) > 1:
                await asyncio.sleep(0.01)
        gc.collect()
        return len(gc.get_objects()), len(asyncio.all_tasks())

    rng = random.Random(1)
    await still_right(session)
    warm, tasks = await objects(2)
    after, left = await objects(10)
    assert left == tasks
    assert after - warm < 1000  # less than one object a reader
