"""The node's listening socket and its connections: what ``connections`` decides, done with aiohttp's server.

Sockets are accepted here rather than by ``asyncio.start_server``, so that TLS handshakes count, a newcomer too many
costs one ``send``, and every handshake gets the certificate of now. Every ``SWEEP`` seconds whatever has had its time
is ended: a request pays for a few dictionary entries and for no timer of its own.
"""

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from aiohttp import StreamReader, web

from node.connections import Connections, Door, Limits
from node.peer import Connection, answer, refusal
from node.tls import Certificates
from registry.timing import Clock

log = logging.getLogger(__name__)

SWEEP = 0.25  # seconds
PROBES = frozenset({"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
_FULL = "too many connections; ask another node, or this one in a moment"
_AT_ONCE = 64  # connections accepted in one turn of the loop
_SPARE = 128  # file descriptors for everything that is no connection
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener(web.BaseSite):
    """Serves ``runner``'s application on ``sock``, with TLS when there are ``certificates``.

    ``probes``: paths answered also when all ordinary places are taken. ``logger``: for what aiohttp has to say.
    """

    def __init__(
        self,
        runner: web.BaseRunner,
        sock: socket.socket,
        connections: Connections,
        *,
        clock: Clock,
        node: str = "",
        certificates: Certificates | None = None,
        probes: frozenset[str] = PROBES,
        logger: logging.Logger = log,
    ) -> None:
        super().__init__(runner)
        self._sock = sock
        self._connections = connections
        self._clock = clock
        self._node = node
        self._certificates = certificates
        self._probes = probes
        self._options: dict[str, Any] = {
            "logger": logger,
            "access_log": None,
            # Ours comes first, and aborts where closing would wait for a peer that does not read.
            "keepalive_timeout": 2 * connections.limits.keepalive,
        }
        self._refusal = answer("503 Service Unavailable", _FULL, "overloaded", node, "Retry-After: 1\r\n")
        self._serving: web.Server | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._exhausted = False
        self._told = False  # that it is

    @property
    def name(self) -> str:
        """See aiohttp."""
        host, port = self._sock.getsockname()[:2]
        scheme = "http" if self._certificates is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    async def start(self) -> None:
        """See aiohttp."""
        await super().start()
        server = self._runner.server
        assert server is not None  # noqa: S101 - a site is made of a runner that is set up
        server.request_factory = _announcing(server.request_factory)
        server.request_handler = self._at_reserved_places(server.request_handler)
        self._serving = server
        self._sock.setblocking(False)
        asyncio.get_running_loop().add_reader(self._sock, self._accept)
        self._sweeper = asyncio.create_task(self._sweep(), name="connections")

    async def stop(self) -> None:
        """See aiohttp."""
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()
        tasks = [*self._connecting, *filter(None, [self._sweeper])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().stop()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._told = False
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause(error)
                return
            self._admit(sock)

    def _admit(self, sock: socket.socket) -> None:
        now = self._clock.monotonic()
        door = self._connections.door(now)
        if door is Door.FULL or self._serving is None:
            sock.setblocking(False)
            try:
                if self._certificates is None:
                    sock.send(self._refusal)
            except OSError:
                pass  # it has left by itself
            sock.close()
            return
        loop = asyncio.get_running_loop()
        reserved = door is Door.RESERVED
        connection = Connection(
            self._serving,
            self._connections,
            clock=self._clock,
            node=self._node,
            reserved=reserved,
            loop=loop,
            **self._options,
        )
        self._connections.enter(connection, now, reserved=reserved)
        connection.task = task = loop.create_task(self._connect(connection, sock))
        self._connecting.add(task)
        task.add_done_callback(partial(self._connected, connection, sock))

    async def _connect(self, connection: Connection, sock: socket.socket) -> None:
        tls: dict[str, Any] = {}
        if self._certificates is not None:
            tls = {
                "ssl": self._certificates.context,
                "ssl_handshake_timeout": self._connections.limits.header_timeout,
                "ssl_shutdown_timeout": 1.0,
            }
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock, **tls)
        except OSError as error:  # ssl.SSLError is one
            log.debug("a connection came to nothing: %s", error)

    def _connected(self, connection: Connection, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        if not connection.made:
            self._connections.failed(connection)
            sock.close()

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(SWEEP)
            self._connections.sweep(self._clock.monotonic())
            if self._exhausted:
                asyncio.get_running_loop().add_reader(self._sock, self._accept)
                self._exhausted = False

    def _pause(self, error: OSError) -> None:
        """Stop accepting until the next sweep; the kernel would call at once again."""
        if not self._told:
            log.error("no connection is accepted: %s; allow this process more open files (ulimit -n)", error.strerror)
        self._told = True
        asyncio.get_running_loop().remove_reader(self._sock)
        self._connections.relieve(self._clock.monotonic())
        self._exhausted = True

    def _at_reserved_places(self, handler: Callable[..., Awaitable[web.StreamResponse]]) -> Any:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            protocol = request.protocol
            if not (isinstance(protocol, Connection) and protocol.reserved):
                return await handler(request)
            if request.path in self._probes:
                response = await handler(request)
                response.force_close()
                return response
            self._connections.refused += 1
            response = refusal(503, _FULL, "overloaded", self._node)
            response.headers["Retry-After"] = "1"
            return response

        return handle


def fit(limits: Limits) -> Limits:
    """Allow this process as many open files as ``limits`` ask for; return what it may then take."""
    needed = limits.most + limits.reserved + _SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return limits
    possible = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    except (OSError, ValueError):  # macOS has a lower limit of its own
        possible = soft
    if possible == needed:
        return limits
    most = max(1, possible - limits.reserved - _SPARE)
    log.warning("%d connections at most, for this process may have %d open files (ulimit -Hn)", most, possible)
    return msgspec.structs.replace(limits, most=most)


def _announcing(make: Callable[..., web.BaseRequest]) -> Any:
    """Make requests as before, and tell the connection that one has begun."""

    def made(
        message: Any, payload: StreamReader, protocol: web.RequestHandler, writer: Any, task: Any
    ) -> web.BaseRequest:
        if isinstance(protocol, Connection):
            protocol.begin()
        return make(message, payload, protocol, writer, task)

    return made
