"""The two errands of aiohttp's: making a connection, and making one and sending a whole request over it.

Only the node differs from one attempt to the next, so ``request.url`` is turned to it before each; the ``Host`` header
stays the service's name, and so do the response's ``url`` and its cookies.
"""

import weakref
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
from aiohttp.client import ClientTimeout
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from yarl import URL

from smartclient.adapters.borrowed import Errand
from smartclient.errors import CallFailed, DeadlineExceeded
from smartclient.stats import Outcome
from smartclient.transport import TransportFailure
from smartclient.wire.progress import Progress

Connect = Callable[[ClientTimeout], Awaitable[Connection]]
Handler = Callable[[ClientRequest], Awaitable[aiohttp.ClientResponse]]


class Connecting(Errand[Connection]):
    """``connect`` makes the connection for ``request``; ``timeout`` is the request's."""

    def __init__(self, connect: Connect, request: ClientRequest, timeout: ClientTimeout) -> None:
        self._connect = connect
        self._request = request
        self._url = request.url
        self._limit = timeout.sock_connect or float("inf")

    async def go(
        self,
        url: str,
        headers: Mapping[str, str],  # noqa: ARG002 - a connection has none
        progress: Progress,  # noqa: ARG002 - it is connecting all the time
        *,
        connect_within: float,
    ) -> tuple[int, Mapping[str, str]]:
        """See ``Errand``; a connection that stands is a good answer."""
        self._request.url = towards(self._url, url)
        self.result = await self._connect(ClientTimeout(sock_connect=min(connect_within, self._limit)))
        return 200, {}

    def drop(self) -> None:
        """See ``Errand``."""
        if self.result is not None:
            self.result.release()
            self.result = None


class Exchange(Errand[aiohttp.ClientResponse]):
    """``handler`` sends ``request`` over a connection made before, so that a failure to connect is known for one.

    The connection is put into the session's pool, from where aiohttp takes it in the same step of the event loop.
    ``used``: the connections that have carried a request.
    """

    def __init__(self, request: ClientRequest, handler: Handler, used: weakref.WeakSet[ResponseHandler]) -> None:
        self._request = request
        self._handler = handler
        self._used = used
        self._url = request.url
        self._late = False

    async def go(
        self, url: str, headers: Mapping[str, str], progress: Progress, *, connect_within: float
    ) -> tuple[int, Mapping[str, str]]:
        """See ``Errand``."""
        request = self._request
        what = f"{request.method} {self._url}"
        if self._late:
            raise DeadlineExceeded(f"{what} got no answer within the session's timeout")
        await request.close()  # whatever still writes the body of the attempt before
        if request.body and request.body.consumed:
            raise CallFailed(f"{what} failed: its body can be read only once, so it cannot be sent again")
        request.url = towards(self._url, url)
        request.headers.update(headers)
        await self._connect(progress, connect_within)
        try:
            response = self.result = await self._handler(request)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            progress.phase = "connecting"  # over a connection made only now
            raise
        except TimeoutError as error:
            self._late = not isinstance(error, aiohttp.ServerTimeoutError)  # which is for a single read
            raise TransportFailure(Outcome.TIMEOUT, "no answer within the session's timeout") from error
        return response.status, response.headers

    def drop(self) -> None:
        """See ``Errand``."""
        if self.result is not None:
            self.result.close()
            self.result = None

    async def _connect(self, progress: Progress, within: float) -> None:
        connector = self._request.session.connector
        if connector is None or connector.force_close:  # then nothing stays in the pool
            progress.phase = "fresh"
            return
        connection = await connector.connect(self._request, [], ClientTimeout(sock_connect=within))
        progress.phase = "reused" if connection.protocol in self._used else "fresh"
        if connection.protocol is not None:
            self._used.add(connection.protocol)
        connection.release()


def towards(url: URL, node: str) -> URL:
    """Return ``url`` with the scheme, host and port of ``node``."""
    there = URL(node)
    return URL.build(
        scheme=there.scheme,
        authority=there.authority,
        path=url.raw_path,
        query_string=url.raw_query_string,
        encoded=True,
    )
