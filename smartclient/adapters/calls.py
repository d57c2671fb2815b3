"""From a library's request to a client's call, and back: its time limits, its headers, and who has a token.

These libraries bound each step (making a connection, a silence while reading), a client bounds the call up to the
head of the answer, tries on other nodes included, and then each piece of the body. So the read timeout becomes that
bound, and where a body is sent as well, sending it may take what it takes at ``SLOWEST``. There is no pool to wait
for, and making a connection has its own short limit (``attempt.CONNECT_TIMEOUT``).
"""

from collections.abc import Iterable, Mapping

from aiohttp import compression_utils

from smartclient.errors import BadOption
from smartclient.options import ClientOptions

UNLIMITED = 86_400.0  # seconds; what "no timeout" means to a client whose every call has one
SLOWEST = 1e6  # bytes per second at which a body may be sent: a hundredth of a 1 Gbit/s link

_OF_ONE_CONNECTION = frozenset({"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"})
"""About the connection rather than the request (RFC 9110, section 7.6.1), and a client's connections are its own."""

_DECODED = frozenset({"gzip", "deflate", "br"} | ({"zstd"} if hasattr(compression_utils, "HAS_ZSTD") else set()))
"""Codings that aiohttp, and so a client, undoes by itself."""

_OF_A_CODED_BODY = frozenset({"content-encoding", "content-length"})


def within(read: float | None, headers: Mapping[str, str | bytes], *, otherwise: float | None) -> float:
    """Return the seconds for a call.

    ``read``: the library's read timeout; None means no limit, or ``otherwise`` where that is given. ``headers``: the
    request's, whose names compare without case; they tell how much is to be sent, or that nobody knows.
    """
    if read is None:
        return otherwise or UNLIMITED
    if "Transfer-Encoding" in headers:
        return UNLIMITED
    return read + int(headers.get("Content-Length", "0")) / SLOWEST


def tokenless(options: ClientOptions) -> ClientOptions:
    """Return the options of a client that sends a program's own headers, and not the environment's token beside them.

    A program asks many services, and whom it shows what is its own to say. Raises ``BadOption`` for a token.
    """
    if options.get("token"):
        raise BadOption("token cannot be used here; set the Authorization header of the requests that need one")
    return {**options, "token": ""}


def sendable(headers: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """Return the headers to hand to a client: all but those of one connection, bytes as the text they stand for."""
    return {
        name: value if isinstance(value, str) else value.decode("latin-1")
        for name, value in headers
        if name.lower() not in _OF_ONE_CONNECTION
    }


def received(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the headers of an answer as they are true of its body: a coding that is undone by now is not there."""
    if headers.get("Content-Encoding", "").lower() not in _DECODED:
        return list(headers.items())
    return [(name, value) for name, value in headers.items() if name.lower() not in _OF_A_CODED_BODY]
