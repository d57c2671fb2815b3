"""A requests session through the balancer: blocking, from any thread, across a fork."""

import asyncio
import io
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest
import requests
import urllib3
from aiohttp import web

from registry.testing import ScriptedDirectory
from smartclient.adapters.requests import SmartAdapter
from smartclient.errors import BadOption, CallFailed, DeadlineExceeded, NoEndpoints
from tests.support import wait_until

ROOT = Path(__file__).parents[3]
URL = "http://digits.service.consul"
Result = TypeVar("Result")


class Through:
    """Runs ``work(session)`` in a thread, as the nodes live in this one's loop."""

    def __init__(self, registry: object, **options: Any) -> None:
        options = {"policy": "rotation"} | options
        self.adapter = SmartAdapter(registry, **options)
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.mount("http://", self.adapter)
        self.session.mount("https://", self.adapter)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self.session.close)

    async def run(self, work: Callable[[requests.Session], Result]) -> Result:
        return await asyncio.to_thread(work, self.session)

    def in_flight(self) -> int:
        [endpoint] = self.adapter._services.at("http", "digits.service.consul").snapshot()["balancer"]["endpoints"]
        return endpoint["in_flight"]


async def hang(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.Response()


async def test_requests_go_to_the_nodes_in_turn(fleet, at) -> None:
    async with Through(at(*await fleet(3))) as through:
        answers = await through.run(lambda session: [session.post(URL, data=b"png") for _ in range(9)])
    assert Counter(answer.json()["node"] for answer in answers) == {"digits-1": 3, "digits-2": 3, "digits-3": 3}


async def test_threads_share_a_session(fleet, at) -> None:
    def work(session: requests.Session) -> Counter[str]:
        with ThreadPoolExecutor(8) as threads:
            answers = threads.map(lambda _: session.post(URL, data=b"png"), range(90))
            return Counter(answer.json()["node"] for answer in answers)

    async with Through(at(*await fleet(3))) as through:
        assert await through.run(work) == {"digits-1": 30, "digits-2": 30, "digits-3": 30}
        assert len(through.adapter._services.take()) == 1


async def test_the_node_sees_the_request_as_it_was_and_the_program_the_answer(fleet, at) -> None:
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

    def work(session: requests.Session) -> list[requests.Response]:
        options = {"files": {"image": b"png"}, "headers": {"X-Sent": b"yes"}}
        return [session.put(f"{URL}:8080/v2/a%20b", params={"q": "1&2"}, **options) for _ in range(2)]

    async with Through(at(*await fleet(1, handler))) as through:
        answer, again = await through.run(work)
    told = {"path": "/v2/a%20b?q=1%262", "host": "digits.service.consul:8080", "sent": "yes", "file": "png"}
    assert answer.json() == told | {"cookie": None}
    assert again.json()["cookie"] == "1"
    assert (answer.status_code, answer.reason, answer.url) == (201, "Created", f"{URL}:8080/v2/a%20b?q=1%262")
    assert dict(answer.cookies) == dict(through.session.cookies) == {"a": "1", "b": "2"}
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


async def test_a_dead_node_costs_no_failed_call(fleet, at) -> None:
    nodes = await fleet(3)
    await nodes[0].stop()
    async with Through(at(*nodes)) as through:
        answers = await through.run(lambda session: [session.post(URL, data=b"png") for _ in range(12)])
    assert {answer.json()["node"] for answer in answers} == {"digits-2", "digits-3"}


async def test_other_hosts_are_left_alone(fleet, at) -> None:
    [node, other] = await fleet(2)
    async with Through(at(node)) as through:
        answer = await through.run(lambda session: session.get(f"http://{other.address}/", timeout=10))
    assert answer.json()["node"] == "digits-2"
    assert node.seen == []


async def test_a_redirect_is_a_new_choice(fleet, at) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/old":
            raise web.HTTPFound("/new")
        return web.Response()

    nodes = await fleet(2, handler)
    async with Through(at(*nodes)) as through:
        answer = await through.run(lambda session: session.get(f"{URL}/old"))
    assert (answer.url, len(answer.history)) == (f"{URL}/new", 1)
    assert [len(node.seen) for node in nodes] == [1, 1]


async def test_large_bodies_stream_both_ways(fleet, at, big) -> None:
    def work(session: requests.Session) -> tuple[str, int]:
        with session.post(f"{URL}/?send={big.SIZE}", data=big.pieces(), stream=True) as answer:
            return answer.headers["X-Got"], sum(len(piece) for piece in answer.iter_content(1 << 16))

    async with Through(at(*await fleet(1, big.streaming))) as through:
        with big.memory_bound():
            assert await through.run(work) == (str(big.SIZE), big.SIZE)


@pytest.mark.parametrize("kind", ["file", "once"])
async def test_a_file_is_not_held_whole(fleet, at, big, tmp_path: Path, kind: str) -> None:
    class Once:
        """A file that cannot be gone back in, as a pipe's end."""

        def __init__(self, file: io.BufferedReader) -> None:
            self.read = file.read
            self.len = big.SIZE

        def __iter__(self) -> Iterator[bytes]:
            raise AssertionError("read, not iterated")

    def work(session: requests.Session) -> str:
        with (tmp_path / "large").open("rb") as file:
            return session.post(URL, data=file if kind == "file" else Once(file)).headers["X-Got"]

    with (tmp_path / "large").open("wb") as file:
        file.truncate(big.SIZE)
    async with Through(at(*await fleet(1, big.streaming))) as through:
        with big.memory_bound():
            assert await through.run(work) == str(big.SIZE)


async def test_the_raw_answer_is_a_file(fleet, at) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="one\ntwo\nthree\n")

    def work(session: requests.Session) -> tuple[bytes, bytes, bytes, list[bytes]]:
        with session.get(URL, stream=True) as answer:
            start, rest, end = answer.raw.read(3), answer.raw.read(), answer.raw.read()
        with session.get(URL, stream=True) as answer:
            return start, rest, end, list(answer.raw)

    async with Through(at(*await fleet(1, handler))) as through:
        start, rest, end, lines = await through.run(work)
    assert (start, rest, end) == (b"one", b"\ntwo\nthree\n", b"")
    assert lines == [b"one\n", b"two\n", b"three\n"]


async def test_a_node_is_busy_until_its_answer_is_read_or_closed(fleet, at, big) -> None:
    async with Through(at(*await fleet(1, big.streaming))) as through:

        def work(session: requests.Session) -> list[int]:
            seen = []
            with session.get(f"{URL}/?send=10000000", stream=True):
                seen.append(through.in_flight())
            seen.append(through.in_flight())
            with session.get(f"{URL}/?send=10000000", stream=True) as answer:
                assert len(answer.content) == 10_000_000
                seen.append(through.in_flight())
            return seen

        assert await through.run(work) == [1, 0, 0]


async def test_an_answer_that_is_forgotten_is_given_back(fleet, at, big) -> None:
    async with Through(at(*await fleet(1, big.streaming))) as through:

        def work(session: requests.Session) -> None:
            session.get(f"{URL}/?send=10000000", stream=True)

        await through.run(work)
        await asyncio.to_thread(wait_until, lambda: through.in_flight() == 0, 10, "the node is free again")


async def test_a_post_that_was_sent_is_not_sent_again(raw_server, cutting, at) -> None:
    async with Through(at(await raw_server(cutting), await raw_server(cutting))) as through:
        with pytest.raises(requests.ConnectionError, match="it may have been carried out") as raised:
            await through.run(lambda session: session.post(URL, data=b"png"))
    assert len(cutting.heads) == 1
    assert isinstance(raised.value.__cause__, CallFailed)
    assert raised.value.request.method == "POST"


async def test_what_may_be_repeated_is(raw_server, cutting, fleet, at, tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    def post(session: requests.Session) -> list[bytes]:
        with (tmp_path / "image").open("rb") as image:
            image.seek(5)
            return [session.post(URL, data=image).content for _ in range(2)]

    (tmp_path / "image").write_text("what is in it")
    registry = at(await raw_server(cutting), *await fleet(1, handler))
    async with Through(registry) as through:
        answers = await through.run(lambda session: [session.get(URL) for _ in range(2)])
        assert [answer.status_code for answer in answers] == [200, 200]
    async with Through(registry, idempotent=True) as through:
        assert await through.run(post) == [b"is in it", b"is in it"]
    assert len(cutting.heads) >= 2


@pytest.mark.parametrize("timeout", [0.2, (60, 0.2), urllib3.Timeout(connect=60, read=0.2)])
async def test_the_read_timeout_is_the_calls(fleet, at, timeout: object) -> None:
    async with Through(at(*await fleet(1, hang))) as through:
        with pytest.raises(requests.ReadTimeout, match=r"got no answer within its 0\.[12]") as raised:
            await through.run(lambda session: session.get(URL, timeout=timeout))
    assert isinstance(raised.value.__cause__, DeadlineExceeded)


async def test_without_a_timeout_the_adapters_own_counts(fleet, at) -> None:
    async with Through(at(*await fleet(1, hang)), timeout=0.2) as through:
        with pytest.raises(requests.ReadTimeout):
            await through.run(lambda session: session.get(URL))


async def test_an_answer_that_breaks_off_says_so(raw_server, http, at) -> None:
    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")
        await writer.drain()

    async with Through(at(await raw_server(breaking))) as through:
        with pytest.raises(requests.exceptions.ChunkedEncodingError, match="the answer broke off"):
            await through.run(lambda session: session.get(URL))


async def test_an_answer_that_stops_coming_is_what_requests_makes_of_it(raw_server, http, at) -> None:
    async def stopping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")
        await reader.read()

    async with Through(at(await raw_server(stopping))) as through:
        with pytest.raises(requests.ConnectionError, match=r"no answer within 0\.[12]"):
            await through.run(lambda session: session.get(URL, timeout=0.2))


@pytest.mark.parametrize("url", ["https://digits.service.consul/", "http://v2.digits.service.consul/"])
async def test_a_url_that_cannot_be_asked_for_says_so(url: str) -> None:
    async with Through("static://127.0.0.1:1") as through:
        with pytest.raises(requests.exceptions.InvalidURL, match=r"; write .*digits\.service\.consul"):
            await through.run(lambda session: session.get(url))


async def test_nobody_there_is_no_connection_with_the_reasons(fleet, at) -> None:
    nodes = await fleet(2)
    for node in nodes:
        await node.stop()
    async with Through(at(*nodes)) as through:
        with pytest.raises(requests.ConnectionError, match=re.escape(f"{nodes[0].address}: connection refused")):
            await through.run(lambda session: session.get(URL))


async def test_a_service_without_nodes_is_no_connection() -> None:
    async with Through(ScriptedDirectory([])) as through:
        with pytest.raises(requests.ConnectionError, match="no instance of 'digits' is registered") as raised:
            await through.run(lambda session: session.get(URL))
    assert isinstance(raised.value.__cause__, NoEndpoints)


async def test_a_mistake_in_the_program_is_raised_as_it_is() -> None:
    async with Through("carrier-pigeon://here") as through:
        with pytest.raises(BadOption, match="not a registry address"):
            await through.run(lambda session: session.get(URL))


async def test_a_closed_session_can_be_used_again_and_an_answer_be_closed_late(fleet, at, big) -> None:
    def work(session: requests.Session) -> int:
        late = session.get(f"{URL}/?send=10000000", stream=True)
        session.close()
        late.close()
        return session.get(URL).status_code

    async with Through(at(*await fleet(1, big.streaming))) as through:
        assert await through.run(work) == 200


def test_a_forked_child_begins_afresh(served) -> None:
    code = (
        "import os, sys, warnings, requests; from smartclient.adapters.requests import SmartAdapter\n"
        "warnings.simplefilter('ignore', DeprecationWarning)  # 3.12: forking with threads\n"
        "session = requests.Session(); session.mount('http://', SmartAdapter(sys.argv[1]))\n"
        "ask = lambda: session.post('http://digits.service.consul/', data=b'png').status_code\n"
        "assert ask() == 200\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    assert ask() == 200; session.close(); sys.exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "print(ask())"
    )
    command = [sys.executable, "-W", "error", "-c", code, served.registry]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("200\n", "", 0)
