"""The look-up service as one thing to start and stop."""

import logging
import random
import ssl
from collections.abc import Sequence
from typing import Self

from aiohttp import web

from registry.directory import Directory
from registry.lookup.http import Surface
from registry.lookup.hub import Hub
from registry.lookup.wire import PORT
from registry.serving import ClientFaults, listen, reachable
from registry.timing import Clock, SystemClock
from registry.token import Token

log = logging.getLogger(__name__)

# Clients come back all at once when a service beside this one stops.
_BACKLOG = 1024
# How long stopping waits for what is being sent, in seconds.
_CLEANUP = 2.0


log.getChild("http").addFilter(ClientFaults())


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
        return reachable(self._host, self._port)

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
        self._site = await listen(runner, self._host, self._port, tls=self._tls, backlog=_BACKLOG)
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
