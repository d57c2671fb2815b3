"""One question to one node, by its registered address and nowhere else.

What a registration says is anybody's text: a scheme such as ``http://elsewhere/?`` would lead an address and the token
with it astray, so both are looked at before anything is sent. No redirect is followed, no cookie kept, no proxy of the
environment used; an answer is bounded in bytes and in seconds (of the ``Clock``).
"""

import asyncio
import errno
import ipaddress
import os
import re
import ssl

import aiohttp
import msgspec
from yarl import URL

from registry.model import Instance
from registry.timing import Clock
from registry.waiting import cancel, done_within
from registry.wording import printable

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})")
_PATH = re.compile(r"/[\x21-\x7e]{0,200}")


class Answer(msgspec.Struct, frozen=True):
    """What came back; the body is as the node wrote it."""

    status: int
    body: bytes


class NoAnswer(Exception):
    """No usable answer came; the message is one line that says why, without a token."""


class Asker:
    """Asks nodes. ``seconds`` and ``most`` (bytes) bound each answer; ``tls`` is for https nodes, None: the default.

    Without a ``session`` it makes one at first use and closes it in ``close``; ``keep``: with connections that stay.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        seconds: float,
        most: int,
        session: aiohttp.ClientSession | None = None,
        tls: ssl.SSLContext | None = None,
        keep: bool = False,
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._most = most
        self._lent = session
        self._own: aiohttp.ClientSession | None = None
        self._tls = tls
        self._keep = keep

    async def ask(self, instance: Instance, method: str, path: str, *, token: str = "", body: object = None) -> Answer:
        """Return what the node answers, whatever its status. ``body`` goes as JSON. Raises ``NoAnswer``."""
        url = where(instance, path)
        exchange = asyncio.ensure_future(self._exchange(method, url, token, body))
        try:
            if not await done_within(self._seconds, exchange, self._clock):
                raise NoAnswer(f"no answer within {self._seconds:g} s")
            return exchange.result()
        finally:
            await cancel(exchange)

    async def close(self) -> None:
        """Close the session that it made; one that was handed in stays open."""
        own, self._own = self._own, None
        if own is not None:
            await own.close()

    async def _exchange(self, method: str, url: URL, token: str, body: object) -> Answer:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = msgspec.json.encode(body)
        try:
            async with self._session().request(
                method,
                url,
                headers=headers,
                data=data,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None),  # ``ask`` has the time, by the clock it was given
                ssl=True if self._tls is None else self._tls,
            ) as response:
                return Answer(response.status, await self._read(response))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswer(_words(error)) from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        found = bytearray()
        while piece := await response.content.read(self._most + 1 - len(found)):
            found += piece
            if len(found) > self._most:
                response.close()
                raise NoAnswer(f"its answer is longer than {self._most // 1024} KiB")
        return bytes(found)

    def _session(self) -> aiohttp.ClientSession:
        if self._lent is not None:
            return self._lent
        if self._own is None:
            self._own = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=not self._keep),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # what is small on the wire may be huge unpacked; none was asked for
            )
        return self._own


def where(instance: Instance, path: str) -> URL:
    """Return the address of a path on an instance. Raises ``NoAnswer`` when the registration names no such place."""
    scheme = instance.meta.get("scheme", "http")
    if scheme not in ("http", "https"):
        raise NoAnswer(f"its registration names a scheme that is neither http nor https: {printable(scheme, 40)}")
    if not (_is_ip(instance.address) or _HOST.fullmatch(instance.address)) or not 0 < instance.port < 65536:
        raise NoAnswer(f"its registered address cannot be asked: {printable(instance.endpoint, 80)}")
    if not _PATH.fullmatch(path) or "\\" in path:
        raise NoAnswer(f"its registration names no path on it: {printable(path, 40)}")
    return URL(f"{scheme}://{instance.endpoint}{path}")


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return "%" not in address


def _words(error: Exception) -> str:
    """Why there was no answer, in one line."""
    if isinstance(error, aiohttp.ClientSSLError):
        return f"no trusted connection: {printable(str(error.os_error), 120)}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its address cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        known = number if number in errno.errorcode else None  # name resolution has numbers of its own
        return "no connection" if known is None else f"no connection: {os.strerror(known).lower()}"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError):
        return "it closed the connection without an answer"
    return "what it answered is no HTTP"
