"""HTTP to look-up services; where foreign errors become ours.

One session for all addresses, made at the first call because it needs a running loop. Redirects are not followed: a
token would go where nobody sent it. Every answer is bounded, and no message ever holds a token.
"""

import asyncio
import os
from urllib.parse import quote

import aiohttp
import yarl

from registry.errors import (
    ConfigurationError,
    InvalidAnswer,
    PermissionDenied,
    RegistryError,
    RegistryUnavailable,
)
from registry.lookup.client.address import LookupSettings
from registry.lookup.client.lines import LARGEST, Lines
from registry.lookup.wire import Listing, decode_listing, decode_refusal
from registry.query import Query
from registry.wording import printable

# A service that has just been asked about for the first time waits up to 5 s for its registry.
ANSWER_WITHIN = 7.0
CONNECT_WITHIN = 2.0
_LARGEST_REFUSAL = 16 * 1024


class LookupStream:
    """One open stream; ``address`` is who sends it."""

    def __init__(self, address: str, response: aiohttp.ClientResponse, http: "LookupHttp") -> None:
        self.address = address
        self._response = response
        self._http = http
        self._lines = Lines(response.content)

    @property
    def ready(self) -> bool:
        """Whether a line is here already."""
        return self._lines.ready

    async def more(self) -> bool:
        """Wait for the next line; False when the service ended the stream. Raises ``RegistryError``."""
        try:
            return await self._lines.more()
        except InvalidAnswer as error:
            raise self._http.unreadable(self.address, error) from error
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise self._http.unreachable(self.address, error) from error

    def take(self) -> bytes:
        """The next line, which is there."""
        return self._lines.take()

    def close(self) -> None:
        """Close the connection; twice is fine."""
        self._response.close()


class LookupHttp:
    """Asks one address at a time; ``close`` it in the loop it was used in."""

    def __init__(self, settings: LookupSettings) -> None:
        self.settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def listing(self, address: str, query: Query, *, within: float) -> tuple[Listing, float]:
        """The list now, and how many seconds a cache on the way has kept it. Raises ``RegistryError``."""
        try:
            async with asyncio.timeout(within), await self._get(address, "", query) as response:
                if response.status != 200:
                    raise await self._refusal(address, response)
                body = await _read(response.content, LARGEST)
                age = response.headers.get("Age", "")
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # TimeoutError is one
            raise self.unreachable(address, error, within) from error
        if len(body) > LARGEST:
            raise self.unreadable(address, f"it sent more than {LARGEST >> 20} MB")
        try:
            return decode_listing(body), float(age) if age.isdecimal() else 0.0
        except InvalidAnswer as error:
            raise self.unreadable(address, error) from error

    async def stream(self, address: str, query: Query) -> LookupStream:
        """Open a stream. Raises ``RegistryError``."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                response = await self._get(address, "/stream", query)
                if response.status == 200:
                    return LookupStream(address, response, self)
                async with response:
                    raise await self._refusal(address, response)
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            raise self.unreachable(address, error, ANSWER_WITHIN) from error

    async def close(self) -> None:
        """Give connections back; a later call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def unreachable(self, address: str, error: BaseException, within: float = 0.0) -> RegistryUnavailable:
        """No answer, or no more of it."""
        return RegistryUnavailable(f"no answer from {address} ({_reason(error, within)})")

    def unreadable(self, address: str, what: object) -> InvalidAnswer:
        """An answer that is none."""
        return InvalidAnswer(self._clean(f"{address} does not answer as a look-up service: {what}"))

    async def _get(self, address: str, suffix: str, query: Query) -> aiohttp.ClientResponse:
        settings = self.settings
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Every stream holds a connection, and aiohttp's own limit is 100.
                connector=aiohttp.TCPConnector(limit=0, ssl=settings.tls or True),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_WITHIN),
            )
        base = yarl.URL(
            f"{settings.scheme}://{address}/v1/lookup/{quote(query.service, safe='')}{suffix}", encoded=True
        )
        headers = {"Accept-Encoding": "identity" if suffix else "gzip"}
        if token := settings.token.read():
            headers["Authorization"] = f"Bearer {token}"
        return await self._session.get(base, params=self._params(query), headers=headers, allow_redirects=False)

    def _params(self, query: Query) -> list[tuple[str, str]]:
        given = [(name, getattr(query, name)) for name in ("tag", "zone", "version")]
        params = [(name, value) for name, value in given if value]
        params += [("meta", f"{key}:{value}") for key, value in query.meta.items()]
        if not query.passing_only:
            params.append(("passing", "0"))
        if self.settings.limit:
            params += [("limit", str(self.settings.limit)), ("client", self.settings.client)]
        return params

    async def _refusal(self, address: str, response: aiohttp.ClientResponse) -> RegistryError:
        status = response.status
        try:
            said = decode_refusal(await _read(response.content, _LARGEST_REFUSAL)).error
        except InvalidAnswer:
            said = ""
        said = self._clean(said) or (response.reason or "no reason given")
        if status in {401, 403}:
            return PermissionDenied(f"{address} refused access: {said}")
        if status == 429 or status >= 500:
            return RegistryUnavailable(f"{address} cannot answer now: {said} ({status})")
        if status in {400, 404}:
            return ConfigurationError(f"{address} refused the request: {said} ({status})")
        return self.unreadable(address, f"status {status}")

    def _clean(self, text: str) -> str:
        return printable(self.settings.token.hide(text))


async def _read(content: aiohttp.StreamReader, most: int) -> bytes:
    """All of a body, or the first of it that is too much."""
    body = bytearray()
    while len(body) <= most and (chunk := await content.readany()):
        body += chunk
    return bytes(body)


def _reason(error: BaseException, within: float) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            said = f"TLS failed: {error.args[-1]}"
        case aiohttp.ConnectionTimeoutError():
            said = f"no connection within {CONNECT_WITHIN:g} s"
        case TimeoutError():
            said = f"nothing within {within:g} s"
        case aiohttp.ClientConnectorError(os_error=cause):
            known = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror
            said = (known or str(cause)).lower()
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            said = "the connection broke"
        case aiohttp.ClientResponseError():
            said = "it does not speak HTTP"
        case _:
            said = str(error).partition("\n")[0] or type(error).__name__
    return said
