"""Calls that the program's own library sends: the client decides where to and how often, an ``Errand`` goes.

Picking, the budgets, retries, ejection and leases are the client's, as ever. An errand travels as the body of its
``Request``; the transport tells it which node to go to, and what it brings back stays with it. Whatever else a client
sends (probes) goes its usual way. An errand is one object of its library, so two attempts never run at once, and there
is no hedging.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Generic, TypeVar, cast

from registry.directory import Directory
from smartclient.adapters.calls import UNLIMITED, tokenless
from smartclient.adapters.services import Services
from smartclient.aiohttp_transport import AiohttpTransport
from smartclient.attempt import CONNECT_TIMEOUT
from smartclient.client import AsyncSmartClient
from smartclient.errors import BadOption
from smartclient.options import ClientOptions
from smartclient.transport import Answer, Request
from smartclient.wire.progress import FAILURES, Progress, bounded

Result = TypeVar("Result")


class Errand(Generic[Result]):
    """One request of the program's library, which can be sent any number of times, one after the other."""

    result: Result | None = None

    async def go(
        self, url: str, headers: Mapping[str, str], progress: Progress, *, connect_within: float
    ) -> tuple[int, Mapping[str, str]]:
        """Send it to the node at ``url``, set ``result``, and return the answer's status and headers.

        ``headers`` belong to this attempt; ``progress`` is to be kept. ``connect_within``: seconds for making a
        connection. Raises one of ``FAILURES``, or a ``ClientError``, which ends the call unless it is a
        ``TransportFailure``.
        """
        raise NotImplementedError

    def drop(self) -> None:
        """Let go of ``result``: it is not wanted."""
        raise NotImplementedError

    # In form an open file, so that a client counts it as something that can be sent again. Nobody reads it.

    def read(self, size: int = -1, /) -> bytes:  # noqa: D102
        raise NotImplementedError

    def seek(self, offset: int, whence: int = 0, /) -> int:  # noqa: D102
        raise NotImplementedError

    def tell(self) -> int:  # noqa: D102
        raise NotImplementedError


class Errands:
    """The clients of the services that one program calls with its own library.

    ``registry`` and options: those of ``AsyncSmartClient``, but ``token``, and a call has no time limit unless one is
    given.
    ``tls`` is for what the client sends itself (probes). Raises ``BadOption``.
    """

    def __init__(self, registry: str | Directory | None, options: ClientOptions) -> None:
        for name in ("hedge", "transport"):
            if options.get(name):
                raise BadOption(f"{name} cannot be used here: the request is sent by aiohttp, once at a time")
        self._options: ClientOptions = {"timeout": UNLIMITED, **tokenless(options)}
        self._services = Services(self._client, registry)
        self._transports: list[_Transport] = []
        self._ending: set[asyncio.Task[None]] = set()

    def at(self, scheme: str, host: str) -> AsyncSmartClient | None:
        """See ``Services``."""
        return self._services.at(scheme, host)

    async def run(
        self,
        client: AsyncSmartClient,
        errand: Errand[Result],
        method: str,
        target: str,
        *,
        idempotent: bool | None,
    ) -> tuple[Result, Callable[[], None]]:
        """Send ``errand`` to one node, or more if need be; return its result, and what to call when that is read.

        Until then the node counts as busy with it. Raises what ``AsyncSmartClient.stream`` does.
        """
        stack = AsyncExitStack()
        try:
            await stack.enter_async_context(client.stream(method, target, data=errand, idempotent=idempotent))
        except BaseException:
            errand.drop()
            raise

        def done() -> None:
            task = asyncio.ensure_future(stack.aclose())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

        return cast("Result", errand.result), done

    async def close(self) -> None:
        """Close the clients."""
        await asyncio.gather(*self._ending, return_exceptions=True)
        for client in self._services.take():
            await client.close()
        while self._transports:
            await self._transports.pop().close()

    def _client(self, service: str, registry: str | Directory | None) -> AsyncSmartClient:
        transport = _Transport(self._options.get("tls"))
        self._transports.append(transport)
        options: ClientOptions = {**self._options, "tls": None, "transport": transport}
        return AsyncSmartClient(service, registry, **options)


class _Transport:
    """See ``Transport``: lets errands go, and sends all else itself."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._own = AiohttpTransport(connect_within=CONNECT_TIMEOUT, tls=tls)
        self.sent = 0

    async def send(
        self,
        url: str,
        request: Request,
        headers: Mapping[str, str],
        *,
        within: float,
        connect_within: float,
        fresh: bool = False,
        stream: bool = False,
        waits: Callable[[Callable[[], None]], None] | None = None,
    ) -> Answer:
        """See ``Transport``."""
        errand = request.body
        if not isinstance(errand, Errand):
            return await self._own.send(
                url,
                request,
                headers,
                within=within,
                connect_within=connect_within,
                fresh=fresh,
                stream=stream,
                waits=waits,
            )
        self.sent += 1
        errand.drop()
        progress = Progress()
        try:
            async with bounded(progress, within, waits):
                status, received = await errand.go(url, headers, progress, connect_within=connect_within)
        except FAILURES as error:
            raise progress.failure(error, within=within, connect_within=connect_within) from error
        return Answer(status, received, b"", _Elsewhere())

    def snapshot(self) -> dict[str, Any]:
        """See ``Transport``."""
        return {"kind": "borrowed", "open": True, "sent": self.sent}

    async def close(self) -> None:
        """See ``Transport``."""
        await self._own.close()


class _Elsewhere:
    """The body of an errand's answer: whoever has the result reads it."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        return
        yield b""

    async def close(self) -> None:
        """See ``Stream``."""
