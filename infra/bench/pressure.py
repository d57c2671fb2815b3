"""The load generator of ``bench node``: keep-alive connections in a closed loop, with as little work as possible.

It shares its cores with what it measures, so requests are bytes made beforehand, sent by one thread that waits for all
sockets at once. ``python -m infra.bench.pressure FOLDER`` prints ``{}`` once it can start; each line on standard
input is a ``closed.Turn`` in JSON, answered with an ``Outcome``. An answer counts if it is a 200 that names a class and
a score there can be, and is held against the image's own class, its number; whatever else comes is a failure, and its
connection is made anew.
"""

import re
import selectors
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from infra.bench.closed import MOST_FAILURES, Outcome, Tally, Turn

HOST = "127.0.0.1"
PATH = "/classify"
CLASSES = 1000
# How long what is under way at the end of a turn is waited for, seconds.
DRAIN = 20.0
_CHUNK = 65536
_READ = selectors.EVENT_READ
_BOTH = selectors.EVENT_READ | selectors.EVENT_WRITE
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_BOUNDARY = "twostep-bench-boundary"


class Prediction(msgspec.Struct):
    """A class and its score, in whatever they are wrapped."""

    index: int
    score: float


class _Result(msgspec.Struct):
    predictions: list[Prediction]


class NodeAnswer(msgspec.Struct):
    """What a node answers to ``/classify``."""

    results: list[_Result]


class Failed(Exception):
    """What came is no right answer."""


class Form(msgspec.Struct, frozen=True):
    """How a server wants its image, and where its answer has the prediction."""

    content_type: str
    before: bytes
    after: bytes
    read: Callable[[bytes], Prediction]

    def prediction(self, body: bytes) -> Prediction:
        """What an answer's body says. Raises ``Failed`` for what names no class, or a score that cannot be."""
        try:
            found = self.read(body)
        except (msgspec.MsgspecError, IndexError) as error:
            raise Failed(f"{error}: {body[:100].decode(errors='replace')}") from error
        if not (0 <= found.index < CLASSES and 0 < found.score <= 1):
            raise Failed(f"no class of {CLASSES}, or no score from 0 to 1: {found}")
        return found

    def body(self, image: bytes) -> bytes:
        """The image as the server wants it."""
        return self.before + image + self.after

    def request(self, image: bytes) -> bytes:
        """The whole request, ready to send."""
        body = self.body(image)
        head = f"POST {PATH} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {self.content_type}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _plainly(body: bytes) -> Prediction:
    return msgspec.json.decode(body, type=Prediction)


def _of_node(body: bytes) -> Prediction:
    return msgspec.json.decode(body, type=NodeAnswer).results[0].predictions[0]


FORMS = {
    "node": Form("image/jpeg", b"", b"", _of_node),
    "raw": Form("image/jpeg", b"", b"", _plainly),
    "multipart": Form(
        f"multipart/form-data; boundary={_BOUNDARY}",
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="request"; filename="image.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode(),
        f"\r\n--{_BOUNDARY}--\r\n".encode(),
        _plainly,
    ),
}  # fmt: skip


class Connection:
    """One client: the request it is sending or waiting for. Raises ``OSError`` where there is no server."""

    def __init__(self, port: int, image: int) -> None:
        self.image = image
        self.first = True
        self.sent_at = 0.0
        self._port = port
        self._sending = memoryview(b"")
        self._received = b""
        self.socket = self._connected()

    def begin(self, image: int, request: bytes, now: float) -> None:
        """Start a new request, with the image of this number."""
        self.image, self.sent_at = image, now
        self._sending, self._received = memoryview(request), b""

    def send(self) -> bool:
        """Send what the kernel takes; whether that was all. Raises ``Failed``."""
        try:
            while self._sending:
                self._sending = self._sending[self.socket.send(self._sending) :]
        except BlockingIOError:
            return False
        except OSError as error:
            raise Failed(f"the connection broke while sending: {error.strerror}") from error
        return True

    def receive(self) -> bytes | None:
        """Return the answer's body once it is here. Raises ``Failed``."""
        try:
            piece = self.socket.recv(_CHUNK)
        except OSError as error:
            raise Failed(f"the connection broke: {error.strerror}") from error
        if not piece:
            raise Failed("the connection was closed without an answer")
        self._received += piece
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return None
        if head[9:12] != b"200":
            raise Failed((head.partition(b"\r\n")[0] + b" " + body[:200]).decode(errors="replace"))
        length = _LENGTH.search(head)
        if length is None:
            raise Failed("the answer has no Content-Length")
        return body if len(body) >= int(length[1]) else None

    def again(self) -> None:
        """Connect anew."""
        self.socket.close()
        self.socket, self.first = self._connected(), True

    def _connected(self) -> socket.socket:
        made = socket.create_connection((HOST, self._port), timeout=5)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        return made


class Pressure:
    """Takes one turn. Raises ``OSError`` where there is no server."""

    def __init__(self, turn: Turn, bodies: Sequence[bytes]) -> None:
        self._turn = turn
        self._form = FORMS[turn.form]
        self._requests = [self._form.request(body) for body in bodies]
        self._connections = [Connection(turn.port, number) for number in range(turn.clients)]
        self._selector = selectors.DefaultSelector()
        self._asking: set[Connection] = set()
        self._tally = Tally(turn, time.monotonic())

    def run(self) -> Outcome:
        """Ask until the turn is over and what is under way has come back."""
        cpu, now = time.process_time(), time.monotonic()
        self._tally = Tally(self._turn, now)
        try:
            for each in self._connections:
                self._selector.register(each.socket, _READ, each)
                self._ask(each, now)
            while self._asking and self._tally.failed < MOST_FAILURES and now < self._tally.end + DRAIN:
                for key, events in self._selector.select(1.0):
                    self._serve(key.data, events)
                now = time.monotonic()
        finally:
            self._selector.close()
            for each in self._connections:
                each.socket.close()
        if self._asking:
            self._tally.failure(f"{len(self._asking)} requests were not answered")
        return self._tally.outcome(time.process_time() - cpu)

    def _ask(self, each: Connection, now: float) -> None:
        if now < self._tally.end:
            self._asking.add(each)
            image = (each.image + 1) % len(self._requests)
            each.begin(image, self._requests[image], now)
            self._selector.modify(each.socket, _BOTH, each)

    def _serve(self, each: Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE and each.send():
                self._selector.modify(each.socket, _READ, each)
            if events & selectors.EVENT_READ and (body := each.receive()) is not None:
                now = time.monotonic()
                found = self._form.prediction(body)
                self._tally.answered(now, each.sent_at, first=each.first, own=found.index == each.image)
                self._asking.discard(each)
                each.first = False
                self._ask(each, now)
        except Failed as error:
            self._failed(each, str(error))

    def _failed(self, each: Connection, what: str) -> None:
        self._tally.failure(what)
        self._asking.discard(each)
        self._selector.unregister(each.socket)
        each.again()
        self._selector.register(each.socket, _READ, each)
        self._ask(each, time.monotonic())


def images(folder: Path) -> list[Path]:
    """The JPEGs of a folder; the n-th is of class n."""
    return sorted(folder.glob("*.jpg"))


def main(folder: Path) -> None:
    """Take turns until standard input ends."""
    bodies = [path.read_bytes() for path in images(folder)]
    print("{}", flush=True)
    for line in sys.stdin:
        turn = msgspec.json.decode(line, type=Turn)
        try:
            outcome = Pressure(turn, bodies).run()
        except OSError as error:
            words = f"there is no server at port {turn.port}: {error.strerror}"
            outcome = Outcome(rate=0.0, milliseconds=[], answered=0, cpu=0.0, failed=1, first_failure=words)
        print(msgspec.json.encode(outcome).decode(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
