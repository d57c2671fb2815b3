"""What ``request()`` returns: any answer of any HTTP service, good or bad, and how it was come by."""

import re
from collections.abc import Mapping
from typing import Any, Self

import msgspec

from smartclient.call import Done
from smartclient.errors import BadAnswer, HttpError


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """An answer read to its end. Header names compare without case.

    ``node``: id of the instance that gave it; ``milliseconds``: the whole call, failed attempts included.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    node: str
    attempts: int
    milliseconds: float

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
        except msgspec.DecodeError as error:
            raise BadAnswer(f"{self.node} answered {self.status} with something that is not JSON: {error}") from error

    def raise_for_status(self) -> Self:
        """Return itself when the status is below 400. Raises ``HttpError``."""
        if self.ok:
            return self
        said = self.text().strip().splitlines()
        raise HttpError(f"{self.node} answered {self.status}: {said[0][:200] if said else ''}", status=self.status)
