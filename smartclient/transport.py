"""Sending one attempt to one node: the ``Transport`` seam, and how an attempt's end is classified.

``outcome_of`` is the pure rule for answers; failures carry their outcome, given by the transport that saw them. The
transport keeps no time of its own but the connect timeout it is handed: the call's deadline is what counts. Redirects
are answers, not instructions: following one would go round the balancer.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from smartclient.errors import ClientError
from smartclient.stats import Outcome


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, the same for every attempt. ``target``: path and query. The body can be sent again: it is bytes."""

    method: str
    target: str
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Answer(msgspec.Struct, frozen=True):
    """What came back, read to its end. Header names compare without case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


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
    ) -> Answer:
        """Send and return the whole answer within that many seconds. Raises ``TransportFailure``.

        ``headers`` belong to this attempt and come on top of the request's. ``connect_within``: seconds for making
        a connection, where one must be made; ``fresh``: one must, no kept-alive connection will do.
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
