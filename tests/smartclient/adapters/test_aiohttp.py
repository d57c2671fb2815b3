"""An aiohttp session through the balancer: by its connector, and by a middleware."""

import asyncio
import hashlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import aiohttp
import pytest
from aiohttp import web

from registry.testing import ScriptedDirectory, instance
from smartclient import attempt
from smartclient.adapters.aiohttp import SmartConnector, SmartMiddleware
from smartclient.client import AsyncSmartClient
from smartclient.errors import BadOption, CallFailed, NoEndpoints

URL = "http://digits.service.consul"
QUICK = aiohttp.ClientTimeout(total=0.3)


@asynccontextmanager
async def by_connector(registry: object, **options: object) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=SmartConnector(registry), **options) as session:
        yield session


@asynccontextmanager
async def by_middleware(
    registry: object, *, idempotent: bool | None = None, **options: object
) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        SmartMiddleware(registry, idempotent=idempotent, policy="rotation") as smart,
        aiohttp.ClientSession(middlewares=(smart,), **options) as session,
    ):
        yield session


def client_behind(session: aiohttp.ClientSession) -> AsyncSmartClient:
    smart = session.connector if isinstance(session.connector, SmartConnector) else session._middlewares[0]
    return smart._errands.at("http", "digits.service.consul")


def endpoint_behind(session: aiohttp.ClientSession, number: int = 0) -> dict[str, object]:
    return client_behind(session).snapshot()["balancer"]["endpoints"][number]


@pytest.fixture(params=[by_connector, by_middleware])
def through(request):
    """Open a session either way; what holds for both is tested over both."""
    return request.param


async def settle() -> None:
    """Let what is due in the event loop happen."""
    for _ in range(5):
        await asyncio.sleep(0)


@contextmanager
def swallowing() -> Iterator[int]:
    """A port that takes no more connections and refuses none: its queue is full, and the kernel drops what comes."""
    with socket.socket() as full, ExitStack() as others:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        yield full.getsockname()[1]


async def ask(session: aiohttp.ClientSession, method: str = "POST", path: str = "/classify", **options: object) -> str:
    """The node that answered."""
    async with session.request(method, URL + path, **options) as response:
        assert response.status == 200
        return (await response.json())["node"]


async def test_requests_go_to_the_nodes_in_turn(through, fleet, at) -> None:
    async with through(at(*await fleet(3))) as session:
        asked = Counter([await ask(session, data=b"png") for _ in range(9)])
    assert asked == {"digits-1": 3, "digits-2": 3, "digits-3": 3}


async def test_many_at_once_are_spread_too(through, fleet, at) -> None:
    async with through(at(*await fleet(3))) as session:
        asked = Counter(await asyncio.gather(*(ask(session, data=b"png") for _ in range(300))))
    assert asked == {"digits-1": 100, "digits-2": 100, "digits-3": 100}


async def test_the_node_sees_the_request_as_it_was_and_the_program_its_own_url(through, fleet, at) -> None:
    async def handler(request: web.Request) -> web.Response:
        told = {"path": request.raw_path, "host": request.host, "sent": request.headers["X-Sent"]}
        return web.json_response(told, headers={"Set-Cookie": "session=1"})

    async with through(at(*await fleet(1, handler))) as session:
        url = f"{URL}:8080/v2/a%20b"
        async with session.get(url, params={"q": "1&2"}, headers={"X-Sent": "yes"}) as response:
            told = await response.json()
        assert told == {"path": "/v2/a%20b?q=1%262", "host": "digits.service.consul:8080", "sent": "yes"}
        assert str(response.url) == f"{url}?q=1%262"
        assert session.cookie_jar.filter_cookies(response.url)["session"].value == "1"


async def test_a_dead_node_costs_no_failed_call_and_is_soon_left_out(through, fleet, at) -> None:
    nodes = await fleet(3)
    await nodes[0].stop()
    async with through(at(*nodes)) as session:
        asked = Counter([await ask(session, data=b"png") for _ in range(30)])
        states = {each["id"]: each["state"] for each in client_behind(session).snapshot()["balancer"]["endpoints"]}
    assert set(asked) == {"digits-2", "digits-3"}
    assert states[nodes[0].address] == "ejected"


async def test_a_host_that_swallows_packets_costs_a_short_wait_only(through, fleet, at, monkeypatch) -> None:
    monkeypatch.setattr(attempt, "CONNECT_TIMEOUT", 0.2)
    with swallowing() as port:
        async with through(at(port, *await fleet(1)), timeout=aiohttp.ClientTimeout(total=20)) as session:
            assert [await ask(session, data=b"png") for _ in range(2)] == ["digits-1", "digits-1"]
            assert client_behind(session).snapshot()["calls"]["retries"] > 0


async def test_the_sessions_time_for_connecting_counts(at) -> None:
    with swallowing() as port:
        async with by_connector(at(port), timeout=aiohttp.ClientTimeout(connect=0.2)) as session:
            with pytest.raises(aiohttp.ConnectionTimeoutError):
                await ask(session)


async def test_other_hosts_are_left_alone(through, fleet, at) -> None:
    [node, other] = await fleet(2)
    async with through(at(node)) as session, session.get(f"http://{other.address}/") as response:
        assert (await response.json())["node"] == "digits-2"
    assert node.seen == []


async def test_a_relative_redirect_is_a_new_choice(through, fleet, at) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/old":
            raise web.HTTPFound("/new")
        return web.json_response({"node": request.url.port})

    nodes = await fleet(2, handler)
    async with through(at(*nodes)) as session, session.get(f"{URL}/old") as response:
        assert str(response.url) == f"{URL}/new"
    assert [len(node.seen) for node in nodes] == [1, 1]


async def test_large_bodies_stream_both_ways(through, fleet, at, big) -> None:
    async def upload() -> AsyncIterator[bytes]:
        for piece in big.pieces():
            yield piece

    [node] = await fleet(1, big.streaming)
    got = 0
    async with through(at(node)) as session:
        with big.memory_bound():
            async with session.post(f"{URL}/?send={big.SIZE}", data=upload()) as response:
                assert response.headers["X-Got"] == str(big.SIZE)
                async for piece in response.content.iter_chunked(1 << 16):
                    got += len(piece)
    assert got == big.SIZE


async def test_a_node_is_busy_until_its_answer_is_read_or_dropped(through, fleet, at, big) -> None:
    [node] = await fleet(1, big.streaming)
    async with through(at(node)) as session:
        async with session.get(f"{URL}/?send=10000000") as response:
            await settle()
            assert endpoint_behind(session)["in_flight"] == 1
            await response.read()
        await settle()
        assert endpoint_behind(session)["in_flight"] == 0
        async with session.get(f"{URL}/?send=10000000"):
            await settle()
            assert endpoint_behind(session)["in_flight"] == 1
        await settle()
        assert endpoint_behind(session)["in_flight"] == 0


async def test_a_websocket_goes_to_a_node_too(through, fleet, at) -> None:
    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(f"hello {await socket.receive_str()}")
        await socket.close()
        return socket

    async with (
        through(at(*await fleet(1, handler))) as session,
        session.ws_connect("ws://digits.service.consul/chat") as socket,
    ):
        await socket.send_str("you")
        assert await socket.receive_str() == "hello you"


async def test_cancelling_leaves_nothing_behind(through, fleet, at) -> None:
    begun = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        begun.set()
        await asyncio.sleep(60)
        return web.Response()

    [node] = await fleet(1, handler)
    async with through(at(node)) as session:
        call = asyncio.create_task(ask(session))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await settle()
        assert endpoint_behind(session)["in_flight"] == 0
        assert not session.connector._acquired


async def test_a_post_that_was_sent_is_not_sent_again(through, raw_server, cutting, fleet, at) -> None:
    port = await raw_server(cutting)
    async with through(at(port, *await fleet(1))) as session:
        results = await asyncio.gather(*(ask(session, data=b"png") for _ in range(2)), return_exceptions=True)
    assert len(cutting.heads) == 1
    [error] = [each for each in results if isinstance(each, Exception)]
    assert isinstance(error, aiohttp.ClientConnectionError)


async def test_a_get_that_was_cut_off_is_answered_by_another_node(through, raw_server, cutting, fleet, at) -> None:
    port = await raw_server(cutting)
    async with through(at(port, *await fleet(1))) as session:
        assert [await ask(session, "GET") for _ in range(2)] == ["digits-1", "digits-1"]
    assert cutting.heads


@pytest.mark.parametrize("path", ["https://digits.service.consul/", "http://v2.digits.service.consul/"])
async def test_a_url_that_cannot_be_asked_for_says_so(through, path: str) -> None:
    async with through("static://127.0.0.1:1") as session:
        with pytest.raises(aiohttp.InvalidUrlClientError, match=r"; write .*digits\.service\.consul"):
            await session.get(path)


async def test_nobody_there_is_no_connection_with_the_reasons(through, fleet, at) -> None:
    nodes = await fleet(2)
    for node in nodes:
        await node.stop()
    async with through(at(*nodes)) as session:
        with pytest.raises(aiohttp.ClientConnectorError, match=f"{nodes[0].address}: connection refused") as raised:
            await ask(session)
    assert isinstance(raised.value.__cause__, CallFailed)
    assert "digits.service.consul:80" in str(raised.value)


async def test_a_service_without_nodes_is_no_connection(through) -> None:
    async with through(ScriptedDirectory([])) as session:
        with pytest.raises(aiohttp.ClientConnectorError, match="no instance of 'digits' is registered") as raised:
            await ask(session)
    assert isinstance(raised.value.__cause__, NoEndpoints)


async def test_the_sessions_timeout_counts(through, fleet, at) -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    nodes = await fleet(2, handler)
    async with through(at(*nodes)) as session:
        for method in ("GET", "POST"):
            with pytest.raises(TimeoutError):
                await ask(session, method, timeout=QUICK)
    assert sum(len(node.seen) for node in nodes) == 2  # no node is asked once the time is up


async def test_a_connector_closes_all_with_its_session(fleet, at) -> None:
    connector = SmartConnector(at(*await fleet(1)))
    async with aiohttp.ClientSession(connector=connector) as session:
        await ask(session)
        client = client_behind(session)
    assert client.snapshot()["closed"]
    assert connector.closed


async def test_a_connectors_own_options_and_its_clients(fleet, at) -> None:
    connector = SmartConnector(at(*await fleet(2)), limit=7, client={"attempts": 1, "policy": "p2c"})
    async with aiohttp.ClientSession(connector=connector) as session:
        await ask(session)
        assert connector.limit == 7
        assert client_behind(session).snapshot()["balancer"]["policy"] == "p2c"


async def test_an_answer_of_503_is_tried_elsewhere_when_that_is_safe(fleet, at) -> None:
    async def busy(request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": "1"}, text="busy")

    [bad] = await fleet(1, busy)
    [good] = await fleet(1)
    async with by_middleware(at(bad, good)) as session:
        assert [await ask(session, "GET") for _ in range(4)] == ["digits-2"] * 4
    async with by_middleware(at(bad, good), idempotent=True) as session:
        assert [await ask(session, data=b"png") for _ in range(4)] == ["digits-2"] * 4
    async with by_middleware(at(bad)) as session, session.post(URL) as response:
        assert (response.status, await response.text()) == (503, "busy")
    assert {each["x-envoy-attempt-count"] for each in good.seen} >= {"2"}


async def test_an_answer_that_is_not_wanted_is_let_go(fleet, at) -> None:
    async def busy(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=503, headers={"Retry-After": "30"})
        await response.prepare(request)
        await response.write(b"not all of it")
        await asyncio.sleep(60)
        return response

    [bad] = await fleet(1, busy)
    [good] = await fleet(1)
    async with by_middleware(at(bad, good)) as session:  # another node answers
        assert [await ask(session, "GET") for _ in range(2)] == ["digits-2", "digits-2"]
        await settle()
        assert not session.connector._acquired
    async with by_middleware(at(bad)) as session:  # the time is up before it may be asked again
        with pytest.raises(TimeoutError):
            await ask(session, "GET", timeout=QUICK)
        await settle()
        assert not session.connector._acquired


async def test_a_large_file_is_sent_whole_after_a_node_that_did_not_want_it(fleet, at, tmp_path) -> None:
    async def busy(request: web.Request) -> web.Response:
        return web.Response(status=503, text="busy")

    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"node": hashlib.sha256(await request.read()).hexdigest()})

    content = b"".join(number.to_bytes(4, "big") for number in range(1 << 21))
    (tmp_path / "image").write_bytes(content)
    async with by_middleware(at(*await fleet(1, busy), *await fleet(1, handler)), idempotent=True) as session:
        for _ in range(2):
            with (tmp_path / "image").open("rb") as image:
                assert await ask(session, data=image) == hashlib.sha256(content).hexdigest()


async def test_a_file_is_sent_whole_at_every_attempt(fleet, raw_server, cutting, at, tmp_path) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"node": (await request.read()).decode()})

    (tmp_path / "image").write_text("what is in it")
    async with by_middleware(at(await raw_server(cutting), *await fleet(1, handler)), idempotent=True) as session:
        for _ in range(2):
            with (tmp_path / "image").open("rb") as image:
                assert await ask(session, data=image) == "what is in it"
    assert cutting.heads


async def test_a_body_that_can_be_read_once_is_sent_once(fleet, raw_server, cutting, at) -> None:
    async def upload() -> AsyncIterator[bytes]:
        yield b"png"

    port = await raw_server(cutting)
    async with by_middleware(at(port, *await fleet(1)), idempotent=True) as session:
        headers = {"Content-Length": "3"}
        calls = (ask(session, data=upload(), headers=headers) for _ in range(2))
        results = await asyncio.gather(*calls, return_exceptions=True)
    [error] = [each for each in results if isinstance(each, Exception)]
    assert isinstance(error, aiohttp.ClientConnectionError)
    assert "its body can be read only once" in str(error)


async def test_a_silent_node_is_given_up_for_another_within_the_sessions_time(fleet, at) -> None:
    async def silent(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    [bad] = await fleet(1, silent)
    [good] = await fleet(1)
    timeout = aiohttp.ClientTimeout(total=60, sock_read=0.2)
    async with by_middleware(at(bad, good), timeout=timeout) as session:
        assert [await ask(session, "GET") for _ in range(2)] == ["digits-2", "digits-2"]
    assert bad.seen


async def test_a_connector_that_keeps_no_connections_will_do(fleet, at) -> None:
    nodes = await fleet(3)
    await nodes[0].stop()
    async with (
        SmartMiddleware(at(*nodes), policy="rotation") as smart,
        aiohttp.ClientSession(middlewares=(smart,), connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        assert Counter([await ask(session, data=b"png") for _ in range(20)]).keys() == {"digits-2", "digits-3"}


async def test_waiting_for_the_sessions_own_pool_is_not_held_against_a_node(fleet, at) -> None:
    async with (
        SmartMiddleware(at(*await fleet(2)), policy="rotation") as smart,
        aiohttp.ClientSession(middlewares=(smart,), connector=aiohttp.TCPConnector(limit=2)) as session,
    ):
        asked = Counter(await asyncio.gather(*(ask(session, data=b"png") for _ in range(50))))
        assert asked.total() == 50
        assert client_behind(session).snapshot()["calls"]["retries"] == 0


def test_an_aiohttp_too_old_for_a_middleware_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(aiohttp.Payload, "consumed")
    with pytest.raises(BadOption, match=r"pip install 'aiohttp>=3\.12\.1', or give the session a SmartConnector"):
        SmartMiddleware("static://127.0.0.1:1")


def test_hedging_is_refused() -> None:
    with pytest.raises(BadOption, match="hedge cannot be used here"):
        SmartMiddleware("static://127.0.0.1:1", hedge=True)


async def test_a_mistake_in_the_program_is_raised_as_it_is(through) -> None:
    async with through("carrier-pigeon://here") as session:
        with pytest.raises(BadOption, match="not a registry address"):
            await ask(session)


async def test_nodes_are_asked_for_their_load_beside_the_sessions_own_requests(fleet) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append((request.path, request.host))
        return web.json_response({"wait_ms": 1.0, "inflight": 1, "node": "digits"})

    nodes = await fleet(2, handler)
    directory = ScriptedDirectory([instance(n, port=node.port, meta={"load": "/load"}) for n, node in enumerate(nodes)])
    async with SmartMiddleware(directory) as smart, aiohttp.ClientSession(middlewares=(smart,)) as session:
        for _ in range(4):
            await ask(session, data=b"png")
        assert client_behind(session).snapshot()["calls"]["probes"] >= 2
    assert asked.count(("/classify", "digits.service.consul")) == 4
    assert {("/load", node.address) for node in nodes} <= set(asked)
