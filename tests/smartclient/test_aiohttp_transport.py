"""The real transport against real servers: what breaks on a network, and how it is classified."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable

import aiohttp
import pytest
from aiohttp import web

from smartclient import AsyncSmartClient
from smartclient.aiohttp_transport import AiohttpTransport
from smartclient.errors import BadInput, ClientClosed, DeadlineExceeded
from smartclient.stats import Outcome
from smartclient.transport import Answer, Request, TransportFailure
from smartclient.wire import exchange
from smartclient.wire.exchange import Exchange

GET = Request(method="GET", target="/")
POST = Request(method="POST", target="/x?top=1", headers={"X-A": "1"}, body=b"body")


@pytest.fixture(params=["short way", "session"])
async def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Both ways of sending a small request: what is true of one is true of the other."""
    if request.param == "session":
        monkeypatch.setattr(Exchange, "of", lambda *_: None)
    made = AiohttpTransport(connect_within=1.0)
    yield made
    await made.close()


async def send(transport: AiohttpTransport, port: int, request: Request = POST, *, within: float = 5.0) -> Answer:
    return await transport.send(f"http://127.0.0.1:{port}", request, {"x-b": "2"}, within=within, connect_within=1.0)


async def failure(transport: AiohttpTransport, port: int, request: Request = POST, **options: float) -> Outcome:
    with pytest.raises(TransportFailure) as caught:
        await send(transport, port, request, **options)
    return caught.value.outcome


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_an_answer_comes_whole_with_headers_of_any_case(transport, fleet) -> None:
    [node] = await fleet(1)
    answer = await send(transport, node.port)
    assert answer.status == 200
    assert answer.headers["content-TYPE"].startswith("application/json")
    assert b"predictions" in answer.body
    assert node.seen[0]["X-A"] == "1"
    assert node.seen[0]["x-b"] == "2"


async def test_a_body_of_many_megabytes_arrives_without_a_warning(transport, fleet) -> None:
    async def size(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    [node] = await fleet(1, handler=size)
    big = Request(method="POST", target="/", body=b"x" * (5 << 20))
    for _ in range(2):  # it can be sent again
        assert (await send(transport, node.port, big)).body == str(5 << 20).encode()


async def test_an_early_refusal_of_a_large_body_is_an_answer_and_no_failure(transport, fleet) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"error": "too large", "reason": "too_large"}, status=413)

    [node] = await fleet(1, handler=refuse)
    big = Request(method="POST", target="/", body=b"x" * (64 << 20))
    assert (await send(transport, node.port, big, within=30.0)).status == 413


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("body", [b"", b"body"])
@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/x?top=1", {}),
        ("/a b/ü?q=c d&e=%2F#part", {"accept": "text/plain", "user-agent": "mine", "content-type": "image/png"}),
        ("/", {"Content-Length": "2", "Transfer-Encoding": "chunked", "X-Envoy-Attempt-Count": "9"}),
    ],
)
async def test_a_node_cannot_tell_which_way_a_request_came(
    monkeypatch: pytest.MonkeyPatch, raw_server, method: str, body: bytes, target: str, headers: dict[str, str]
) -> None:
    seen: list[tuple[str, set[str], bytes]] = []

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode().strip().split("\r\n")
        lengths = [field for field in fields if field.lower().startswith("content-length")]
        rest = await reader.readexactly(int(lengths[0].split(":")[1]) if lengths else 0)
        seen.append((line, {field.partition(":")[0].lower() + field.partition(":")[2] for field in fields}, rest))
        assert len(fields) == len(seen[-1][1])
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    port = await raw_server(read)
    request = Request(method=method, target=target, headers=headers, body=body)
    for of in (Exchange.of, lambda *_: None):
        monkeypatch.setattr(Exchange, "of", of)
        made = AiohttpTransport(connect_within=1.0)
        answer = await made.send(
            f"http://127.0.0.1:{port}", request, {"x-envoy-attempt-count": "1"}, within=5.0, connect_within=1.0
        )
        assert answer.status == 204
        await made.close()
    assert seen[0] == seen[1]
    assert seen[0][2] == body
    assert "x-envoy-attempt-count 1" in seen[0][1]


async def test_there_is_a_short_way_with_the_aiohttp_installed_here(fleet) -> None:
    [node] = await fleet(1)
    made = AiohttpTransport(connect_within=1.0)
    await send(made, node.port)
    assert made._exchange is not None
    await made.close()


@pytest.mark.parametrize("change", ["ClientRequest", "ResponseHandler", "version"])
async def test_where_aiohttp_is_made_otherwise_the_session_sends(
    fleet, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    [node] = await fleet(1)
    if change == "version":
        monkeypatch.setattr(aiohttp, "__version__", "3.10.11")
    else:
        monkeypatch.setattr(exchange, change, object)
    made = AiohttpTransport(connect_within=1.0)
    assert (await send(made, node.port)).status == 200
    assert made._exchange is None
    await made.close()


async def test_hints_before_the_answer_are_passed_over(transport, raw_server, http) -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http.read_request(reader)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + http.raw_answer(b"real"))
        await reader.read()

    answer = await send(transport, await raw_server(early))
    assert (answer.status, answer.body) == (200, b"real")


async def test_an_answer_without_a_body_is_not_waited_for(transport, raw_server, http) -> None:
    async def head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in (b"200 OK\r\nContent-Length: 10", b"204 No Content", b"304 Not Modified\r\nContent-Length: 10"):
            await http.read_request(reader)
            writer.write(b"HTTP/1.1 " + line + b"\r\n\r\n")
        await reader.read()

    port = await raw_server(head)
    for method, status in (("HEAD", 200), ("GET", 204), ("GET", 304)):
        answer = await send(transport, port, Request(method=method, target="/"))
        assert (answer.status, answer.body) == (status, b"")


async def test_bodies_are_unpacked_and_chunks_joined(transport, fleet) -> None:
    async def packed(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_compression(web.ContentCoding.gzip)
        await response.prepare(request)
        for number in range(3):
            await response.write(b"%d" % number * 1000)
        return response

    [node] = await fleet(1, handler=packed)
    assert (await send(transport, node.port)).body == b"0" * 1000 + b"1" * 1000 + b"2" * 1000


async def test_a_connection_that_the_node_wants_closed_is_not_used_again(transport, raw_server, http) -> None:
    connections = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await http.read_request(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    port = await raw_server(once)
    for _ in range(2):
        assert (await send(transport, port)).status == 200
    assert connections == 2


async def test_a_connection_answered_before_it_had_all_is_not_used_again(
    transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def with_small_buffer(made: socket.socket, address: object) -> None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # the kernel must not take it all
        await connect(made, address)

    monkeypatch.setattr(loop, "sock_connect", with_small_buffer)
    connections: list[asyncio.StreamWriter] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        server = await asyncio.start_server(refuse, sock=listening, limit=4096)
        big = Request(method="POST", target="/", body=bytes((1 << 20) - 1))
        for _ in range(2):
            assert (await send(transport, listening.getsockname()[1], big)).status == 413
        assert len(connections) == 2
        for writer in connections:
            writer.transport.abort()
        server.close()
        await server.wait_closed()


@pytest.fixture
async def silent(raw_server, http) -> tuple[int, list[asyncio.Event], asyncio.Event]:
    """A server that never answers: its port, an event for each request that came, and one for a lost connection."""
    came: list[asyncio.Event] = []
    lost = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await http.read_request(reader)
            came.append(asyncio.Event())
            await reader.read()
        except ConnectionError:
            pass
        lost.set()

    return await raw_server(never), came, lost


async def test_a_wait_that_is_given_up_ends_at_once_and_drops_the_connection(transport, silent) -> None:
    port, came, lost = silent
    given: list[Callable[[], None]] = []
    sending = asyncio.create_task(
        transport.send(f"http://127.0.0.1:{port}", POST, {}, within=100.0, connect_within=1.0, waits=given.append)
    )
    while not came:
        await asyncio.sleep(0.001)
    given[0]()
    given[0]()
    with pytest.raises(TransportFailure, match="given up: the node is left out by now") as caught:
        await sending
    assert caught.value.outcome is Outcome.TIMEOUT
    await lost.wait()
    given[0]()


async def test_giving_up_what_has_been_answered_changes_nothing(transport, fleet) -> None:
    [node] = await fleet(1)
    given: list[Callable[[], None]] = []
    for _ in range(2):
        answer = await transport.send(
            f"http://{node.address}", POST, {}, within=5.0, connect_within=1.0, waits=given.append
        )
        assert answer.status == 200
        given[-1]()
    assert len(node.runner.server.connections) == 1


async def test_a_cancelled_wait_drops_the_connection(transport, silent) -> None:
    port, came, lost = silent
    sending = asyncio.create_task(send(transport, port, within=100.0))
    while not came:
        await asyncio.sleep(0.001)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await lost.wait()


async def test_redirects_are_answers(transport, fleet) -> None:
    async def elsewhere(request: web.Request) -> web.Response:
        raise web.HTTPFound("http://127.0.0.1:1/")

    [node] = await fleet(1, handler=elsewhere)
    assert (await send(transport, node.port, GET)).status == 302


async def test_nobody_listening_is_a_failure_to_connect(transport) -> None:
    assert await failure(transport, closed_port()) is Outcome.CONNECT_ERROR


async def test_a_host_that_swallows_packets_costs_the_connect_timeout_only(
    transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_answer(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", no_answer)
    with pytest.raises(TransportFailure, match=r"no connection within 0\.2 s") as caught:
        await transport.send("http://127.0.0.1:1", POST, {}, within=100.0, connect_within=0.2)
    assert caught.value.outcome is Outcome.CONNECT_ERROR


async def test_a_slow_answer_ends_with_the_deadline(transport, fleet) -> None:
    async def never(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    [node] = await fleet(1, handler=never)
    assert await failure(transport, node.port, within=0.2) is Outcome.TIMEOUT


async def test_the_deadline_covers_the_body_too(transport, raw_server, http) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await reader.read()  # until the client leaves

    assert await failure(transport, await raw_server(half), within=0.2) is Outcome.TIMEOUT


async def test_a_fresh_connection_closed_before_the_answer_is_a_reset(transport, raw_server, http) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http.read_request(reader)

    assert await failure(transport, await raw_server(hang_up)) is Outcome.RESET


async def test_an_answer_cut_short_is_a_reset_even_on_a_kept_alive_connection(transport, raw_server, http) -> None:
    async def then_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http.read_request(reader)
        writer.write(http.raw_answer())
        await http.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    port = await raw_server(then_half)
    await send(transport, port)
    assert await failure(transport, port) is Outcome.RESET


async def test_a_kept_alive_connection_closed_on_use_is_stale(transport, raw_server, http) -> None:
    connections = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await http.read_request(reader)
        writer.write(http.raw_answer())
        await http.read_request(reader)

    port = await raw_server(once)
    await send(transport, port)
    assert await failure(transport, port) is Outcome.STALE
    assert connections == 1
    await send(transport, port)
    assert connections == 2


async def test_what_is_not_http_is_told_as_such(transport, raw_server) -> None:
    async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await reader.read()

    with pytest.raises(TransportFailure, match="not an HTTP answer") as caught:
        await send(transport, await raw_server(banner))
    assert caught.value.outcome is Outcome.RESET


async def test_a_header_that_cannot_be_sent_is_the_callers_mistake(transport, fleet) -> None:
    [node] = await fleet(1)
    with pytest.raises(BadInput, match="cannot be sent"):
        await send(transport, node.port, Request(method="GET", target="/", headers={"X-A": "a\r\nb"}))


async def test_the_pool_has_no_limit_of_its_own(transport, fleet) -> None:
    arrived, together = 0, asyncio.Event()

    async def all_at_once(request: web.Request) -> web.Response:
        nonlocal arrived
        arrived += 1
        if arrived == 110:
            together.set()
        await together.wait()
        return web.Response()

    [node] = await fleet(1, handler=all_at_once)
    answers = await asyncio.gather(*(send(transport, node.port, within=30.0) for _ in range(110)))
    assert {answer.status for answer in answers} == {200}


async def test_after_close_nothing_is_sent(transport) -> None:
    await transport.close()
    await transport.close()
    with pytest.raises(ClientClosed):
        await send(transport, 1)


# The whole client on the real transport.


def registry_of(nodes: list) -> str:
    return "static://" + ",".join(node.address for node in nodes)


async def test_sixty_images_over_three_nodes_are_twenty_each(fleet) -> None:
    nodes = await fleet(3)
    async with AsyncSmartClient("digits", registry_of(nodes)) as client:
        results = await asyncio.gather(*(client.classify(b"image") for _ in range(60)))
    assert Counter(result.node for result in results) == {"digits-1": 20, "digits-2": 20, "digits-3": 20}


async def test_a_node_killed_under_load_fails_no_request_and_gets_few_attempts_after(fleet) -> None:
    async def slow(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(0.01)
        result = {"predictions": [{"label": "7", "score": 0.9}]}
        return web.json_response({"results": [result], "node": request.url.port and str(request.url.port)})

    nodes = await fleet(3, handler=slow)
    async with AsyncSmartClient("digits", registry_of(nodes)) as client:
        done = 0

        async def work(count: int) -> None:
            nonlocal done
            for _ in range(count):
                await client.classify(b"image")
                done += 1
                if done == 110:
                    await nodes[1].kill()

        await asyncio.gather(*(work(15) for _ in range(32)))
        assert done == 480
        killed = {each["endpoint"]: each for each in client.snapshot()["balancer"]["endpoints"]}[nodes[1].address]
        assert killed["state"] == "ejected"
        # Ejected after three refusals; those already on their way then may be as many as fit in flight.
        assert killed["failed"] <= 3 + 32
        before = killed["picked"]
        for _ in range(30):
            await client.classify(b"image")
        after = {each["endpoint"]: each for each in client.snapshot()["balancer"]["endpoints"]}[nodes[1].address]
        assert after["picked"] == before


async def test_keep_alive_races_fail_no_idempotent_request_and_eject_nobody(fleet, raw_server, http) -> None:
    async def four_times(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(4):
            await http.read_request(reader)
            writer.write(http.raw_answer())
        await http.read_request(reader)  # the fifth finds the door shut

    ports = [await raw_server(four_times) for _ in range(2)]
    nodes = await fleet(1)
    registry = registry_of(nodes) + "".join(f",127.0.0.1:{port}" for port in ports)
    # In turn: a policy that likes quick answers would meet shut doors more often than the retry budget allows.
    async with AsyncSmartClient("digits", registry, policy="rotation") as client:
        for _ in range(60):
            await client.classify(b"image")
        endpoints = client.snapshot()["balancer"]["endpoints"]
    assert {each["state"] for each in endpoints} == {"closed"}
    assert sum(each["picked"] for each in endpoints) > 60


async def test_a_slow_fleet_ends_with_the_deadline_and_says_where_it_was_spent(fleet) -> None:
    async def never(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    nodes = await fleet(2, handler=never)
    async with AsyncSmartClient("digits", registry_of(nodes)) as client:
        with pytest.raises(DeadlineExceeded) as caught:
            await client.classify(b"image", timeout=0.2)
    assert caught.value.attempts[0].node in {node.address for node in nodes}
    assert int(next(node.seen for node in nodes if node.seen)[0]["x-envoy-expected-rq-timeout-ms"]) <= 200
