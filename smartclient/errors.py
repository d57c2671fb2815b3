"""What can go wrong between a program and the nodes of a service.

One root, flat families. ``retryable`` stands on the class: whether the same call, made again a little later, may
succeed without anybody changing anything. A message names the service, the node and the next step. Errors of the
registry and of aiohttp are mapped at their seams (``cache``, ``transport``) with ``from``.
"""

from collections.abc import Sequence
from typing import ClassVar

import msgspec


class Attempt(msgspec.Struct, frozen=True):
    """One try that did not work: which instance, why, after how many milliseconds."""

    node: str
    reason: str
    milliseconds: float

    def __str__(self) -> str:
        return f"{self.node}: {self.reason} after {self.milliseconds:.0f} ms"


class ClientError(Exception):
    """The root of everything this package raises on purpose."""

    retryable: ClassVar[bool] = False


class BadOption(ClientError):
    """An option of the client that cannot be used as given."""


class ClientClosed(ClientError):
    """The client was used after ``close()``."""


class RegistryGone(ClientError):
    """The registry did not answer, and no earlier list of the service is known."""

    retryable = True


class RegistryRefused(ClientError):
    """The registry answered with a refusal, or its address cannot be used as written."""


class NoEndpoints(ClientError):
    """The service is known, but none of its instances may take a request now."""

    retryable = True


class ServiceUnknown(NoEndpoints):
    """The registry knows no instance of the service at all."""


class CallFailed(ClientError):
    """No attempt got a usable answer; ``attempts`` lists every one in order."""

    retryable = True

    def __init__(self, message: str, attempts: Sequence[Attempt] = ()) -> None:
        self.attempts = tuple(attempts)
        super().__init__(f"{message} ({'; '.join(map(str, self.attempts))})" if self.attempts else message)


class DeadlineExceeded(CallFailed):
    """The call's time ran out; ``attempts`` lists what it was spent on."""


class Throttled(CallFailed):
    """The call was not sent at all, because the service's nodes refuse nearly everything; see ``throttle``."""


class BadInput(ClientError):
    """The input is at fault, not the fleet: an unreadable file, or a 4xx answer.

    ``status`` and ``node`` are those of the answer (0 and empty when nothing was sent); ``reason`` is the node's
    short word for it (``bad_image``, ``too_large``, …).
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "", node: str = "") -> None:
        self.status = status
        self.reason = reason
        self.node = node
        super().__init__(message)


class AccessDenied(ClientError):
    """A node lets nobody in without a token it takes (401), or not with this one (403).

    ``status``, ``reason`` and ``node`` are those of the answer, as in ``BadInput``.
    """

    def __init__(self, message: str, *, status: int, reason: str = "", node: str = "") -> None:
        self.status = status
        self.reason = reason
        self.node = node
        super().__init__(message)


class BadAnswer(ClientError):
    """A node answered 2xx with something that is not the answer asked for: probably another kind of server."""


class HttpError(ClientError):
    """``Response.raise_for_status`` met an answer of 400 or more; ``status`` is its code."""

    def __init__(self, message: str, *, status: int) -> None:
        self.status = status
        super().__init__(message)
