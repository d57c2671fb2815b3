"""py-consul's HTTP client with a connection layer that keeps to this project's limits.

py-consul lets its HTTP client be replaced; its own asyncio one cannot send a server name, drops the client
certificate when the server's is not verified, reads an answer of any size, and follows a redirect with the token. So
the session and the sending are ours, while paths, parameters and verbs stay py-consul's.
"""

import ipaddress
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import consul.aio
import consul.base

from registry.consul.settings import ConsulSettings
from registry.errors import InvalidAnswer

# 200,000 instances; more is no list of a service.
LARGEST_ANSWER = 256 * 1024 * 1024
# Connecting is quick or hopeless: what swallows packets is not waited for as long as a slow answer is.
CONNECT_WITHIN = 5.0
_CONNECTIONS = 100
# A blocking query holds its connection.
_WATCHES = 4096

# To this machine there is no link to spare: packing and unpacking 10 MB takes longer than passing it on.
_ENCODING = {"Accept-Encoding": "identity"}

Callback = Callable[[Any], Any]


class Transport(consul.aio.HTTPClient):  # type: ignore[misc]
    """``get`` and ``put`` of ``consul.aio.HTTPClient``, whose bodies are lists of bytes; needs a running loop.

    Joining a large body would hold the loop up, and it is decoded piece by piece anyway.

    Raises what aiohttp raises, and ``InvalidAnswer`` for an answer larger than ``LARGEST_ANSWER``.
    """

    def __init__(self, settings: ConsulSettings, tls: ssl.SSLContext | None, *, blocking: bool) -> None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        consul.base.HTTPClient.__init__(self, host, settings.port, settings.scheme)
        self._server_name = settings.server_name or None
        connector = aiohttp.TCPConnector(ssl=tls or True, limit=_WATCHES if blocking else _CONNECTIONS)
        self._session = aiohttp.ClientSession(connector=connector, headers=_ENCODING if _here(settings.host) else None)

    async def _request(
        self,
        callback: Callback,
        method: str,
        uri: str,
        *,
        headers: dict[str, str] | None,
        data: str | bytes | None = None,
        connections_timeout: float | None = None,
        **_: object,
    ) -> Any:
        async with self._session.request(
            method,
            uri,
            headers=headers,
            data=data,
            timeout=aiohttp.ClientTimeout(total=connections_timeout, sock_connect=CONNECT_WITHIN),
            server_hostname=self._server_name,
            allow_redirects=False,
        ) as answer:
            return callback(consul.base.Response(answer.status, answer.headers, await _chunks(answer)))


def _here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _chunks(answer: aiohttp.ClientResponse) -> list[bytes]:
    if (answer.content_length or 0) > LARGEST_ANSWER:
        raise _too_large()
    chunks, size = [], 0
    async for chunk in answer.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > LARGEST_ANSWER:
            raise _too_large()
    return chunks


def _too_large() -> InvalidAnswer:
    return InvalidAnswer(f"the registry's answer is larger than {LARGEST_ANSWER >> 20} MB; is the address right?")
