"""What ``request()`` returns: any answer of any HTTP service, good or bad, and how it was come by."""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self

import msgspec

from smartclient.call import Done
from smartclient.errors import BadAnswer, CallFailed, HttpError
from smartclient.refusals import UNREADABLE
from smartclient.transport import Stream, TransportFailure


class Response(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """An answer read to its end. Header names compare without case.

    ``node``: id of the instance that gave it; ``milliseconds``: the whole call, failed attempts included.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    node: str
    attempts: int
    milliseconds: float
    _hide: Callable[[str], str] = str

    @classmethod
    def of(cls, done: Done) -> Self:
        """Return what the user sees of a finished call."""
        return cls(
            status=done.answer.status,
            headers=done.answer.headers,
            body=done.answer.body,
            node=done.endpoint.name,
            attempts=done.attempts,
            milliseconds=done.milliseconds,
            _hide=done.hide,
        )

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status < 400

    def text(self) -> str:
        """Return the body as text, in the charset it declares, else UTF-8; what does not decode is replaced."""
        declared = re.search(r"charset=\"?([\w.:-]+)", self.headers.get("Content-Type", ""), re.IGNORECASE)
        try:
            return self.body.decode(declared[1] if declared else "utf-8", errors="replace")
        except LookupError:
            return self.body.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """Return the body decoded from JSON. Raises ``BadAnswer``."""
        try:
            return msgspec.json.decode(self.body)
        except UNREADABLE as error:
            raise BadAnswer(f"{self.node} answered {self.status} with something that is not JSON: {error}") from error

    def raise_for_status(self) -> Self:
        """Return itself when the status is below 400. Raises ``HttpError``."""
        if self.ok:
            return self
        said = self._hide(self.text()).strip().splitlines()
        raise HttpError(f"{self.node} answered {self.status}: {said[0][:200] if said else ''}", status=self.status)


class StreamedResponse:
    """An answer whose body is still to be read: iterate for its pieces, or ``read`` it to its end.

    Reading raises ``CallFailed`` when the connection is lost on the way. What is left unread when the ``stream`` block
    ends is dropped.
    """

    def __init__(self, head: Response, stream: Stream) -> None:
        self.status = head.status
        self.headers = head.headers
        self.node = head.node
        self.attempts = head.attempts
        self.milliseconds = head.milliseconds
        self._stream = stream

    @classmethod
    def of(cls, done: Done) -> Self:
        """Return what the user sees of a finished call whose answer's body is still to come."""
        if done.answer.stream is None:
            raise BadAnswer(f"{done.endpoint.name} was not asked for a stream")
        return cls(Response.of(done), done.answer.stream)

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status < 400

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._stream:
                yield piece
        except TransportFailure as failure:
            raise CallFailed(f"{self.node}: the answer broke off: {failure}") from failure

    async def read(self) -> bytes:
        """Return the rest of the body."""
        return b"".join([piece async for piece in self])

    async def close(self) -> None:
        """Be done with it; closing twice is fine."""
        await self._stream.close()
