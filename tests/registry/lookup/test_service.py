"""The look-up service over real sockets, in front of a scripted registry."""

import asyncio
import gc
import json
import logging
import socket
from contextlib import asynccontextmanager

import aiohttp
import pytest

from registry.errors import ConfigurationError
from registry.lookup.hub import FEED_IDLE
from registry.lookup.journal import PIECE
from registry.lookup.outlet import PATIENCE
from registry.lookup.service import LookupService
from registry.lookup.subset import Subset
from registry.lookup.wire import Change, Part, decode_line, decode_listing
from registry.model import Health
from registry.testing import ManualClock, instance
from registry.token import Token
from tests.registry.lookup.support import Lines, Upstream, eventually, get

DIGITS = "/v1/lookup/digits"
THREE = [
    instance(1, zone="eu", version="7", tags=("Blue",), meta={"zone": "eu", "version": "7", "gpu": "a100"}, node="n1"),
    instance(2, zone="us", version="8", weight=3),
    instance(3, zone="eu", health=Health.DRAINING),
]


class World:
    def __init__(self, upstream, clock, service, session):
        self.upstream, self.clock, self.service, self.session = upstream, clock, service, session

    @asynccontextmanager
    async def stream(self, query="", **options):
        async with self.session.get(f"{DIGITS}/stream{query}", **options) as response:
            assert response.status == 200, await response.text()
            yield Lines(response)

    async def get(self, path, **options):
        return await get(self.session, path, **options)

    async def ids(self, query=""):
        status, _, body = await self.get(f"{DIGITS}{query}")
        assert status == 200, body
        return [each["id"] for each in body["instances"]]


@asynccontextmanager
async def serving(instances=THREE, **options):
    clock = ManualClock()
    upstream = Upstream(instances, clock)
    async with LookupService(upstream, port=0, clock=clock, **options) as service:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(f"http://{service.address}", connector=connector) as session:
            yield World(upstream, clock, service, session)
    assert upstream.followed == []


@pytest.fixture
async def world():
    async with serving() as world:
        yield world


async def test_a_listing_is_compact_and_says_its_index_and_age(world):
    async with world.session.get(DIGITS) as response:
        body = await response.read()
    assert (response.status, response.content_type) == (200, "application/json")
    listing = decode_listing(body)
    assert response.headers["ETag"] == f'"{listing.index}"'
    assert response.headers["Cache-Control"] == "max-age=1"
    assert (response.headers["Stale-For"], listing.stale_for) == ("0.000", 0.0)
    assert json.loads(body)["instances"] == [
        {
            "id": "digits-1", "address": "127.0.0.1", "port": 9001, "zone": "eu", "version": "7", "node": "n1",
            "tags": ["Blue"], "meta": {"gpu": "a100"},
        },
        {"id": "digits-2", "address": "127.0.0.1", "port": 9002, "zone": "us", "version": "8", "weight": 3},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", [1, 2]),
        ("?passing=1", [1, 2]),
        ("?passing=0", [1, 2, 3]),
        ("?tag=blue", [1]),
        ("?zone=eu", [1]),
        ("?zone=eu&passing=0", [1, 3]),
        ("?version=8", [2]),
        ("?meta=gpu:a100", [1]),
        ("?meta=gpu:a100&meta=zone:us", []),
        ("?zone=nowhere", []),
    ],
)
async def test_filters_narrow_listings_and_streams_alike(world, query, numbers):
    wanted = [f"digits-{number}" for number in numbers]
    assert await world.ids(query) == wanted
    async with world.stream(query) as lines:
        await lines.until(wanted)
        if wanted:  # the one taken away is seen going
            world.upstream.set(each for each in THREE if each.id != wanted[0])
            await lines.until(wanted[1:])


async def test_a_service_nobody_registered_is_an_empty_list(world):
    status, _, body = await world.get("/v1/lookup/nothing")
    assert (status, body["instances"]) == (200, [])


async def test_a_client_gets_its_own_stable_part():
    many = [instance(number) for number in range(100)]
    async with serving(many) as world:
        subset = Subset("me", 5)
        for _ in subset.scan([each.id for each in many]):
            pass
        assert set(await world.ids("?limit=5&client=me")) == subset.members
        async with world.stream("?limit=5&client=me") as lines:
            await lines.until(sorted(subset.members))
            lost = min(subset.members)
            world.upstream.set(each for each in many if each.id != lost)
            change = await lines.next()
        assert (change.removed, len(change.changed)) == ((lost,), 1)


async def test_the_same_list_is_not_sent_again(world):
    _, headers, _ = await world.get(DIGITS)
    status, again, body = await world.get(DIGITS, headers={"If-None-Match": headers["ETag"]})
    assert (status, body, again["ETag"]) == (304, None, headers["ETag"])
    assert "Stale-For" in again
    world.upstream.set(THREE[:1])
    await eventually(lambda: world.service.snapshot()["services"] == {"digits": 1}, "the change is seen")
    status, _, _ = await world.get(DIGITS, headers={"If-None-Match": headers["ETag"]})
    assert status == 200


async def test_a_large_listing_arrives_whole_compressed_or_not():
    many = [instance(number, node="x" * 100) for number in range(3000)]
    async with serving(many) as world:
        for encoding, sent in (("identity", None), ("gzip", "gzip")):
            status, headers, body = await world.get(DIGITS, headers={"Accept-Encoding": encoding})
            assert (status, headers.get("Content-Encoding")) == (200, sent)
            assert len(body["instances"]) == 3000


async def poll(world, query):
    task = asyncio.create_task(world.get(f"{DIGITS}{query}"))
    await eventually(lambda: task.done() or world.service.snapshot()["readers"] == 1, "the request waits")
    return task


async def test_a_long_poll_is_answered_by_the_change(world):
    index = (await world.get(DIGITS))[2]["index"]
    task = await poll(world, f"?index={index}")
    assert not task.done()
    world.upstream.set(THREE[:1])
    status, _, body = await task
    assert (status, [each["id"] for each in body["instances"]]) == (200, ["digits-1"])
    assert body["index"] > index


async def test_a_long_poll_of_a_filtered_list_sleeps_through_changes_elsewhere(world):
    index = (await world.get(f"{DIGITS}?zone=us"))[2]["index"]
    task = await poll(world, f"?zone=us&index={index}&wait=10s")
    world.upstream.set(THREE[1:])
    await eventually(lambda: world.service.snapshot()["services"] == {"digits": 2}, "the change is seen")
    await world.clock.settle()
    assert not task.done()
    await world.clock.advance(11)
    assert (await task)[2]["index"] == index


async def test_a_long_poll_ends_with_the_list_as_it_is(world):
    index = (await world.get(DIGITS))[2]["index"]
    task = await poll(world, f"?index={index}&wait=20s")
    await world.clock.advance(19.9)
    assert not task.done()
    await world.clock.advance(1.4)  # the time, and a sixteenth of it
    assert (await task)[2]["index"] == index


async def test_an_index_from_before_a_restart_is_not_kept_waiting(world):
    index = (await world.get(DIGITS))[2]["index"]
    task = await poll(world, f"?index={index + 10**6}&wait=10m")
    await world.clock.advance(2.1)
    assert (await task)[2]["index"] == index


async def test_a_past_index_is_answered_at_once(world):
    assert (await world.get(f"{DIGITS}?index=1&wait=10m"))[0] == 200


async def test_a_stream_is_a_snapshot_then_changes_then_heartbeats(world):
    async with world.stream() as lines:
        assert lines.response.content_type == "application/x-ndjson"
        await lines.until(["digits-1", "digits-2"])
        world.upstream.set(THREE[:1])
        await lines.until(["digits-1"])
        await eventually(lambda: world.service.snapshot()["readers"] == 1, "it follows")
        await world.clock.advance(15)
        heartbeat = await lines.until_heartbeat()
        assert (heartbeat.index, heartbeat.stale_for) == (lines.replica.index, 0.0)
        assert [type(each) for each in lines.seen[:2]] == [Part, Change]


async def test_a_stream_goes_on_from_a_known_index(world):
    async with world.stream() as lines:
        await lines.until(["digits-1", "digits-2"])
        index = lines.replica.index
        world.upstream.set(THREE[:1])
        await lines.until(["digits-1"])
    async with world.stream(f"?index={index}") as lines:
        change = decode_line(await lines.response.content.readline())
    assert (change.removed, change.changed) == (("digits-2",), ())


async def test_an_outage_is_told_at_once_and_changes_nothing_else(world):
    async with world.stream() as lines:
        await lines.until(["digits-1", "digits-2"])
        world.upstream.fail()
        await world.clock.advance(5)
        assert (await lines.until_heartbeat()).stale_for >= 1
        status, headers, body = await world.get(DIGITS)
        assert (status, len(body["instances"])) == (200, 2)
        assert body["stale_for"] == float(headers["Stale-For"]) == 5.0
        world.upstream.heal()
        await world.clock.advance(1)
        while (await lines.until_heartbeat()).stale_for:
            pass


async def test_a_registry_that_never_answered_is_unavailable_and_then_served():
    async with serving() as world:
        world.upstream.fail()
        task = asyncio.create_task(world.get(DIGITS))
        await eventually(lambda: world.upstream.followed, "it is asked for")
        await world.clock.advance(5)
        status, headers, body = await task
        assert (status, body["reason"], headers["Retry-After"]) == (503, "unavailable", "5")
        world.upstream.heal()
        assert len(await world.ids()) == 2


async def test_one_watch_serves_all(world):
    for query in ("", "?zone=eu", "?limit=1&client=me", ""):
        await world.ids(query)
    assert world.upstream.followed == ["digits"]


async def test_a_service_nobody_asks_for_is_no_longer_followed(world):
    await world.ids()
    async with world.stream() as lines:
        await lines.until(["digits-1", "digits-2"])
        await world.clock.advance(FEED_IDLE + 5)
        assert world.upstream.followed == ["digits"]
    await eventually(lambda: world.service.snapshot()["readers"] == 0, "the reader is gone")
    await world.clock.advance(FEED_IDLE + 5)
    assert world.upstream.followed == []
    assert len(await world.ids()) == 2


async def test_a_watch_that_ends_ends_its_streams_and_begins_anew(world, caplog):
    async with world.stream() as lines:
        await lines.until(["digits-1", "digits-2"])
        await world.service._hub.feeds["digits"]._watch.aclose()
        assert await lines.next() is None
    assert "following digits ended" in caplog.text
    assert len(await world.ids()) == 2


async def test_services_are_bounded_but_unknown_names_make_room():
    async with serving([*THREE, instance(1, "photos")], services=2) as world:
        await world.ids()
        for number in range(10):
            assert (await world.get(f"/v1/lookup/guess-{number}"))[0] == 200
        assert (await world.get("/v1/lookup/photos"))[0] == 200
        status, headers, body = await world.get("/v1/lookup/guess")
        assert (status, body["reason"]) == (503, "full")
        assert "Retry-After" in headers
        assert sorted(world.upstream.followed) == ["digits", "photos"]


async def test_readers_are_bounded():
    async with serving(readers=2) as world, world.stream() as first, world.stream() as second:
        status, _, body = await world.get(f"{DIGITS}/stream")
        assert (status, body["reason"]) == (503, "full")
        assert len(await world.ids()) == 2
        first.response.close()
        await eventually(lambda: world.service.snapshot()["readers"] == 1, "one is gone")
        async with world.stream() as third:
            await third.until(["digits-1", "digits-2"])
        await second.until(["digits-1", "digits-2"])


async def test_only_services_on_the_allow_list_are_served():
    async with serving([*THREE, instance(1, "team-a")], allow=("digits", "team-*")) as world:
        assert (await world.get(DIGITS))[0] == (await world.get("/v1/lookup/team-a"))[0] == 200
        for path in ("/v1/lookup/team", "/v1/lookup/Digits", "/v1/lookup/secret", "/v1/lookup/secret/stream"):
            status, _, body = await world.get(path)
            assert (status, body["reason"]) == (404, "not_found")
        assert set(world.upstream.followed) == {"digits", "team-a"}


async def test_a_token_is_demanded_and_may_be_replaced(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "token"
    path.write_text("first-secret\n")
    async with serving(token=Token(path=path)) as world:

        async def ask(given, where=DIGITS):
            headers = {} if given is None else {"Authorization": given}
            return await get(world.session, where, headers=headers)

        for given in (None, "", "first-secret", "Bearer", "Bearer wrong", "Basic first-secret", "Bearer é"):
            for where in (DIGITS, f"{DIGITS}/stream", "/metrics", "/nowhere"):
                status, headers, body = await ask(given, where)
                assert (status, headers["WWW-Authenticate"], body["reason"]) == (401, "Bearer", "unauthorized")
                assert "secret" not in str(body)
        status, headers, _ = await ask("bearer first-secret")
        assert (status, headers["Cache-Control"]) == (200, "private, max-age=1")
        path.write_text("other-secret\n")
        assert (await ask("Bearer first-secret"))[0] == 401
        assert (await ask("Bearer other-secret"))[0] == 200
        for where in ("/healthz", "/readyz"):
            async with world.session.get(where) as response:
                assert response.status == 200
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        (f"{DIGITS}?zoen=eu", 400, "bad_request"),
        (f"{DIGITS}?wait=x&index=1", 400, "bad_request"),
        (f"{DIGITS}/stream?wait=3s", 400, "bad_request"),
        (f"{DIGITS}?limit=3", 400, "bad_request"),
        ("/v1/lookup/", 404, "not_found"),
        ("/v1/lookup/a%2Fb", 404, "not_found"),
        ("/v1/lookup/%2E%2E", 404, "not_found"),
        ("/v1/lookup/a%0Ab", 404, "not_found"),
        (f"/v1/lookup/{'x' * 300}", 404, "not_found"),
        ("/v1/health/service/digits", 404, "not_found"),
    ],
)
async def test_what_is_not_served_is_refused_in_json(world, path, status, reason):
    from yarl import URL

    answered, headers, body = await world.get(URL(f"http://{world.service.address}{path}", encoded=True))
    assert (answered, body["reason"]) == (status, reason)
    assert headers["Content-Type"].startswith("application/json")
    assert "\n" not in body["error"]
    assert world.upstream.followed == []


async def test_only_get_is_served(world):
    for method in ("POST", "PUT", "DELETE", "HEAD"):
        async with world.session.request(method, DIGITS) as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET " + b"/x" * 9000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v1/lookup/digits/stream HTTP/1.0\r\n\r\n",
        b"GET /v1/lookup/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/lookup/digits?tag=%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
)
async def test_hostile_requests_are_answered_and_nothing_breaks(world, text, caplog):
    host, port = world.service.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(text)
    async with asyncio.timeout(20):
        answer = await reader.read(12)
    writer.close()
    assert answer.startswith(b"HTTP/1.")
    assert len(await world.ids()) == 2
    assert "Traceback" not in caplog.text


def silent_reader(world):
    """A reader that takes nothing, with small buffers."""
    host, port = world.service.address.split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    connection.sendall(f"GET {DIGITS}/stream HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    connection.setblocking(False)
    return connection


def large(version):
    return [instance(number, version=version, node="n" * 2000) for number in range(400)]


async def churn(world, versions):
    async with world.stream() as lines:
        for version in versions:
            world.upstream.set(large(version))
            while {each.version for each in lines.replica.instances} != {version}:
                await lines.next()


async def test_a_reader_that_takes_nothing_for_a_while_is_sent_the_list_anew():
    async with serving(large("0")) as world:
        connection = silent_reader(world)
        await eventually(lambda: world.service.snapshot()["readers"] == 1, "it reads")
        await churn(world, [f"v{number}" for number in range(20)])  # 16 MB
        reader, writer = await asyncio.open_connection(sock=connection)
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        lines = Lines(aiohttp_like(reader))
        while {each.version for each in lines.replica.instances} != {"v19"}:
            assert await lines.next() is not None
        assert lines.resyncs() >= 1
        assert len(lines.seen) < 200
        writer.close()


def aiohttp_like(reader):
    """The chunks of a response, joined into lines."""

    class Content:
        rest = b""

        async def readline(self):
            while b"\n" not in self.rest:
                size = int(await reader.readline(), 16)
                self.rest += (await reader.readexactly(size + 2))[:-2]
            line, _, self.rest = self.rest.partition(b"\n")
            return line

    return type("Response", (), {"content": Content()})


async def test_a_reader_that_takes_nothing_is_cut_off_and_others_are_not():
    async with serving(large("0")) as world, world.stream() as lines:
        connection = silent_reader(world)
        await eventually(lambda: world.service.snapshot()["readers"] == 2, "both read")
        await churn(world, ["a", "b", "c", "d"])
        # No more than one piece is kept for it.
        waited_for = list(world.service._hub.patience._since)
        assert waited_for
        assert max(each.get_write_buffer_size() for each in waited_for) <= PIECE
        await world.clock.advance(PATIENCE - 2)
        assert world.service.snapshot()["readers"] == 2
        while not lines.replica.instances or lines.replica.instances[0].version != "d":
            await lines.next()
        await world.clock.advance(4)
        await eventually(lambda: world.service.snapshot()["readers"] == 1, "the silent one is gone")
        assert "lookup_readers_cut_off_total 1.0" in await metrics(world)
        connection.close()
        world.upstream.set(THREE[:1])
        await lines.until(["digits-1"])


async def metrics(world):
    async with world.session.get("/metrics") as response:
        assert response.status == 200
        return await response.text()


async def test_metrics_tell_what_goes_on(world):
    await world.get("/nowhere")
    await world.ids()
    async with world.stream() as lines:
        await lines.until(["digits-1", "digits-2"])
        world.upstream.set(THREE[:1])
        await lines.until(["digits-1"])
        world.upstream.fail()
        await world.clock.advance(30)
        text = (await metrics(world)).splitlines()
    for line in (
        'lookup_requests_total{code="404",kind="other"} 1.0',
        'lookup_requests_total{code="200",kind="listing"} 1.0',
        'lookup_instances{service="digits"} 1.0',
        'lookup_unconfirmed_seconds{service="digits"} 30.0',
        "lookup_readers 1.0",
        "lookup_services 1.0",
        "lookup_deltas_sent_total 1.0",
        "lookup_snapshots_sent_total 1.0",
        "lookup_resyncs_sent_total 0.0",
    ):
        assert line in text


async def test_stopping_ends_streams_cleanly_and_answers_those_who_wait():
    async with aiohttp.ClientSession() as session:
        clock = ManualClock()
        async with LookupService(Upstream(THREE, clock), port=0, clock=clock) as service:
            base = f"http://{service.address}{DIGITS}"
            index = (await get(session, base))[2]["index"]
            waiting = asyncio.create_task(get(session, f"{base}?index={index}&wait=10m"))
            stream = await session.get(f"{base}/stream")
            lines = Lines(stream)
            await lines.until(["digits-1", "digits-2"])
            await eventually(lambda: service.snapshot()["readers"] == 2, "both wait")
        assert await lines.next() is None  # a clean end, or reading would have raised
        assert (await waiting)[2]["index"] == index
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(base)


async def test_a_port_in_use_is_a_clear_error(world):
    port = int(world.service.address.split(":")[1])
    with pytest.raises(ConfigurationError, match=f"port {port} on 127.0.0.1 is in use; choose another"):
        async with LookupService(Upstream(clock=world.clock), port=port):
            pass


async def test_readers_that_come_and_go_leave_nothing():
    async with serving() as world:

        async def come_and_go():
            async with world.stream() as lines:
                await lines.until(["digits-1", "digits-2"])

        async def generation(count):
            for _ in range(count // 50):
                await asyncio.gather(*(come_and_go() for _ in range(50)))
            await eventually(lambda: world.service.snapshot()["readers"] == 0, "all are gone")
            gc.collect()
            return len(gc.get_objects())

        before = await generation(200)
        assert await generation(1000) - before < 500
