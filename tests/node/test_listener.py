"""Connections over real sockets: full, slow, silent, flooding and deaf peers, and good ones beside them."""

import asyncio
import errno
import json
import logging
import resource
import socket
import ssl
import struct

import aiohttp
import pytest
from aiohttp import web

from node import machine
from node.connections import PRESSED, RESERVED_FOR, Connections, Limits
from node.listener import SWEEP, Listener, fit
from node.peer import LONGEST_HEAD
from node.tls import Certificates
from registry.testing import ManualClock
from tests.certificates import Authority

GET = b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"
LARGE = 32 << 20


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def clock():
    return ManualClock()


class World:
    """A listener with an application of a few paths; ``gate`` holds what asks for /held."""

    def __init__(self, clock, certificates, limits, send_buffer):
        self.send_buffer = send_buffer
        self.clock = clock
        self.certificates = certificates
        self.connections = Connections(limits)
        self.gate = asyncio.Event()
        self.ended = []
        app = web.Application(client_max_size=LARGE)
        app.router.add_get("/", self._text)
        app.router.add_get("/healthz", self._text)
        app.router.add_get("/held", self._held)
        app.router.add_get("/some", self._some)
        app.router.add_get("/large", self._large)
        app.router.add_post("/size", self._size)
        app.router.add_post("/unread", self._text)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def start(self):
        await self.runner.setup()
        sock = machine.listen("127.0.0.1", 0)
        if self.send_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer)  # accepted ones inherit it
        self.port = sock.getsockname()[1]
        self.site = Listener(
            self.runner, sock, self.connections, clock=self.clock, node="n1", certificates=self.certificates
        )
        await self.site.start()

    async def stop(self):
        self.gate.set()
        await self.runner.cleanup()

    async def _text(self, request):
        return web.Response(text="here")

    async def _some(self, request):
        return web.Response(body=b"x" * 40_000)

    async def _held(self, request):
        await self.gate.wait()
        return web.Response(text="held")

    async def _large(self, request):
        try:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"x" * LARGE)
            await response.write(b"x")
        except ConnectionError:
            self.ended.append("lost")
            raise
        return response

    async def _size(self, request):
        return web.Response(text=str(len(await request.read())))


@pytest.fixture
async def serve(clock):
    started = []

    async def start(certificates=None, *, send_buffer=0, **limits):
        world = World(clock, certificates, Limits(**limits), send_buffer)
        started.append(world)
        await world.start()
        return world

    yield start
    for world in started:
        await world.stop()


class Client:
    """A socket that says exactly what it is told to."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, data):
        self.writer.write(data)

    async def answer(self):
        """The next answer: status, headers, body."""
        async with asyncio.timeout(5):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.strip().split("\r\n")
            headers = {name.title(): value for name, value in (line.split(": ", 1) for line in lines)}
            return int(status.split()[1]), headers, await self.reader.readexactly(int(headers["Content-Length"]))

    async def ended(self):
        """Wait for the end; what came before it."""
        async with asyncio.timeout(5):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


@pytest.fixture
async def connect():
    made = []

    async def make(world, data=b"", *, tls=None):
        client = Client(*await asyncio.open_connection("127.0.0.1", world.port, ssl=tls))
        made.append(client)
        client.send(data)
        return client

    yield make
    for client in made:
        client.writer.transport.abort()


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


def refusal(body):
    said = json.loads(body)
    assert said["node"] == "n1"
    assert said["error"]
    return said["reason"]


async def held(world, connect):
    """A connection whose request is being handled."""
    busy = world.connections.open + 1
    client = await connect(world, b"GET /held HTTP/1.1\r\nHost: node\r\n\r\n")
    await until(lambda: world.connections.open == busy and not world.connections._waiting)
    return client


async def test_requests_are_answered_and_connections_kept(serve, connect, clock):
    world = await serve()
    client = await connect(world)
    for _ in range(3):
        client.send(GET)
        assert (await client.answer())[::2] == (200, b"here")
        await clock.advance(60.0)
    assert world.connections.open == 1
    client.send(GET * 5)  # pipelined
    for _ in range(5):
        assert (await client.answer())[0] == 200
    await clock.advance(74.0)
    assert world.connections.open == 1
    await clock.advance(2.0)
    assert await client.ended() == b""
    await until(lambda: world.connections.open == 0)
    assert world.connections.cut == {"idle": 1}


async def test_bodies_of_any_size_are_no_headers(serve, connect, clock):
    world = await serve()
    client = await connect(world)
    for _ in range(2):  # head and body in one piece, and again on the same connection
        client.send(b"POST /size HTTP/1.1\r\nHost: node\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
        assert (await client.answer())[::2] == (200, b"3000000")
    client.send(b"POST /unread HTTP/1.1\r\nHost: node\r\nContent-Length: 3000000\r\n\r\n")
    assert (await client.answer())[0] == 200
    for _ in range(30):  # the rest of a body that was answered before it came
        client.send(b"x" * 100_000)
        await clock.advance(SWEEP)
    client.send(GET)
    assert (await client.answer())[0] == 200
    assert world.connections.cut == {}


@pytest.mark.parametrize("keep", [False, True])
async def test_headers_that_drip_get_a_408_in_the_end(serve, connect, clock, keep):
    world = await serve(header_timeout=10.0)
    client = await connect(world)
    if keep:
        client.send(GET)
        await client.answer()
        await clock.advance(30.0)
    for byte in GET[:9]:
        client.send(bytes([byte]))
        await until(lambda: world.connections._waiting)
        await clock.advance(1.0)
    assert world.connections.open == 1
    await clock.advance(1.0 + SWEEP)
    status, headers, body = await client.answer()
    assert (status, headers["Connection"], refusal(body)) == (408, "close", "bad_request")
    assert await client.ended() == b""
    assert world.connections.cut == {"head": 1}


async def test_a_connection_that_says_nothing_ends_without_a_word(serve, connect, clock):
    world = await serve(header_timeout=10.0)
    client = await connect(world)
    await until(lambda: world.connections.open)
    await clock.advance(10.0 + SWEEP)
    assert await client.ended() == b""


async def test_a_request_that_is_worked_at_is_not_timed_by_its_connection(serve, connect, clock):
    world = await serve()
    client = await held(world, connect)
    await clock.advance(500.0)
    world.gate.set()
    assert (await client.answer())[0] == 200


async def test_when_all_are_busy_probes_are_answered_and_others_told_to_go_elsewhere(serve, connect, clock):
    world = await serve(most=2, reserved=2)
    for _ in range(2):
        await held(world, connect)
    probe = await connect(world, b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")
    status, headers, _ = await probe.answer()
    assert (status, headers["Connection"]) == (200, "close")
    assert await probe.ended() == b""
    await until(lambda: world.connections.open == 2)
    other = await connect(world, GET)
    status, headers, body = await other.answer()
    assert (status, headers["Connection"], headers["Retry-After"]) == (503, "close", "1")
    assert refusal(body) == "overloaded"
    assert await other.ended() == b""
    assert world.connections.counts()["refused"] == 1


async def test_past_the_reserved_places_a_503_comes_unasked(serve, connect, clock):
    world = await serve(most=1, reserved=1)
    await held(world, connect)
    await connect(world)
    await until(lambda: world.connections.open == 2)
    refused = await connect(world)
    status, headers, body = await refused.answer()
    assert (status, headers["Retry-After"], refusal(body)) == (503, "1", "overloaded")
    assert await refused.ended() == b""
    assert (world.connections.open, world.connections.refused) == (2, 1)
    await clock.advance(RESERVED_FOR)  # who says nothing in a reserved place does not keep it
    await until(lambda: world.connections.open == 1)
    probe = await connect(world, b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")
    assert (await probe.answer())[0] == 200


async def test_an_idle_connection_makes_room_for_a_new_one(serve, connect, clock):
    world = await serve(most=2)
    idle = await connect(world, GET)
    await idle.answer()
    await held(world, connect)
    await clock.advance(PRESSED)
    new = await connect(world, GET)
    assert (await new.answer())[0] == 200
    assert await idle.ended() == b""
    assert world.connections.cut == {"pressed": 1}


async def test_a_crowd_that_sends_nothing_does_not_keep_others_out(serve, connect, clock):
    world = await serve(most=20, reserved=2)
    crowd = [await connect(world, b"GET / HT") for _ in range(20)]
    await until(lambda: world.connections.open == 20)
    await clock.advance(PRESSED)
    for _ in range(10):
        good = await connect(world, GET)
        assert (await good.answer())[0] == 200
    assert (await crowd[0].ended())[:8] in {b"", b"HTTP/1.1"}
    assert world.connections.refused == 0


@pytest.mark.parametrize(
    "flood",
    [
        b"GET / HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer sesame" + b"y" * 100_000,
        b"GET /" + b"sesame" * 20_000,
        b"GET / HTTP/1.1\r\nHost: node\r\n" + b"".join(b"X-%d: sesame\r\n" % number for number in range(9_000)),
        b"GET / HTTP/1.1\r\nHost: node\r\nX: sesame" + b"y" * 8_000 + b"\r\n" + b"Z: " + b"z" * 9_000 + b"\r\n\r\n",
        b"sesame\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03sesame" + b"\0" * 500,
        b"GET / HTTP/1.1\r\nHost: node\r\nX: se\x00same\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_told_so_quietly_and_not_repeated(serve, connect, caplog, flood):
    caplog.set_level(logging.DEBUG)
    world = await serve()
    client = await connect(world)
    for start in range(0, len(flood), 8_192):
        client.send(flood[start : start + 8_192])
    said = await client.ended()
    if said:  # with bytes unread the kernel resets the connection, which may overtake the answer
        assert int(said.split()[1]) in {400, 431}
        assert refusal(said.partition(b"\r\n\r\n")[2]) == "bad_request"
    await until(lambda: world.connections.open == 0)
    assert b"sesame" not in said
    assert "sesame" not in caplog.text
    assert "Traceback" not in caplog.text
    good = await connect(world, GET)
    assert (await good.answer())[0] == 200


async def test_many_small_headers_are_too_large_together(serve, connect):
    world = await serve()
    client = await connect(world, b"GET / HTTP/1.1\r\nHost: node\r\n")
    for number in range(LONGEST_HEAD // 8_000 + 1):
        client.send(b"X-%d: " % number + b"y" * 8_000 + b"\r\n")
    status, _, body = await client.answer()
    assert (status, refusal(body)) == (431, "bad_request")
    assert await client.ended() == b""


async def test_a_peer_that_does_not_read_its_answer_does_not_hold_the_handler(serve, clock, caplog):
    world = await serve(write_timeout=30.0)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        await asyncio.get_running_loop().sock_connect(deaf, ("127.0.0.1", world.port))
        await asyncio.get_running_loop().sock_sendall(deaf, b"GET /large HTTP/1.1\r\nHost: node\r\n\r\n")
        await until(lambda: world.connections._stalled)
        await clock.advance(29.0)
        assert world.ended == []
        await clock.advance(1.0 + SWEEP)
        await until(lambda: world.ended == ["lost"])
        await until(lambda: world.connections.open == 0)
        assert world.connections.cut == {"write": 1}
    assert caplog.text == ""


async def test_a_slow_reader_gets_its_whole_answer(serve, connect, clock):
    world = await serve(write_timeout=1.0)
    client = await connect(world, b"GET /large HTTP/1.1\r\nHost: node\r\n\r\n")
    await until(lambda: world.connections._stalled)
    (peer,) = world.connections._stalled
    for _ in range(LARGE >> 22):
        before = peer.unsent
        await client.reader.readexactly(4 << 20)
        await until(lambda before=before: peer.unsent < before or not world.connections._stalled)
        await clock.advance(1.0)
    await client.reader.readuntil(b"\r\n1\r\nx\r\n0\r\n\r\n")
    assert world.connections.cut == {}


async def test_who_is_told_to_go_and_does_not_read_that_is_cut_off(serve, connect, clock):
    world = await serve(send_buffer=8192)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        await asyncio.get_running_loop().sock_connect(deaf, ("127.0.0.1", world.port))
        await asyncio.get_running_loop().sock_sendall(deaf, b"GET /some HTTP/1.1\r\nHost: node\r\n\r\n")
        await until(lambda: world.connections._idle)
        (peer,) = world.connections._idle
        assert peer.unsent > 0
        await clock.advance(75.0 + SWEEP)
        await until(lambda: world.connections.open == 0)
        assert world.connections.cut == {"idle": 1}


async def test_a_peer_that_resets_leaves_its_place(serve, connect, clock):
    world = await serve()
    for data in (b"", b"GET / HT", b"GET /held HTTP/1.1\r\nHost: node\r\n\r\n"):
        client = await connect(world, data)
        await until(lambda: world.connections.open == 1)
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
        await until(lambda: world.connections.open == 0)


async def test_tls_handshakes_count_and_have_the_headers_time(serve, connect, clock, authority):
    world = await serve(Certificates(*authority.issue("node")), most=2, reserved=1, header_timeout=10.0)
    silent = await connect(world)
    await until(lambda: world.connections.open == 1)
    good = await connect(world, GET, tls=ssl.create_default_context(cafile=authority.certificate))
    assert (await good.answer())[0] == 200
    (peer,) = world.connections._idle
    assert peer._wire.get_write_buffer_limits()[1] == 64 * 1024  # asyncio's own is 512 KiB
    assert world.connections.open == 2
    await clock.advance(10.0 + SWEEP)
    assert await silent.ended() == b""
    await until(lambda: world.connections.open == 1)
    assert world.connections.cut == {"head": 1}
    good.send(GET)
    assert (await good.answer())[0] == 200


async def test_what_is_no_tls_is_dropped_and_counted(serve, connect, authority):
    world = await serve(Certificates(*authority.issue("node")))
    plain = await connect(world, GET)
    await plain.ended()
    await until(lambda: world.connections.open == 0)
    assert world.connections.cut == {"handshake": 1}


async def test_a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on(serve, connect, authority):
    first, second = authority.issue("first"), authority.issue("second")
    certificates = Certificates(*first)
    world = await serve(certificates)
    tls = ssl.create_default_context(cafile=authority.certificate)

    async def shown():
        client = await connect(world, GET, tls=tls)
        assert (await client.answer())[0] == 200
        return client, dict(name for (name,) in client.writer.get_extra_info("peercert")["subject"])["commonName"]

    old, name = await shown()
    assert name == "first"
    for path, source in zip(first, second, strict=True):
        path.write_bytes(source.read_bytes())
    assert certificates.reload_if_changed()
    assert (await shown())[1] == "second"
    old.send(GET)
    assert (await old.answer())[0] == 200


async def test_a_full_node_that_speaks_tls_closes_without_plain_text(serve, connect, authority):
    world = await serve(Certificates(*authority.issue("node")), most=1, reserved=0)
    await connect(world)
    await until(lambda: world.connections.open == 1)
    refused = await connect(world)
    assert await refused.ended() == b""
    assert world.connections.refused == 1


async def test_stopping_ends_whatever_is_open(serve, connect, authority):
    world = await serve(Certificates(*authority.issue("node")))
    shaking = await connect(world)
    idle = await connect(world, GET, tls=ssl.create_default_context(cafile=authority.certificate))
    await idle.answer()
    assert world.site.name == f"https://127.0.0.1:{world.port}"
    await world.stop()
    assert await shaking.ended() == b""
    assert await idle.ended() == b""
    await until(lambda: world.connections.open == 0)
    with pytest.raises(ConnectionRefusedError):
        await connect(world)


class Exhausted:
    """A listening socket in a process that has no file descriptor left, for a while."""

    def __init__(self, sock):
        self.sock = sock
        self.refuses = True

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def accept(self):
        if self.refuses:
            raise OSError(errno.EMFILE, "Too many open files")
        return self.sock.accept()


async def test_a_connection_accepted_just_before_stopping_is_closed(serve, connect):
    world = await serve()
    waiting = socket.create_connection(("127.0.0.1", world.port))
    world.site._accept()
    assert world.connections.open == 1
    await world.stop()
    assert world.connections.open == 0
    assert waiting.recv(1) == b""
    waiting.close()


async def test_without_file_descriptors_it_waits_and_goes_on(serve, connect, clock, caplog):
    world = await serve()
    idle = await connect(world, GET)
    await idle.answer()
    await clock.advance(PRESSED)
    sock = world.site._sock = Exhausted(world.site._sock)
    client = await connect(world, GET)
    await until(lambda: "Too many open files; allow this process more open files (ulimit -n)" in caplog.text)
    for _ in range(3):
        await clock.advance(SWEEP)
        await asyncio.sleep(0.01)
    assert len(caplog.records) == 1
    assert await idle.ended() == b""  # it made room
    sock.refuses = False
    await clock.advance(SWEEP)
    assert (await client.answer())[0] == 200


def test_the_limit_of_open_files_is_raised_as_far_as_it_goes(monkeypatch, caplog):
    limits = Limits(most=1000, reserved=16)
    was = [(100, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: was[0])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: was.append(pair))
    assert fit(limits) == limits
    assert was.pop() == (1144, 4096)
    was[0] = (100, 500)
    assert fit(limits).most == 500 - 144
    assert was.pop() == (500, 500)
    assert "356 connections at most" in caplog.text
    for was[0] in ((100, resource.RLIM_INFINITY), (2000, 4096), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)):
        assert fit(limits) == limits
    assert was[1:] == [(1144, resource.RLIM_INFINITY)]

    def refuse(*_):
        raise ValueError

    monkeypatch.setattr(resource, "setrlimit", refuse)
    was[0] = (500, 4096)
    assert fit(limits).most == 500 - 144


async def test_the_smart_clients_way_of_asking_works_over_it(serve):
    world = await serve()
    async with aiohttp.ClientSession() as session:
        for _ in range(3):
            async with session.post(f"http://127.0.0.1:{world.port}/size", data=b"x" * 300_000) as reply:
                assert (reply.status, await reply.text()) == (200, "300000")
    await until(lambda: world.connections.open == 0)
