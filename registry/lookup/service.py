"""The look-up service as one thing to start and stop."""

import errno
import logging
import random
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from registry.directory import Directory
from registry.errors import ConfigurationError
from registry.lookup.http import Surface
from registry.lookup.hub import Hub
from registry.lookup.wire import PORT
from registry.timing import Clock, SystemClock
from registry.token import Token

log = logging.getLogger(__name__)

# Clients come back all at once when a service beside this one stops.
_BACKLOG = 1024
# How long stopping waits for what is being sent, in seconds.
_CLEANUP = 2.0
_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - these are replaced, not bound


class _ClientFaults(logging.Filter):
    """Says in one quiet line what aiohttp logs with a traceback: bytes that are no HTTP."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            log.info("a client sent what is no HTTP: %s", str(error.message).partition("\n")[0])
            return False
        return True


log.getChild("http").addFilter(_ClientFaults())


class LookupService:
    """Step 1 over HTTP, from what ``directory`` says; ``async with`` starts and stops it. ``port`` 0 takes a free one.

    ``allow``: globs of the services served, empty for all. ``token``: what clients must show, if any. ``services`` and
    ``readers`` bound what is followed and by how many. The directory stays its owner's to close, after this. Entering
    raises ``ConfigurationError`` for an address that cannot be used.
    """

    def __init__(
        self,
        directory: Directory,
        host: str = "127.0.0.1",
        port: int = PORT,
        *,
        allow: Sequence[str] = (),
        token: Token | None = None,
        tls: ssl.SSLContext | None = None,
        services: int = 1000,
        readers: int = 20_000,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._host, self._port = host, port
        self._tls = tls
        self._hub = Hub(directory, clock=clock, allow=allow, services=services, readers=readers)
        self._surface = Surface(self._hub, token or Token(), clock=clock, rng=rng or random.Random())
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    @property
    def address(self) -> str:
        """``host:port`` to reach it at, from this machine."""
        host = _WILDCARDS.get(self._host, self._host)
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    @property
    def url(self) -> str:
        """The address for ``connect`` and TWOSTEP_REGISTRY."""
        return f"lookup{'+https' if self._tls else ''}://{self.address}"

    def snapshot(self) -> dict[str, object]:
        """For tests and status pages: address, readers now, and the instances known of each service followed."""
        return {
            "address": self.address,
            "readers": self._hub.readers,
            "services": {name: feed.size for name, feed in self._hub.feeds.items()},
        }

    async def __aenter__(self) -> Self:
        # A client that hangs up ends its handler, whatever that waits for.
        runner = web.AppRunner(
            self._surface.application(),
            access_log=None,
            logger=log.getChild("http"),
            handler_cancellation=True,
            shutdown_timeout=_CLEANUP,
        )
        await runner.setup()
        self._site = web.TCPSite(runner, self._host or None, self._port, ssl_context=self._tls, backlog=_BACKLOG)
        try:
            await self._site.start()
        except OSError as error:
            await runner.cleanup()
            if error.errno == errno.EADDRINUSE:
                raise ConfigurationError(
                    f"port {self._port} on {self._host} is in use; choose another one with --port"
                ) from error
            raise ConfigurationError(f"cannot listen on {self._host}:{self._port}: {error.strerror}") from error
        self._runner = runner
        self._port = runner.addresses[0][1]
        self._hub.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._runner is None or self._site is None:
            return
        await self._site.stop()
        await self._hub.stop()
        await self._runner.cleanup()


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what a server with this certificate (its chain included) and key needs. Raises ``ConfigurationError``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if error.strerror and not isinstance(error, ssl.SSLError) else "no pair in PEM format"
        raise ConfigurationError(f"certificate {certificate} and key {key} cannot be used: {reason}") from error
    return context
