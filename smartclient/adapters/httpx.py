"""httpx through the balancer: mount a transport, keep every call.

    client = httpx.Client(mounts={"all://*.service.consul": SmartTransport()})
    client.post("http://digits.service.consul/classify", content=image)

Each attempt goes to a node that the service's own client picks; retries, ejection and the watch are that client's, and
so are the connections. Bodies stream both ways. Given as ``transport=`` it passes other hosts on to ``others``, httpx's
own transport unless another is given. Errors are httpx's, with this package's as their cause. A port in the URL is not
looked at: the registry knows each node's.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Unpack

from registry.directory import Directory
from smartclient.adapters.calls import received, sendable, tokenless, within
from smartclient.adapters.services import Services
from smartclient.adapters.trouble import Trouble, trouble_of
from smartclient.client import AsyncSmartClient
from smartclient.errors import BadOption, ClientError
from smartclient.options import ClientOptions, Data, RequestOptions
from smartclient.response import StreamedResponse
from smartclient.sync import BlockingStream, SmartClient

try:
    import httpx
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{__name__} needs {error.name}: pip install 'twostep[httpx]'") from None

_EXCEPTIONS: dict[Trouble, type[httpx.TransportError]] = {
    Trouble.UNUSABLE: httpx.UnsupportedProtocol,
    Trouble.UNREACHED: httpx.ConnectError,
    Trouble.CONNECT_TIMEOUT: httpx.ConnectTimeout,
    Trouble.READ_TIMEOUT: httpx.ReadTimeout,
    Trouble.BROKEN: httpx.ReadError,
}


class SmartTransport(httpx.BaseTransport):
    """For ``httpx.Client``; any number of threads may use it, and a forked child begins afresh.

    ``registry`` and options: those of ``SmartClient``, for the client of each service, but ``token``: no header is sent
    that the program does not send. ``timeout`` counts where httpx's own is None. ``idempotent``: whether every request
    may be sent again; None goes by its method.
    """

    def __init__(
        self,
        registry: str | Directory | None = None,
        *,
        idempotent: bool | None = None,
        others: httpx.BaseTransport | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        wanted = tokenless(options)
        self._services = Services(lambda service, where: SmartClient(service, where, **wanted), registry)
        self._idempotent = idempotent
        self._timeout = options.get("timeout")
        self._others = others or httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        stack = ExitStack()
        with _mapped(request):
            client = self._services.at(request.url.scheme, request.url.host)
            if client is None:
                return self._others.handle_request(request)
            options = _options(request, self._idempotent, self._timeout)
            reply = stack.enter_context(client.stream(request.method, _target(request), **options))
        return _response(reply, _Body(reply, stack, request))

    def close(self) -> None:
        """Close the clients of all services."""
        for client in self._services.take():
            client.close()
        self._others.close()


class AsyncSmartTransport(httpx.AsyncBaseTransport):
    """For ``httpx.AsyncClient`` in one asyncio event loop; options are those of ``SmartTransport``."""

    def __init__(
        self,
        registry: str | Directory | None = None,
        *,
        idempotent: bool | None = None,
        others: httpx.AsyncBaseTransport | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        wanted = tokenless(options)
        self._services = Services(lambda service, where: AsyncSmartClient(service, where, **wanted), registry)
        self._idempotent = idempotent
        self._timeout = options.get("timeout")
        self._others = others or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        stack = AsyncExitStack()
        with _mapped(request):
            client = self._services.at(request.url.scheme, request.url.host)
            if client is None:
                return await self._others.handle_async_request(request)
            options = _options(request, self._idempotent, self._timeout)
            reply = await stack.enter_async_context(client.stream(request.method, _target(request), **options))
        return _response(reply, _AsyncBody(reply, stack, request))

    async def aclose(self) -> None:
        """Close the clients of all services."""
        for client in self._services.take():
            await client.close()
        await self._others.aclose()


class _Body(httpx.SyncByteStream):
    def __init__(self, reply: BlockingStream, stack: ExitStack, request: httpx.Request) -> None:
        self._reply = reply
        self._stack = stack
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        with _mapped(self._request):
            yield from self._reply

    def close(self) -> None:
        self._stack.close()


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, reply: StreamedResponse, stack: AsyncExitStack, request: httpx.Request) -> None:
        self._reply = reply
        self._stack = stack
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _mapped(self._request):
            async for piece in self._reply:
                yield piece

    async def aclose(self) -> None:
        await self._stack.aclose()


@contextmanager
def _mapped(request: httpx.Request) -> Iterator[None]:
    """Raise httpx's exceptions for this package's."""
    try:
        yield
    except BadOption:
        raise
    except ClientError as error:
        raise _EXCEPTIONS[trouble_of(error)](str(error), request=request) from error


def _target(request: httpx.Request) -> str:
    return request.url.raw_path.decode("ascii")


def _options(request: httpx.Request, idempotent: bool | None, timeout: float | None) -> RequestOptions:
    data: Data
    try:
        data = request.content
    except httpx.RequestNotRead:
        data = request.stream
    return RequestOptions(
        headers=sendable(request.headers.items()),
        data=data,
        timeout=within(request.extensions.get("timeout", {}).get("read"), request.headers, otherwise=timeout),
        idempotent=idempotent,
    )


def _response(reply: BlockingStream | StreamedResponse, body: _Body | _AsyncBody) -> httpx.Response:
    """Return the answer; ``extensions`` tell which ``node`` gave it, at which of its ``attempts``."""
    return httpx.Response(
        reply.status,
        headers=received(reply.headers),
        stream=body,
        extensions={"http_version": b"HTTP/1.1", "node": reply.node, "attempts": reply.attempts},
    )
