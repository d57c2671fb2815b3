"""Sending one attempt to one node: the ``Transport`` seam, and how an attempt's end is classified.

``outcome_of`` is the pure rule for answers; failures carry their outcome, given by the transport that saw them. The
transport keeps no time of its own but the connect timeout it is handed: the call's deadline is what counts. Redirects
are answers, not instructions: following one would go round the balancer.
"""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec

from smartclient.errors import ClientError
from smartclient.stats import Outcome


@runtime_checkable
class File(Protocol):
    """An open binary file that can be read again from where it stood."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, the rest when negative."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to ``offset``."""
        ...

    def tell(self) -> int:
        """Return where it stands."""
        ...


Body = bytes | bytearray | memoryview | File | AsyncIterable[bytes]
"""What can be sent: bytes, an open file, or pieces as they come. The last can be sent once only."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, the same for every attempt. ``target``: path and query."""

    method: str
    target: str
    headers: Mapping[str, str] = {}
    body: Body = b""

    @property
    def repeatable(self) -> bool:
        """Whether the body can be sent again."""
        return isinstance(self.body, bytes | bytearray | memoryview | File)


class Stream(Protocol):
    """The body of an answer, not read yet: pieces as they come, each within the seconds the answer itself had.

    Iterating raises ``TransportFailure`` when the connection is lost. ``close`` gives the connection back, or drops it
    when something is left unread; it is called at the end of the iteration too, and closing twice is fine.
    """

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def close(self) -> None:
        """Be done with it."""
        ...


class Answer(msgspec.Struct, frozen=True):
    """What came back, read to its end, or, when that was asked for, with its body still to come in ``stream``.

    Header names compare without case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    stream: Stream | None = None


class TransportFailure(ClientError):
    """No answer: ``outcome`` says how that happened, the message says it in words."""

    retryable = True

    def __init__(self, outcome: Outcome, message: str) -> None:
        self.outcome = outcome
        super().__init__(message)


class Transport(Protocol):
    """Something that can send a request to the node at ``url`` (scheme, host and port)."""

    async def send(
        self,
        url: str,
        request: Request,
        headers: Mapping[str, str],
        *,
        within: float,
        connect_within: float,
        fresh: bool = False,
        stream: bool = False,
        waits: Callable[[Callable[[], None]], None] | None = None,
    ) -> Answer:
        """Send and return the whole answer within that many seconds. Raises ``TransportFailure``.

        ``headers`` belong to this attempt and come on top of the request's. ``connect_within``: seconds for making
        a connection, where one must be made; ``fresh``: one must, no kept-alive connection will do. ``stream``: return
        when the head is there, the body to be read from ``Answer.stream``. ``waits``, once sending begins, is given a
        function that ends the wait for the answer at once, as if its time were up.
        """
        ...

    def snapshot(self) -> dict[str, Any]:
        """Return its observable state."""
        ...

    async def close(self) -> None:
        """Give connections back; closing twice is fine."""
        ...


def outcome_of(status: int, headers: Mapping[str, str]) -> Outcome:
    """Classify an answer: 429, and 503 with ``Retry-After``, are overload, other 5xx the node's fault."""
    if status < 429:
        return Outcome.OK
    if status == 429 or (status == 503 and "Retry-After" in headers):
        return Outcome.OVERLOADED
    return Outcome.SERVER_ERROR if status >= 500 else Outcome.OK


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a ``Retry-After`` header, None without one; its date form counts as 0, for clocks differ."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        return 0.0
