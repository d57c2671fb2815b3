"""aiohttp through the balancer: give a session a connector, or a middleware, and keep every call.

    async with aiohttp.ClientSession(connector=SmartConnector()) as session:
        await session.post("http://digits.service.consul/classify", data=image)

    async with SmartMiddleware() as smart, aiohttp.ClientSession(middlewares=(smart,)) as session: ...

The request stays aiohttp's own, with the session's pool, timeouts, traces and cookies; only where it goes is decided
here, for each request anew. **The connector** sees connections: one that cannot be made is made to another node, and
who refuses several is left out. It closes with its session. **The middleware** sees answers too: it tries again after
503, 5xx and lost connections, within the budget for retries, and believes load reports. It needs aiohttp 3.12.1 and is
closed by whoever made it. (A resolver would not do: aiohttp keeps one pool for whatever a name resolves to, so that a
session with one request at a time would stay with one node.) Hosts that are no service's are not touched. Errors are
aiohttp's, with this package's as their cause. A port in the URL is not looked at: the registry knows each node's.
"""

import asyncio
import errno
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self, Unpack

import aiohttp
from aiohttp.client import ClientTimeout
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from registry.directory import Directory
from smartclient.adapters.aiohttp_errands import Connecting, Exchange, Handler
from smartclient.adapters.borrowed import Errands
from smartclient.adapters.trouble import Trouble, trouble_of
from smartclient.client import AsyncSmartClient
from smartclient.errors import BadOption, ClientError
from smartclient.options import ClientOptions


class SmartConnector(aiohttp.TCPConnector):
    """A connector whose connections to ``http://SERVICE.service.consul/`` go to the service's nodes in turn.

    ``registry`` as for ``AsyncSmartClient``, ``client``: its other options but ``token``, the policy being rotation:
    how long a connection takes says nothing of a node's work. All else is ``TCPConnector``'s.
    """

    def __init__(
        self, registry: str | Directory | None = None, *, client: ClientOptions | None = None, **options: Any
    ) -> None:
        self._errands = Errands(registry, {"policy": "rotation", **(client or {})})
        super().__init__(**options)

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        """See aiohttp."""
        connect = super().connect
        with _mapped(req):
            client = _client(self._errands, req)
            if client is None:
                return await connect(req, traces, timeout)
            errand = Connecting(lambda limits: connect(req, traces, limits), req, timeout)
            target = req.url.raw_path_qs
            async with asyncio.timeout(timeout.connect or None):
                connection, done = await self._errands.run(client, errand, req.method, target, idempotent=True)
        connection.add_callback(done)
        return connection

    async def close(self, **options: Any) -> None:
        """See aiohttp; closes the clients of all services as well."""
        await self._errands.close()
        await super().close(**options)


class SmartMiddleware:
    """A client middleware that sends what is for ``http://SERVICE.service.consul/`` to the service's nodes.

    ``registry`` and options: those of ``AsyncSmartClient`` but ``token``; a call has its session's time, and
    ``timeout`` if that is shorter. ``idempotent``: whether every request may be sent again; None goes by its method.
    For any number of sessions in one event loop. Raises ``BadOption``.
    """

    def __init__(
        self,
        registry: str | Directory | None = None,
        *,
        idempotent: bool | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        if not hasattr(aiohttp.Payload, "consumed"):  # 3.12.0 has middlewares, but cannot send a file again
            raise BadOption(
                f"aiohttp {aiohttp.__version__} is too old for a middleware: "
                f"pip install 'aiohttp>=3.12.1', or give the session a SmartConnector"
            )
        self._errands = Errands(registry, options)
        self._idempotent = idempotent
        self._used: weakref.WeakSet[ResponseHandler] = weakref.WeakSet()

    async def __call__(self, request: ClientRequest, handler: Handler) -> aiohttp.ClientResponse:
        """See aiohttp."""
        with _mapped(request):
            client = _client(self._errands, request)
            if client is None:
                return await handler(request)
            errand = Exchange(request, handler, self._used)
            target = request.url.raw_path_qs
            response, done = await self._errands.run(
                client, errand, request.method, target, idempotent=self._idempotent
            )
        if response.connection is None:  # it is all here
            done()
        else:
            response.connection.add_callback(done)
        return response

    async def close(self) -> None:
        """Close the clients of all services; a session that still uses it makes new ones."""
        await self._errands.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


def _client(errands: Errands, request: ClientRequest) -> AsyncSmartClient | None:
    scheme = "http" if request.url.scheme == "ws" else request.url.scheme  # a WebSocket begins as a request
    return errands.at(scheme, request.url.host or "")


@contextmanager
def _mapped(request: ClientRequest) -> Iterator[None]:
    """Raise aiohttp's exceptions for this package's."""
    url, key = request.url, request.connection_key
    try:
        yield
    except BadOption:
        raise
    except ClientError as error:
        said = str(error)
        match trouble_of(error):
            case Trouble.UNUSABLE:
                raise aiohttp.InvalidUrlClientError(url, said) from error
            case Trouble.UNREACHED:
                raise aiohttp.ClientConnectorError(key, OSError(errno.EHOSTUNREACH, said)) from error
            case Trouble.CONNECT_TIMEOUT:
                raise aiohttp.ConnectionTimeoutError(said) from error
            case Trouble.READ_TIMEOUT:
                raise aiohttp.ServerTimeoutError(said) from error
            case Trouble.BROKEN:
                raise aiohttp.ClientConnectionError(said) from error
