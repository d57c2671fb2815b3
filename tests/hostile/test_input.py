"""Whatever is sent to a real node: no 500, no crash, bounded memory, and good requests beside it are answered.

The bound on memory is 300 MB above what the idle node holds, at the worst moment, by the kernel's own account.
"""

import http.client
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Self

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.hostile.cases import CASES, Case
from tests.hostile.corpus import BOMBS, SEEDS, grey, large_bodies, packed_zeros
from tests.hostile.victim import MEBI, NUMBERS, PICTURES, Victim, victim
from tests.support import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MOST_GROWTH = 300 * 1000 * 1000 // MEBI  # MiB
EXAMPLES, AT_ONCE = 100, 20  # 2,000 cases
THREADS = 8


class Connections:
    """Keep-alive connections, one for each thread that sends."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._local = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._all:
            each.close()

    def send_until_taken(self, case: Case) -> tuple[int, bytes, http.client.HTTPMessage]:
        """Send it again, as it is told to, while the node is full."""
        while (answer := self.send(case))[0] == 503:
            time.sleep(int(answer[2]["Retry-After"]))
        return answer

    def send(self, case: Case) -> tuple[int, bytes, http.client.HTTPMessage]:
        """Send it and return status, body and headers of the answer."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            self._all.append(connection)
        if connection.sock is not None:
            try:
                return self._ask(connection, case)
            except (http.client.RemoteDisconnected, ConnectionError):
                connection.close()  # the node may close after any answer
        return self._ask(connection, case)

    @staticmethod
    def _ask(connection: http.client.HTTPConnection, case: Case) -> tuple[int, bytes, http.client.HTTPMessage]:
        try:
            connection.request("POST", case.path, case.body, case.headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered before it was all sent
        reply = connection.getresponse()
        return reply.status, reply.read(), reply.headers


class Good:
    """Good requests, one after the other, while something else happens."""

    def __init__(self, port: int) -> None:
        self.answered = 0
        self.wrong: list[object] = []
        self.slowest = 0.0
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        """Send no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with Connections(self._port) as connections:
            for number in itertools.count():
                if self._stop.wait(0.01):
                    return
                level = number * 37 % 256
                for case, label in self._cases(level):
                    began = time.monotonic()
                    try:
                        status, body, _ = connections.send(case)
                        if status != 200 or label(json.loads(body)) != level // 26:
                            self.wrong.append((status, body[:300], level))
                        self.answered += 1
                    except Exception as error:
                        self.wrong.append(error)
                    self.slowest = max(self.slowest, time.monotonic() - began)

    def _cases(self, level: int) -> list[tuple[Case, Callable[[dict], int]]]:
        row = [level] * (32 * 32 * 3)
        v2 = {"inputs": [{"name": "pixels", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": row}]}
        return [
            (Case("/classify", grey(level)), lambda said: said["results"][0]["predictions"][0]["index"]),
            (
                Case("/v2/models/pictures/infer", json.dumps(v2).encode()),
                lambda said: said["outputs"][0]["data"].index(1.0),
            ),
        ]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    folder = tmp_path_factory.mktemp("hostile")
    with victim(folder, "--body-timeout", "5", pictures=PICTURES, numbers=NUMBERS) as running:
        # What every node pays once: threads and their stacks, Pillow's readers.
        with ThreadPoolExecutor(THREADS) as pool, Connections(running.port) as connections:
            list(pool.map(lambda data: connections.send(Case("/classify", data)), [*SEEDS.values()] * 4))
        running.idle = running.resident()
        yield running
        assert "Traceback" not in running.log


@pytest.fixture
def sender(node: Victim) -> Iterator[Connections]:
    with Connections(node.port) as connections:
        yield connections


@pytest.fixture(autouse=True)
def beside(node: Victim) -> Iterator[None]:
    """Good requests beside every test, all of which have to be answered, and memory that has to stay in its bounds."""
    node.forget_peak()
    good = Good(node.port)
    yield
    wait_until(lambda: good.answered > 10 or good.wrong, 30, "good requests are answered")
    good.end()
    assert not good.wrong, (len(good.wrong), good.answered, good.wrong[:3])
    figures = f"{good.answered} good requests, the slowest took {good.slowest:.2f} s; memory grew by {node.growth} MiB"
    print(figures)  # noqa: T201 - shown with -rP
    assert node.growth < MOST_GROWTH


def check(case: Case, status: int, body: bytes, headers: http.client.HTTPMessage) -> None:
    own_deadline = status == 504 and "x-envoy-expected-rq-timeout-ms" in case.headers
    assert status < 500 or own_deadline or (status == 503 and headers["Retry-After"]), (case, status, body[:300])
    if status >= 400:
        said = json.loads(body)
        assert said["error"], case
        assert "Traceback" not in said["error"], case


def test_two_thousand_cases_nobody_would_send(sender: Connections) -> None:
    seen: dict[int, int] = {}

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # a failure names its case; making it smaller would take minutes
    )
    @given(st.lists(CASES, min_size=AT_ONCE, max_size=AT_ONCE))
    def run(cases: list[Case]) -> None:
        for case, (status, body, headers) in zip(cases, pool.map(sender.send, cases), strict=True):
            check(case, status, body, headers)
            seen[status] = seen.get(status, 0) + 1

    with ThreadPoolExecutor(THREADS) as pool:
        run()
    assert sum(seen.values()) >= EXAMPLES * AT_ONCE
    # The cases are worth sending: some are good, and some are refused for each reason.
    assert {200, 400, 404, 415, 422} <= set(seen), seen


def test_files_that_are_small_to_send_and_large_to_decode(sender: Connections) -> None:
    cases = {name: Case("/classify", make()) for name, (make, _) in BOMBS.items()}
    with ThreadPoolExecutor(4) as pool:
        answers = dict(zip(cases, pool.map(sender.send_until_taken, cases.values()), strict=True))
    statuses = {name: status for name, (status, _, _) in answers.items()}
    assert statuses == {name: status for name, (_, status) in BOMBS.items()}


def test_bodies_as_large_as_the_node_takes(sender: Connections) -> None:
    cases = [Case(path, body, headers) for path, body, headers in large_bodies().values()]
    with ThreadPoolExecutor(6) as pool:
        for case, answer in zip(cases, pool.map(sender.send, cases), strict=True):
            check(case, *answer)


def test_a_packed_body_is_not_unpacked_for_nobody(node: Victim, sender: Connections) -> None:
    """25 GB of zeros in 25 MB: unpacking them for as long as a connection lingers would take ten seconds of a core."""
    body = packed_zeros(64 << 20) * 400
    before = node.busy()
    for path, wanted in (("/classify", 413), ("/nowhere", 404)):
        status, _, _ = sender.send(Case(path, body, {"Content-Encoding": "gzip"}))
        assert status == wanted
    assert node.busy() - before < 4.0


def test_senders_of_headers_and_bodies_that_never_end(node: Victim) -> None:
    """Two hundred connections that send a line, then a few bytes now and then, and some that never stop."""
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", node.port))) for _ in range(200)]
        for number, each in enumerate(slow):
            length = f"Content-Length: {60_000_000}\r\n\r\n" if number % 2 else ""
            each.sendall(f"POST /classify HTTP/1.1\r\nHost: node\r\n{length}".encode())
        pool = stack.enter_context(ThreadPoolExecutor(20))
        floods = [stack.enter_context(socket.create_connection(("127.0.0.1", node.port))) for _ in range(20)]
        answers = list(pool.map(_flood, floods))
        for _ in range(10):
            for each in slow:
                with suppress(OSError):
                    each.sendall(b"x")
            time.sleep(0.1)
    assert all(answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")) or not answer for answer in answers), answers


def _flood(connection: socket.socket) -> bytes:
    """Send headers without end; what is said to it, empty when the connection is simply closed."""
    connection.settimeout(30)
    try:
        connection.sendall(b"GET /readyz HTTP/1.1\r\n")
        for number in range(5000):
            connection.sendall(f"X-Header-{number}: {'y' * 4000}\r\n".encode())
    except OSError:
        pass
    try:
        return connection.recv(100)
    except OSError:
        return b""


RAW = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
    b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"POST /classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx",
    b"POST /classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;" + b"e" * 100_000,
    b"POST /classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET /classify?" + b"q" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET //%ff%00 HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /readyz HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nHost: a\r\n\r\n\x81\x80",
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"\0" * 100_000,
    b"POST /classify HTTP/1.1\r\nHost: a\r\nExpect: 200-maybe\r\nContent-Length: 1\r\n\r\nx",
    b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n" * 3000,
]


def test_bytes_that_are_hardly_http(node: Victim) -> None:
    for raw in RAW:
        with socket.create_connection(("127.0.0.1", node.port)) as connection:
            connection.settimeout(2)
            said = b""
            with suppress(OSError):  # it may close while more is sent, or wait for more
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                while more := connection.recv(65536):
                    said += more
        statuses = {int(line.split()[1]) for line in said.split(b"\r\n") if line.startswith(b"HTTP/1.")}
        assert statuses <= {100, 200, 400, 404, 405, 408, 413, 414, 415, 417, 422, 431, 501, 505}, raw[:100]
