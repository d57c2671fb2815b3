"""The real transport against real servers: what breaks on a network, and how it is classified."""

import asyncio
import socket
from collections import Counter

import pytest
from aiohttp import web

from smartclient import AsyncSmartClient
from smartclient.aiohttp_transport import AiohttpTransport
from smartclient.errors import BadInput, ClientClosed, DeadlineExceeded
from smartclient.stats import Outcome
from smartclient.transport import Answer, Request, TransportFailure

GET = Request(method="GET", target="/")
POST = Request(method="POST", target="/x?top=1", headers={"X-A": "1"}, body=b"body")


@pytest.fixture
async def transport():
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
    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await http.read_request(reader)
            writer.write(http.raw_answer())
        await http.read_request(reader)  # the third finds the door shut

    ports = [await raw_server(twice) for _ in range(2)]
    nodes = await fleet(1)
    registry = registry_of(nodes) + "".join(f",127.0.0.1:{port}" for port in ports)
    async with AsyncSmartClient("digits", registry) as client:
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
