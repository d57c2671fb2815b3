"""requests through the balancer: mount an adapter, keep every call.

    session = requests.Session()
    session.mount("http://", SmartAdapter())
    session.post("http://digits.service.consul/classify", data=image, timeout=2)

Each attempt goes to a node that the service's own client picks; retries, ejection and the watch are that client's, and
so are the connections (proxies do not come into it). Other hosts go the way of ``HTTPAdapter``, which this is one of.
Bodies stream both ways. Errors are requests', with this package's as their cause. A port in the URL is not looked at:
the registry knows each node's.
"""

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPMessage, responses
from typing import Any, Unpack, cast
from urllib.parse import urlsplit

from registry.directory import Directory
from smartclient.adapters.calls import received, sendable, tokenless, within
from smartclient.adapters.services import Services
from smartclient.adapters.trouble import Trouble, trouble_of
from smartclient.errors import BadOption, ClientError
from smartclient.options import ClientOptions, Data
from smartclient.sync import BlockingStream, SmartClient

try:
    import requests
    import urllib3
    from requests.adapters import HTTPAdapter
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{__name__} needs {error.name}: pip install 'twostep[requests]'") from None

PIECE = 1 << 16  # bytes read at a time from a body that can be read but not gone back in

_EXCEPTIONS: dict[Trouble, type[requests.RequestException]] = {
    Trouble.UNUSABLE: requests.exceptions.InvalidURL,
    Trouble.UNREACHED: requests.ConnectionError,
    Trouble.CONNECT_TIMEOUT: requests.ConnectTimeout,
    Trouble.READ_TIMEOUT: requests.ReadTimeout,
    Trouble.BROKEN: requests.ConnectionError,
}


class SmartAdapter(HTTPAdapter):
    """For ``requests.Session``; any number of threads may use it, and a forked child begins afresh.

    ``registry`` and options: those of ``SmartClient``, for the client of each service, but ``token``: no header is sent
    that the program does not send. ``timeout`` counts where a call is given none. ``idempotent``: whether every request
    may be sent again; None goes by its method.
    """

    def __init__(
        self,
        registry: str | Directory | None = None,
        *,
        idempotent: bool | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__()
        wanted = tokenless(options)
        self._services = Services(lambda service, where: SmartClient(service, where, **wanted), registry)
        self._idempotent = idempotent
        self._timeout = options.get("timeout")

    def send(  # noqa: PLR0917 - requests' signature
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: dict[str, str] | None = None,
    ) -> requests.Response:
        """See requests."""
        stack = ExitStack()
        url = urlsplit(request.url or "")
        with _mapped(request):
            client = self._services.at(url.scheme, url.hostname or "")
            if client is None:
                return super().send(request, stream, timeout, verify, cert, proxies)
            reply = stack.enter_context(
                client.stream(
                    request.method or "GET",
                    request.path_url,
                    headers={"Host": url.netloc.rpartition("@")[2], **sendable(request.headers.items())},
                    data=_data(request.body),
                    timeout=within(_read_timeout(timeout), request.headers, otherwise=self._timeout),
                    idempotent=self._idempotent,
                )
            )
        return self.build_response(request, _answer(reply, _Body(reply, stack), request.method))

    def close(self) -> None:
        """Close the clients of all services; a session used again makes new ones."""
        for client in self._services.take():
            client.close()
        super().close()


class _Body(io.RawIOBase):
    """The rest of an answer as the file that urllib3 reads; also what is left of a standard library's response."""

    def __init__(self, reply: BlockingStream, stack: ExitStack) -> None:
        self.msg = HTTPMessage()  # where requests looks for cookies
        for name, value in reply.headers.items():
            self.msg[name] = value
        self._pieces = iter(reply)
        self._rest = memoryview(b"")
        self._node = reply.node
        self._stack = stack

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Return at most ``size`` bytes, the rest when negative or None."""
        try:
            if size is None or size < 0:
                return b"".join((self._take(len(self._rest)), *self._pieces))
            if not self._rest:
                self._rest = memoryview(next(self._pieces, b""))
            return self._take(size)
        except ClientError as error:
            if trouble_of(error) is Trouble.READ_TIMEOUT:
                raise urllib3.exceptions.ReadTimeoutError(cast("Any", self._node), "", str(error)) from error
            raise urllib3.exceptions.ProtocolError(str(error)) from error

    def readinto(self, buffer: Any) -> int:
        """See ``io.RawIOBase``."""
        got = self.read(len(buffer))
        buffer[: len(got)] = got
        return len(got)

    def isclosed(self) -> bool:
        """See ``http.client.HTTPResponse``."""
        return self.closed

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._stack.close()

    def _take(self, size: int) -> bytes:
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)


@contextmanager
def _mapped(request: requests.PreparedRequest) -> Iterator[None]:
    """Raise requests' exceptions for this package's."""
    try:
        yield
    except BadOption:
        raise
    except ClientError as error:
        raise _EXCEPTIONS[trouble_of(error)](error, request=request) from error


def _answer(reply: BlockingStream, body: _Body, method: str | None) -> urllib3.HTTPResponse:
    return urllib3.HTTPResponse(
        body=body,
        headers=cast("Any", received(reply.headers)),  # pairs, as a name may come twice
        status=reply.status,
        version=11,
        reason=responses.get(reply.status, ""),
        preload_content=False,
        decode_content=False,
        original_response=cast("Any", body),
        request_method=method,
    )


def _read_timeout(timeout: Any) -> float | None:
    """Return the read timeout of what requests takes: seconds, (connect, read), or urllib3's object."""
    if isinstance(timeout, tuple):
        _, timeout = timeout
    if isinstance(timeout, urllib3.Timeout):
        timeout = timeout.read_timeout
    return None if timeout is None else float(timeout)


def _data(body: Any) -> Data:
    """Return what can be sent of what requests prepared; a file that cannot be gone back in is read in pieces."""
    if hasattr(body, "read") and not (hasattr(body, "seekable") and body.seekable()):
        return iter(lambda: body.read(PIECE), b"")
    return cast("Data", body)
