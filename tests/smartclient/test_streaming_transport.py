"""Bodies in pieces, both ways, over real connections: nothing is held in memory, and nothing is kept open."""

import asyncio
import io
import os
import tracemalloc
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
from aiohttp import web

from smartclient.aiohttp_transport import AiohttpTransport
from smartclient.errors import BadInput
from smartclient.stats import Outcome
from smartclient.transport import Answer, Body, Request, TransportFailure
from smartclient.wire.bodies import LARGE, PIECE

MEGABYTE = 1 << 20


@pytest.fixture
async def transport():
    made = AiohttpTransport(connect_within=1.0)
    yield made
    await made.close()


async def post(transport: AiohttpTransport, port: int, body: Body, method: str = "POST") -> Answer:
    request = Request(method=method, target="/", body=body)
    return await transport.send(f"http://127.0.0.1:{port}", request, {}, within=20.0, connect_within=1.0)


async def stream(transport: AiohttpTransport, port: int, body: Body = b"", *, within: float = 20.0) -> Answer:
    request = Request(method="POST", target="/", body=body)
    url = f"http://127.0.0.1:{port}"
    return await transport.send(url, request, {}, within=within, connect_within=1.0, stream=True)


async def told(request: web.Request) -> web.Response:
    """Say what came: the fields that frame the body, then the body."""
    framing = [request.headers.get(name, "-") for name in ("Content-Length", "Transfer-Encoding")]
    return web.Response(body=" ".join(framing).encode() + b"|" + await request.read())


@pytest.fixture
async def node(fleet) -> int:
    """A node that says what it was sent; its port."""
    [made] = await fleet(1, handler=told)
    return made.port


class File(io.BytesIO):
    """An open file that notes how much was read at once."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.reads: list[int] = []

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.reads.append(len(data))
        return data


# Requests.


@pytest.mark.parametrize(
    ("body", "arrives"),
    [
        (bytearray(b"body"), b"body"),
        (memoryview(b"body"), b"body"),
        (memoryview(array("I", [1, 2])), array("I", [1, 2]).tobytes()),
        (memoryview(b"b.o.d.y.")[::2], b"body"),
        (memoryview(array("I", range(LARGE))), array("I", range(LARGE)).tobytes()),
        (memoryview(bytes(2 * LARGE))[::2], bytes(LARGE)),
        (bytes(LARGE), bytes(LARGE)),
    ],
    ids=["bytearray", "memoryview", "numbers", "every other", "many numbers", "every other of many", "large"],
)
async def test_bytes_of_any_kind_arrive_whole_with_their_length(
    transport, node: int, body: Body, arrives: bytes
) -> None:
    assert (await post(transport, node, body)).body == b"%d -|" % len(arrives) + arrives


async def test_large_bytes_are_not_copied(transport, fleet) -> None:
    async def count(request: web.Request) -> web.Response:
        return web.Response(text=str(sum([len(piece) async for piece in request.content.iter_any()])))

    [counting] = await fleet(1, handler=count)
    body = bytearray(64 * MEGABYTE)
    tracemalloc.start()
    try:
        answer = await post(transport, counting.port, body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.body == str(len(body)).encode()
    assert peak < 8 * MEGABYTE


async def test_a_file_goes_in_pieces_from_where_it_stands_and_is_left_there_open(transport, node: int) -> None:
    file = File(b"skipped" + b"x" * (3 * PIECE + 1))
    file.seek(7)
    for _ in range(2):  # the second attempt sends the same
        assert (await post(transport, node, file)).body == b"%d -|" % (3 * PIECE + 1) + b"x" * (3 * PIECE + 1)
    assert file.reads == [PIECE, PIECE, PIECE, 1] * 2
    assert file.tell() == 7
    assert not file.closed


async def test_a_file_on_disk_can_be_sent_by_two_attempts_at_once(transport, node: int, tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(os.urandom(5 * PIECE))
    with path.open("rb") as file:
        answers = await asyncio.gather(*(post(transport, node, file) for _ in range(2)))
    assert [answer.body.partition(b"|")[2] for answer in answers] == [path.read_bytes()] * 2


async def test_an_empty_file_is_an_empty_body(transport, node: int) -> None:
    assert (await post(transport, node, io.BytesIO())).body == b"0 -|"


async def test_an_attempt_that_failed_leaves_a_file_for_the_next_one(transport, node: int, raw_server) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2 * PIECE)

    file = File(bytes(20 * PIECE))
    with pytest.raises(TransportFailure) as caught:
        await post(transport, await raw_server(hang_up), file)
    assert caught.value.outcome is Outcome.RESET
    assert (await post(transport, node, file)).body == b"%d -|" % (20 * PIECE) + bytes(20 * PIECE)


def closed(path: Path) -> File:
    file = File(path.read_bytes())
    file.close()
    return file


def shrinking(path: Path) -> File:
    class Shrinking(File):
        def seek(self, offset: int, whence: int = 0, /) -> int:
            position = super().seek(offset, whence)
            self.truncate(1) if whence == os.SEEK_END else None
            return position

    return Shrinking(path.read_bytes())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.open("r"), "it gives text; open it with mode 'rb'"),
        (closed, "closed file"),
        (shrinking, "it has become shorter"),
        (lambda path: os.fdopen(os.pipe()[0], "rb"), "an async iterable of bytes can be sent once"),
    ],
    ids=["text", "closed", "shrinking", "pipe"],
)
async def test_a_file_that_cannot_be_sent_is_the_callers_mistake(
    transport, node: int, tmp_path: Path, make: Callable[[Path], File], said: str
) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"x" * 10)
    with closing(make(path)) as given, pytest.raises(BadInput, match=said):
        await post(transport, node, given)


async def test_pieces_are_sent_as_they_come(transport, raw_server) -> None:
    came = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.wait_for(came.wait(), 20)  # the server has it before there is more
        yield b"second"

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"5\r\nfirst\r\n")
        assert b"Transfer-Encoding: chunked" in head
        came.set()
        await reader.readuntil(b"6\r\nsecond\r\n0\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    assert (await post(transport, await raw_server(read), pieces())).status == 200


async def test_pieces_that_cannot_be_had_are_the_callers_mistake_and_nothing_against_the_node(
    transport, node: int
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        raise LookupError("the camera is off")

    with pytest.raises(BadInput, match="the body of POST / cannot be read: the camera is off") as caught:
        await post(transport, node, pieces())
    assert isinstance(caught.value.__cause__, LookupError)


async def test_pieces_that_were_taken_are_not_sent_again_as_if_they_were_all(transport, raw_server, http) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http.read_request(reader)
        writer.write(http.raw_answer())
        await reader.readuntil(b"first\r\n")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        yield b"second"

    port = await raw_server(once)
    await post(transport, port, b"")
    with pytest.raises(TransportFailure) as caught:
        await post(transport, port, pieces(), "PUT")  # which aiohttp would repeat, with what is left
    assert caught.value.outcome is Outcome.STALE


# Answers.


async def test_an_answer_is_there_with_its_head_and_its_pieces_as_they_come(transport, raw_server, http) -> None:
    more = asyncio.Event()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 11\r\n\r\n")
        await more.wait()
        writer.write(b"first")
        more.clear()
        await more.wait()
        writer.write(b"second")
        await reader.read()

    answer = await stream(transport, await raw_server(slowly))
    assert (answer.status, answer.headers["x-a"], answer.body) == (200, "1", b"")
    pieces = aiter(answer.stream)
    for piece in (b"first", b"second"):
        more.set()
        assert await anext(pieces) == piece
    assert [piece async for piece in pieces] == []


@pytest.fixture
async def counted(raw_server, http) -> tuple[int, list[asyncio.Event]]:
    """A server of 8 MB bodies: its port, and for each connection an event that is set when it is lost."""
    connections: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.Event())
        lost = connections[-1]
        try:
            while await http.read_request(reader):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 * MEGABYTE) + bytes(8 * MEGABYTE))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            lost.set()

    return await raw_server(serve), connections


async def test_a_connection_read_to_the_end_is_used_again(transport, counted) -> None:
    port, connections = counted
    for _ in range(3):
        answer = await stream(transport, port)
        assert sum([len(piece) async for piece in answer.stream]) == 8 * MEGABYTE
        await answer.stream.close()
    await post(transport, port, b"")
    assert len(connections) == 1


async def test_a_connection_with_something_left_unread_is_dropped(transport, counted) -> None:
    port, connections = counted
    answer = await stream(transport, port)
    assert await anext(aiter(answer.stream))
    await answer.stream.close()
    await answer.stream.close()
    await connections[0].wait()
    assert [piece async for piece in answer.stream] == []
    await stream_to_end(transport, port)
    assert len(connections) == 2


async def stream_to_end(transport: AiohttpTransport, port: int) -> None:
    async for _ in (await stream(transport, port)).stream:
        pass


async def test_an_empty_body_is_no_pieces(transport, node: int, fleet) -> None:
    async def nothing(request: web.Request) -> web.Response:
        return web.Response(status=204)

    [empty] = await fleet(1, handler=nothing)
    answer = await stream(transport, empty.port)
    assert [piece async for piece in answer.stream] == []


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def half(http) -> Callable[[bool], Handler]:
    """A handler that sends half of a body, then goes or goes silent."""

    def make(goes: bool) -> Handler:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await http.read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.")
            if not goes:
                await reader.read()

        return handler

    return make


@pytest.mark.parametrize(
    ("goes", "outcome", "said"),
    [(True, Outcome.RESET, "in the middle of the answer"), (False, Outcome.TIMEOUT, r"within 0\.3 s")],
)
async def test_a_body_that_breaks_off_says_how(
    transport, raw_server, half, goes: bool, outcome: Outcome, said: str
) -> None:
    answer = await stream(transport, await raw_server(half(goes)), within=0.3)
    pieces = aiter(answer.stream)
    assert await anext(pieces) == b"half."
    with pytest.raises(TransportFailure, match=said) as caught:
        await anext(pieces)
    assert caught.value.outcome is outcome
    with pytest.raises(StopAsyncIteration):
        await anext(pieces)


async def test_a_read_that_was_cancelled_may_be_repeated(transport, raw_server, http) -> None:
    more = asyncio.Event()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        await more.wait()
        writer.write(b"later")
        await reader.read()

    answer = await stream(transport, await raw_server(slowly))
    reading = asyncio.create_task(anext(aiter(answer.stream)))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading})
    more.set()
    assert [piece async for piece in answer.stream] == [b"later"]


async def test_a_head_that_is_waited_for_can_be_given_up(transport, raw_server, http) -> None:
    came = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http.read_request(reader)
        came.set()
        await reader.read()

    port, given = await raw_server(never), []
    request = Request(method="GET", target="/")
    sending = transport.send(
        f"http://127.0.0.1:{port}", request, {}, within=100.0, connect_within=1.0, stream=True, waits=given.append
    )
    waiting = asyncio.create_task(sending)
    await came.wait()
    given[0]()
    with pytest.raises(TransportFailure, match="given up") as caught:
        await waiting
    assert caught.value.outcome is Outcome.TIMEOUT
    given[0]()


async def test_both_bodies_may_be_on_their_way_at_once(transport, fleet) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece)
        return response

    [echoing] = await fleet(1, handler=echo)
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def talk() -> AsyncIterator[bytes]:
        yield b"1"
        for number in range(2, 6):
            assert await heard.get() == str(number - 1).encode()
            yield str(number).encode()

    answer = await stream(transport, echoing.port, talk())
    said = []
    async for piece in answer.stream:
        said.append(piece)
        heard.put_nowait(piece)
    assert said == [b"1", b"2", b"3", b"4", b"5"]


async def test_leaving_an_answer_ends_the_request_body_too(transport, raw_server) -> None:
    lost = asyncio.Event()

    async def answer_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.")
        await reader.read()
        lost.set()

    async def endless() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    pieces = endless()
    answer = await stream(transport, await raw_server(answer_at_once), pieces)
    await answer.stream.close()
    await lost.wait()
    await pieces.aclose()


async def test_a_long_answer_is_never_whole_in_memory(transport, fleet) -> None:
    async def long(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        piece = bytes(MEGABYTE)
        for _ in range(64):
            await response.write(piece)
        return response

    [node] = await fleet(1, handler=long)
    answer = await stream(transport, node.port)
    tracemalloc.start()
    try:
        size = 0
        async for piece in answer.stream:
            size += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 64 * MEGABYTE
    assert peak < 16 * MEGABYTE
