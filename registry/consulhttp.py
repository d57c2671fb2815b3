"""HTTP to one Consul agent, through py-consul's asynchronous client; where foreign errors become ours.

py-consul brings scheme, TLS and address handling; its typed calls hide headers, ``stale`` and raw bytes, so its HTTP
layer is called with our own callback. It needs a running loop when built and lets CONSUL_HTTP_TOKEN override its own
argument, so it is built at the first call and the token header is ours. Blocking queries have a client, and so
connections, of their own: a long wait never queues behind a request. No message ever holds a token.
"""

import os
from collections.abc import Awaitable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import consul.aio
import msgspec

from registry.errors import (
    ConfigurationError,
    InvalidAnswer,
    PermissionDenied,
    RegistryError,
    RegistryUnavailable,
)

# A loaded agent has been seen taking 12 s over one call (consul #3852); past that it counts as away.
TIMEOUT = 15.0
# A blocking query holds its connection, and aiohttp's own limit is 100.
_WATCHES = 4096

Params = Sequence[tuple[str, str | int]]


@dataclass(frozen=True, slots=True)
class ConsulSettings:
    """How to reach an agent. ``verify``: True, False or the path of a CA file; ``cert``: certificate and key files."""

    host: str = "127.0.0.1"
    port: int = 8500
    scheme: str = "http"
    token: str = field(default="", repr=False)
    verify: bool | str = True
    cert: tuple[str, str] | str | None = None

    @property
    def source(self) -> str:
        """The address to show, and to paste into TWOSTEP_REGISTRY."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'consul' if self.scheme == 'http' else self.scheme}://{host}:{self.port}"


class Answer(msgspec.Struct, frozen=True):
    """An answer whose status is 2xx or was expected; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def found(self) -> bool:
        """Whether the agent knows the thing asked for."""
        return self.status != 404

    def number(self, header: str) -> int:
        """A header's whole number; 0 when it is absent or no number."""
        text = self.headers.get(header, "")
        return int(text) if text.isdecimal() else 0


class ConsulHttp:
    """GET and PUT on one agent; ``close`` it in the loop it was used in.

    Both take statuses to ``expect`` besides 2xx (a 404 is often an answer) and raise ``RegistryError``.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        self.settings = settings
        self._clients: dict[bool, Any] = {}

    async def get(
        self,
        path: str,
        params: Params = (),
        *,
        within: float = TIMEOUT,
        blocking: bool = False,
        expect: Container[int] = (),
    ) -> Answer:
        """Ask; ``within`` seconds is for all of it, connecting included."""
        http = self._client(blocking)
        arguments = {"params": list(params), "headers": self._headers(), "connections_timeout": within, "raw": True}
        return await self._answer(http.get(_as_is, path, **arguments), within, expect)

    async def put(self, path: str, params: Params = (), data: bytes = b"", *, expect: Container[int] = ()) -> Answer:
        """Tell."""
        http = self._client(False)
        arguments = {"params": list(params), "headers": self._headers(), "connections_timeout": TIMEOUT, "data": data}
        return await self._answer(http.put(_as_is, path, **arguments), TIMEOUT, expect)

    async def close(self) -> None:
        """Give connections back; a later call opens new ones."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.http.close()

    def _client(self, blocking: bool) -> Any:
        if blocking not in self._clients:
            settings = self.settings
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            try:
                self._clients[blocking] = consul.aio.Consul(
                    host=host,
                    port=settings.port,
                    scheme=settings.scheme,
                    # Without TLS there is nothing to verify, and reading the CA files would hold the loop for 0.1 s.
                    verify=settings.verify if settings.scheme == "https" else False,
                    cert=settings.cert,
                    connections_limit=_WATCHES if blocking else None,
                )
            except OSError as error:  # ssl.SSLError is one
                raise ConfigurationError(f"TLS files for {settings.source} cannot be used: {error}") from error
        return self._clients[blocking].http

    def _headers(self) -> dict[str, str]:
        return {"X-Consul-Token": self.settings.token} if self.settings.token else {}

    async def _answer(self, call: Awaitable[Any], within: float, expect: Container[int]) -> Answer:
        try:
            response = await call
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RegistryUnavailable(
                f"no answer from {self.settings.source} ({_reason(error, within)}); "
                "check the address, or start one with: twostep registry"
            ) from error
        body = response.body if isinstance(response.body, bytes) else response.body.encode()
        if 200 <= response.code < 300 or response.code in expect:
            return Answer(response.code, {name.lower(): value for name, value in response.headers.items()}, body)
        raise self._refusal(response.code, body)

    def _refusal(self, status: int, body: bytes) -> RegistryError:
        source = self.settings.source
        said = body.decode(errors="replace").strip()
        text = said.splitlines()[0][:200] if said else "no reason given"
        if self.settings.token:
            text = text.replace(self.settings.token, "(token)")
        if status in {401, 403}:
            return PermissionDenied(f"{source} refused access: {text}; check the token in CONSUL_HTTP_TOKEN")
        if status == 429 or status >= 500:
            return RegistryUnavailable(f"{source} cannot answer now: {text} ({status})")
        if status == 400:
            return ConfigurationError(f"{source} refused the request: {text}")
        return InvalidAnswer(f"{source} answered {status}, as Consul would not ({text}); is the address right?")


def _as_is(response: Any) -> Any:
    return response


def _reason(error: BaseException, within: float) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing within {within:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        known = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror
        return (known or str(cause)).lower()
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    if isinstance(error, aiohttp.ClientResponseError):
        return "it does not speak HTTP"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
