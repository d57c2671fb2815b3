"""What can go wrong on a node: one root, flat families.

``RequestError`` is for whoever sent a request: each family carries its HTTP status and the ``reason`` word of the
protocol (docs/protocol.md), so that the server maps without a table. Everything else is for whoever runs the node: one
line with the next step. ``retryable`` says whether the same thing may succeed elsewhere or a little later.
"""

from typing import ClassVar


class NodeError(Exception):
    """The root of everything this package raises on purpose."""

    retryable: ClassVar[bool] = False


class ModelError(NodeError):
    """The model cannot be found, verified, read or served as it is."""


class MissingExtra(NodeError):
    """An optional dependency is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        package = module.partition(".")[0]
        super().__init__(f"{package} is not installed; run: pip install 'twostep[{extra}]'")


class PortInUse(NodeError):
    """The node's address cannot be bound."""


class TrainingError(NodeError):
    """Training cannot start or go on with what was given."""


class RequestError(NodeError):
    """The root of what a client is told: ``status`` and ``reason`` of the answer, and headers of its own."""

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "internal"
    closes: ClassVar[bool] = False

    @property
    def headers(self) -> dict[str, str]:
        """Headers this answer carries."""
        return {}

    @property
    def details(self) -> dict[str, object]:
        """Fields of the answer's body besides ``error``, ``reason`` and ``node``."""
        return {}


class InternalError(RequestError):
    """The node failed at a request that was in order."""

    retryable = True


class BadRequest(RequestError):
    """The request itself is malformed (400)."""

    status = 400
    reason = "bad_request"


class MalformedBody(BadRequest):
    """The body breaks its own encoding (400); the connection ends, for nobody knows where the next request starts."""

    closes = True


class NotFound(RequestError):
    """There is no such model, version or label here (404); another node may have it."""

    status = 404
    reason = "not_found"


class EmptyBody(RequestError):
    """There is no image in the request (400)."""

    status = 400
    reason = "empty"


class SlowBody(RequestError):
    """The body did not arrive in time (408); the connection ends, for the rest of it may yet come."""

    status = 408
    reason = "bad_request"
    closes = True
    retryable = True


class TooLarge(RequestError):
    """More bytes than the node takes, or more pixels than it decodes (413)."""

    status = 413
    reason = "too_large"


class BodyTooLarge(TooLarge):
    """More bytes than the node takes (413); the connection ends, for reading the rest would serve nobody."""

    closes = True


class Unsupported(RequestError):
    """A content type or encoding the node does not read (415)."""

    status = 415
    reason = "unsupported"


class BadImage(RequestError):
    """The bytes are no image the node can decode (422)."""

    status = 422
    reason = "bad_image"


class Overloaded(RequestError):
    """Too much is waiting already (503).

    ``retry_after`` is whole seconds, ``wait`` the predicted wait in seconds (None: refused for count or bytes).
    """

    status = 503
    reason = "overloaded"
    retryable = True

    def __init__(self, message: str, *, retry_after: int = 1, wait: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.wait = wait

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After`` in whole seconds."""
        return {"Retry-After": str(self.retry_after)}

    @property
    def details(self) -> dict[str, object]:
        """``wait_ms``: the predicted wait, where time was the reason."""
        return {} if self.wait is None else {"wait_ms": round(self.wait * 1e3)}


class Draining(RequestError):
    """The node is going away (503): another one answers at once, hence ``Retry-After: 0``."""

    status = 503
    reason = "draining"
    retryable = True
    closes = True

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After: 0``."""
        return {"Retry-After": "0"}


class DeadlineExceeded(RequestError):
    """The request's deadline passes before an answer can be ready (504)."""

    status = 504
    reason = "deadline"


class ClientGone(RequestError):
    """The client has closed its connection; nobody reads this answer (499, as nginx counts it)."""

    status = 499
    reason = "bad_request"


class Unauthorized(RequestError):
    """No token, or none this node takes (401)."""

    status = 401
    reason = "unauthorized"

    @property
    def headers(self) -> dict[str, str]:
        """``WWW-Authenticate: Bearer``."""
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(RequestError):
    """Nobody may do this here, or not with this token (403)."""

    status = 403
    reason = "forbidden"
