"""HTTP to one Consul agent, through py-consul's asynchronous client; where foreign errors become ours.

py-consul's typed calls hide headers, ``stale`` and raw bytes, so its HTTP layer is called with our own callback. It
needs a running loop when built, so that happens at the first call. Blocking queries have a client, and so
connections, of their own: a long wait never queues behind a request. No message ever holds a token.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable, Container, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from registry.consul.settings import ConsulSettings
from registry.consul.transport import CONNECT_WITHIN, Transport
from registry.errors import (
    ConfigurationError,
    InvalidAnswer,
    PermissionDenied,
    RegistryError,
    RegistryUnavailable,
)
from registry.wording import printable

log = logging.getLogger(__name__)

# A loaded agent has been seen taking 12 s over one call (consul #3852); past that it counts as away.
TIMEOUT = 15.0
_LARGEST_INDEX = 2**64 - 1
# How an open-source agent refuses a namespace: with the words below, and status 400.
_ENTERPRISE = b"Namespaces are a Consul Enterprise feature"
_NO_PATH = b"No path to datacenter"
_NO_TLS = b"HTTP request to an HTTPS server"

_WANTS_CERTIFICATE = "it wants a client certificate it knows: CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY"
# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_MISMATCH = {62, 64}

Params = Sequence[tuple[str, str | int]]


class Answer(msgspec.Struct, frozen=True):
    """An answer whose status is 2xx or was expected; header names in lower case, the body in pieces."""

    status: int
    headers: Mapping[str, str]
    pieces: Sequence[bytes] = ()

    @property
    def found(self) -> bool:
        """Whether the agent knows the thing asked for."""
        return self.status != 404

    @property
    def body(self) -> bytes:
        """The whole of it; for a list of instances take the pieces."""
        return b"".join(self.pieces)

    @property
    def size(self) -> int:
        """Bytes in the body."""
        return sum(map(len, self.pieces))

    def number(self, header: str) -> int:
        """A header's whole number; 0 when it is absent, no number, or more than Consul's 64 bits hold."""
        text = self.headers.get(header, "")
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0
        return number if number <= _LARGEST_INDEX else 0


class ConsulHttp:
    """GET and PUT on one agent, in the namespace of the settings; ``close`` it in the loop it was used in.

    Both take statuses to ``expect`` besides 2xx (a 404 is often an answer) and raise ``RegistryError``.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        self.settings = settings
        self._tls: ssl.SSLContext | None = None
        self._clients: dict[bool, Transport] = {}
        self._namespace = settings.namespace

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
        return await self._call("get", path, params, expect, within=within, blocking=blocking)

    async def put(self, path: str, params: Params = (), data: bytes = b"", *, expect: Container[int] = ()) -> Answer:
        """Tell."""
        return await self._call("put", path, params, expect, data=data)

    async def close(self) -> None:
        """Give connections back; a later call opens new ones."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def _call(
        self,
        verb: str,
        path: str,
        params: Params,
        expect: Container[int],
        *,
        within: float = TIMEOUT,
        blocking: bool = False,
        **arguments: object,
    ) -> Answer:
        client = await self._client(blocking)
        token = self.settings.token.read()
        namespace = self._namespace
        response = await self._response(
            getattr(client, verb)(
                _as_is,
                path,
                params=[*params, ("ns", namespace)] if namespace else list(params),
                headers={"X-Consul-Token": token} if token else {},
                connections_timeout=within,
                **arguments,
            ),
            within,
        )
        if response.code == 400 and namespace and _ENTERPRISE in _start(response):
            if self._namespace:
                log.warning("%s has no namespaces; %s is left out from now on", self.settings.source, namespace)
            self._namespace = ""
            return await self._call(verb, path, params, expect, within=within, blocking=blocking, **arguments)
        if 200 <= response.code < 300 or response.code in expect:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.code, headers, response.body)
        raise self._refusal(response.code, _start(response))

    async def _client(self, blocking: bool) -> Transport:
        if self.settings.scheme == "https" and self._tls is None:
            # Reading the machine's certificate authorities takes 0.1 s.
            self._tls = await asyncio.to_thread(self.settings.tls)
        if blocking not in self._clients:
            self._clients[blocking] = Transport(self.settings, self._tls, blocking=blocking)
        return self._clients[blocking]

    async def _response(self, call: Awaitable[Any], within: float) -> Any:
        try:
            return await call
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            cause = error.__cause__ or error  # aiohttp's own pass for those of TLS too, and say less
            if isinstance(cause, ssl.SSLError):
                raise ConfigurationError(f"no safe connection to {self.settings.source}: {_distrust(cause)}") from error
            raise RegistryUnavailable(
                f"no answer from {self.settings.source} ({_reason(error, within)}{self._suspicion(error)}); "
                "check the address, or start one with: twostep registry"
            ) from error

    def _suspicion(self, error: Exception) -> str:
        # The alert that says so may be lost with the connection.
        broken = isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError)
        if broken and self.settings.scheme == "https" and not self.settings.cert:
            return f"; {_WANTS_CERTIFICATE}"
        return ""

    def _refusal(self, status: int, body: bytes) -> RegistryError:
        settings = self.settings
        source = settings.source
        text = printable(settings.token.hide(body.decode(errors="replace"))) or "no reason given"
        if status in {401, 403}:
            return PermissionDenied(f"{source} refused access: {text}; check the token in CONSUL_HTTP_TOKEN")
        if _NO_PATH in body:
            return RegistryUnavailable(f"{source} knows no way to datacenter {settings.dc!r}; check dc in the address")
        if status == 429 or status >= 500:
            return RegistryUnavailable(f"{source} cannot answer now: {text} ({status})")
        if _NO_TLS in body:
            return ConfigurationError(f"{source} speaks HTTPS: write https:// or set CONSUL_HTTP_SSL=true")
        if status == 400:
            return ConfigurationError(f"{source} refused the request: {text}")
        return InvalidAnswer(f"{source} answered {status}, as Consul would not ({text}); is the address right?")


def _as_is(response: Any) -> Any:
    return response


def _start(response: Any) -> bytes:
    return b"".join(response.body[:8])[:4096]


def _distrust(error: ssl.SSLError) -> str:
    """What is wrong between two ends of TLS, with what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        mismatch = error.verify_code in _MISMATCH
        remedy = "the name it has in CONSUL_TLS_SERVER_NAME" if mismatch else "its authority in CONSUL_CACERT"
        return f"its certificate is refused: {error.verify_message}; give {remedy}"
    reason = error.reason or str(error)
    if "WRONG_VERSION" in reason or "RECORD_LAYER" in reason:
        return "it does not speak TLS; write http:// in place of https://, or CONSUL_HTTP_SSL=false"
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return _WANTS_CERTIFICATE
    return reason.replace("_", " ").lower()


def _reason(error: BaseException, within: float) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no connection within {CONNECT_WITHIN:g} s"
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
