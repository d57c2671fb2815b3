"""httpx through the balancer, blocking and not: the same law over both."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

import httpx
import pytest
from aiohttp import web

from registry.testing import ScriptedDirectory
from smartclient.adapters.httpx import AsyncSmartTransport, SmartTransport
from smartclient.errors import BadOption, CallFailed, DeadlineExceeded, NoEndpoints

URL = "http://digits.service.consul"
SERVICES = "all://*.service.consul"


class Blocking:
    """An ``httpx.Client`` as if it were not blocking: every call in a thread, as the nodes live in this one's loop."""

    def __init__(self, registry: object, *, httpx_timeout: object = 10, **options: Any) -> None:
        options = {"policy": "rotation"} | options
        self.transport = SmartTransport(registry, **options)
        self.client = httpx.Client(mounts={SERVICES: self.transport}, timeout=httpx_timeout, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self.client.close)

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        return await asyncio.to_thread(self.client.request, method, url, **options)

    async def count(self, method: str, url: str, **options: Any) -> tuple[httpx.Response, int]:
        """Read an answer's body in pieces."""

        def work() -> tuple[httpx.Response, int]:
            with self.client.stream(method, url, **options) as response:
                return response, sum(len(piece) for piece in response.iter_bytes())

        return await asyncio.to_thread(work)

    async def drop(self, url: str) -> list[int]:
        """Begin to read an answer and leave it; how busy the node was then, and is afterwards."""

        def work() -> list[int]:
            with self.client.stream("GET", url):
                during = self.in_flight()
            return [during, self.in_flight()]

        return await asyncio.to_thread(work)

    def in_flight(self) -> int:
        [endpoint] = self.transport._services.at("http", "digits.service.consul").snapshot()["balancer"]["endpoints"]
        return endpoint["in_flight"]

    @staticmethod
    def upload(pieces: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        return pieces()


class NotBlocking:
    """An ``httpx.AsyncClient``."""

    def __init__(self, registry: object, *, httpx_timeout: object = 10, **options: Any) -> None:
        options = {"policy": "rotation"} | options
        self.transport = AsyncSmartTransport(registry, **options)
        self.client = httpx.AsyncClient(mounts={SERVICES: self.transport}, timeout=httpx_timeout, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.client.aclose()

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        return await self.client.request(method, url, **options)

    async def count(self, method: str, url: str, **options: Any) -> tuple[httpx.Response, int]:
        async with self.client.stream(method, url, **options) as response:
            return response, sum([len(piece) async for piece in response.aiter_bytes()])

    async def drop(self, url: str) -> list[int]:
        async with self.client.stream("GET", url):
            during = self.in_flight()
        return [during, self.in_flight()]

    def in_flight(self) -> int:
        [endpoint] = self.transport._services.at("http", "digits.service.consul").snapshot()["balancer"]["endpoints"]
        return endpoint["in_flight"]

    @staticmethod
    async def upload(pieces: Callable[[], Iterator[bytes]]) -> AsyncIterator[bytes]:
        for piece in pieces():
            yield piece


@pytest.fixture(params=[Blocking, NotBlocking])
def through(request):
    return request.param


async def test_requests_go_to_the_nodes_in_turn(through, fleet, at) -> None:
    async with through(at(*await fleet(3))) as client:
        answers = [await client.request("POST", URL, content=b"png") for _ in range(9)]
    assert Counter(answer.json()["node"] for answer in answers) == {"digits-1": 3, "digits-2": 3, "digits-3": 3}


async def test_the_node_sees_the_request_as_it_was_and_the_program_the_answer(through, fleet, at) -> None:
    async def handler(request: web.Request) -> web.Response:
        form = await request.post()
        told = {
            "path": request.raw_path,
            "host": request.host,
            "sent": request.headers["X-Sent"],
            "file": form["image"].file.read().decode(),
            "cookie": request.cookies.get("a"),
        }
        answer = web.json_response(told, status=201)
        answer.headers.add("Set-Cookie", "a=1")
        answer.headers.add("Set-Cookie", "b=2")
        answer.enable_compression(web.ContentCoding.gzip)
        return answer

    [node] = await fleet(1, handler)
    async with through(at(node)) as client:
        url, options = f"{URL}:8080/v2/a%20b", {"files": {"image": b"png"}, "headers": {"X-Sent": "yes"}}
        answer = await client.request("PUT", url, params={"q": "1&2"}, **options)
        again = await client.request("PUT", url, **options)
    told = {"path": "/v2/a%20b?q=1%262", "host": "digits.service.consul:8080", "sent": "yes", "file": "png"}
    assert answer.json() == told | {"cookie": None}
    assert again.json()["cookie"] == "1"
    assert (answer.status_code, str(answer.url)) == (201, f"{url}?q=1%262")
    assert dict(client.client.cookies) == {"a": "1", "b": "2"}
    assert answer.extensions["node"] == node.address
    assert answer.extensions["attempts"] == 1


async def test_a_dead_node_costs_no_failed_call(through, fleet, at) -> None:
    nodes = await fleet(3)
    await nodes[0].stop()
    async with through(at(*nodes)) as client:
        answers = [await client.request("POST", URL, content=b"png") for _ in range(12)]
    assert {answer.json()["node"] for answer in answers} == {"digits-2", "digits-3"}


async def test_other_hosts_are_left_alone(through, fleet, at) -> None:
    [node, other] = await fleet(2)
    async with through(at(node)) as client:
        answer = await client.request("GET", f"http://{other.address}/")
    assert answer.json()["node"] == "digits-2"
    assert node.seen == []


async def test_as_the_only_transport_it_passes_other_hosts_on(fleet, at) -> None:
    [node, other] = await fleet(2)
    async with httpx.AsyncClient(transport=AsyncSmartTransport(at(node))) as client:
        assert (await client.get(URL)).json()["node"] == "digits-1"
        assert (await client.get(f"http://{other.address}/")).json()["node"] == "digits-2"
    with httpx.Client(transport=SmartTransport(at(node))) as client:
        assert (await asyncio.to_thread(client.get, f"http://{other.address}/")).json()["node"] == "digits-2"


async def test_a_redirect_is_a_new_choice(through, fleet, at) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/old":
            raise web.HTTPFound("/new")
        return web.Response()

    nodes = await fleet(2, handler)
    async with through(at(*nodes)) as client:
        answer = await client.request("GET", f"{URL}/old", follow_redirects=True)
    assert str(answer.url) == f"{URL}/new"
    assert [len(node.seen) for node in nodes] == [1, 1]


async def test_large_bodies_stream_both_ways(through, fleet, at, big) -> None:
    [node] = await fleet(1, big.streaming)
    async with through(at(node)) as client:
        with big.memory_bound():
            answer, got = await client.count("POST", f"{URL}/?send={big.SIZE}", content=client.upload(big.pieces))
    assert (answer.headers["X-Got"], got) == (str(big.SIZE), big.SIZE)


async def test_a_node_is_busy_until_its_answer_is_read_or_dropped(through, fleet, at, big) -> None:
    [node] = await fleet(1, big.streaming)
    async with through(at(node)) as client:
        assert await client.drop(f"{URL}/?send=10000000") == [1, 0]
        await client.count("GET", f"{URL}/?send=1000000")
        assert await asyncio.to_thread(client.in_flight) == 0


async def test_a_post_that_was_sent_is_not_sent_again(through, raw_server, cutting, at) -> None:
    async with through(at(await raw_server(cutting), await raw_server(cutting))) as client:
        with pytest.raises(httpx.ReadError, match="it may have been carried out") as raised:
            await client.request("POST", URL, content=b"png")
    assert len(cutting.heads) == 1
    assert isinstance(raised.value.__cause__, CallFailed)
    assert raised.value.request.method == "POST"


async def test_what_may_be_repeated_is(through, raw_server, cutting, fleet, at) -> None:
    registry = at(await raw_server(cutting), *await fleet(1))
    async with through(registry) as client:
        assert [(await client.request("GET", URL)).status_code for _ in range(2)] == [200, 200]
    async with through(registry, idempotent=True) as client:
        assert [(await client.request("POST", URL, content=b"png")).status_code for _ in range(2)] == [200, 200]
    assert len(cutting.heads) >= 2


async def test_a_body_given_in_pieces_is_sent_once(through, raw_server, cutting, at) -> None:
    registry = at(await raw_server(cutting), await raw_server(cutting))
    async with through(registry, idempotent=True) as client:
        content = client.upload(lambda: iter([b"png", b"png"]))
        with pytest.raises(httpx.ReadError):
            await client.request("POST", URL, content=content, headers={"Content-Length": "6"})
    assert len(cutting.heads) == 1


async def test_the_read_timeout_is_the_calls(through, fleet, at) -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with through(at(*await fleet(2, handler))) as client:
        for method in ("GET", "POST"):
            with pytest.raises(httpx.ReadTimeout, match=r"got no answer within its 0\.[12]") as raised:
                await client.request(method, URL, timeout=httpx.Timeout(60, read=0.2))
    assert isinstance(raised.value.__cause__, DeadlineExceeded)


async def test_without_a_timeout_the_transports_own_counts(through, fleet, at) -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with through(at(*await fleet(1, handler)), httpx_timeout=None, timeout=0.2) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.request("GET", URL)


@pytest.mark.parametrize("tail", [b"", b"more"])
async def test_an_answer_that_breaks_off_is_a_read_error(through, raw_server, http, at, tail: bytes) -> None:
    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome" + tail)
        await writer.drain()

    async with through(at(await raw_server(breaking))) as client:
        with pytest.raises(httpx.ReadError, match="the answer broke off"):
            await client.request("GET", URL)


async def test_an_answer_that_stops_coming_is_a_read_timeout(through, raw_server, http, at) -> None:
    async def stopping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")
        await reader.read()

    async with through(at(await raw_server(stopping))) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.request("GET", URL, timeout=0.2)


@pytest.mark.parametrize("url", ["https://digits.service.consul/", "http://v2.digits.service.consul/"])
async def test_a_url_that_cannot_be_asked_for_says_so(through, url: str) -> None:
    async with through("static://127.0.0.1:1") as client:
        with pytest.raises(httpx.UnsupportedProtocol, match=r"; write .*digits\.service\.consul"):
            await client.request("GET", url)


async def test_nobody_there_is_no_connection_with_the_reasons(through, fleet, at) -> None:
    nodes = await fleet(2)
    for node in nodes:
        await node.stop()
    async with through(at(*nodes)) as client:
        with pytest.raises(httpx.ConnectError, match=re.escape(f"{nodes[0].address}: connection refused")):
            await client.request("GET", URL)


async def test_a_service_without_nodes_is_no_connection(through) -> None:
    async with through(ScriptedDirectory([])) as client:
        with pytest.raises(httpx.ConnectError, match="no instance of 'digits' is registered") as raised:
            await client.request("GET", URL)
    assert isinstance(raised.value.__cause__, NoEndpoints)


async def test_a_mistake_in_the_program_is_raised_as_it_is(through) -> None:
    async with through("carrier-pigeon://here") as client:
        with pytest.raises(BadOption, match="not a registry address"):
            await client.request("GET", URL)


async def test_an_answer_may_be_closed_after_its_client(through, fleet, at, big) -> None:
    [node] = await fleet(1, big.streaming)
    client = through(at(node))
    request = client.client.build_request("GET", f"{URL}/?send=10000000")
    if through is Blocking:
        answer = await asyncio.to_thread(client.client.send, request, stream=True)
    else:
        answer = await client.client.send(request, stream=True)
    async with client:
        pass
    await (asyncio.to_thread(answer.close) if through is Blocking else answer.aclose())
