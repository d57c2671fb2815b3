"""What both clients accept as options, and a request made of them.

The keyword options are spelt out once, here, and unpacked by every method that takes them. Of a body nothing large is
copied.
"""

import os
import random
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, TypedDict
from urllib.parse import urlencode

import msgspec

from registry.timing import Clock
from smartclient.breaker import EjectionRule
from smartclient.endpoint import SlowStart
from smartclient.errors import BadOption
from smartclient.hedge import HedgeRule
from smartclient.policy import Policy
from smartclient.transport import Body, File, Request, Transport

_AS_IT_IS = (bytes, bytearray, memoryview, File, AsyncIterable)

Data = Body | str | Iterable[bytes] | None
"""Text (sent as UTF-8), bytes, an open binary file, or pieces; pieces can be sent once only, so not tried again."""


class ClientOptions(TypedDict, total=False):
    """Keyword options of both clients; see ``AsyncSmartClient``."""

    policy: str | Policy
    timeout: float
    attempts: int
    hedge: HedgeRule | bool
    throttle: bool
    ejection: EjectionRule | None
    slow_start: SlowStart | None
    tracing: bool | None
    cache_dir: str | os.PathLike[str] | None
    tls: ssl.SSLContext | None
    token: str | os.PathLike[str] | None
    reporter: str | None
    reporter_name: str | None
    transport: Transport | None
    clock: Clock | None
    rng: random.Random | None


class RequestOptions(TypedDict, total=False):
    """Keyword options of ``request``, ``stream``, ``get`` and ``post``; see ``AsyncSmartClient.request``."""

    params: Mapping[str, str | int | float] | None
    headers: Mapping[str, str] | None
    data: Data
    json: Any
    timeout: float | None
    idempotent: bool | None
    key: str


class PredictOptions(TypedDict, total=False):
    """Keyword options of ``predict``; see ``AsyncSmartClient.predict``."""

    model: str
    version: str
    outputs: Sequence[str] | None
    parameters: Mapping[str, Any] | None
    binary: bool
    timeout: float | None
    key: str


def request_of(method: str, path: str, options: RequestOptions) -> Request:
    """Return the request that ``method``, ``path`` and ``options`` describe. Raises ``BadOption``."""
    target = path if path.startswith("/") else f"/{path}"
    if params := options.get("params"):
        target += ("&" if "?" in target else "?") + urlencode(params)
    headers, data = options.get("headers") or {}, options.get("data")
    if (value := options.get("json")) is not None:
        if data is not None:
            raise BadOption("give data or json, not both")
        data = _to_json(value)
        headers = {"Content-Type": "application/json", **headers}
    return Request(method=method.upper(), target=target, headers=headers, body=body_of(data))


def _to_json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError) as error:
        raise BadOption(f"json cannot be encoded: {error}") from error


def body_of(data: Data) -> Body:
    """Return ``data`` as a body. Raises ``BadOption`` for what is none."""
    if data is None:
        return b""
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, _AS_IT_IS):
        return data
    if isinstance(data, Iterable):
        return _pieces(data)
    raise BadOption(f"data cannot be {type(data).__name__}; give bytes, text, an open binary file, or pieces of bytes")


async def _pieces(data: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece
