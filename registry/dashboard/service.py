"""The dashboard as one thing to start and stop."""

import asyncio
import logging
import random
import ssl
from typing import Self

from aiohttp import web

from registry.consul.settings import ConsulSettings
from registry.dashboard.access import Access
from registry.dashboard.http import Surface
from registry.dashboard.state import State
from registry.dashboard.wire import PORT
from registry.serving import ClientFaults, listen, reachable
from registry.timing import Clock, SystemClock
from registry.token import Token, Tokens

log = logging.getLogger(__name__)

# A hundred chosen instances are named in an address, and its stream names that address, quoted once more.
_LONGEST_ADDRESS = 256 * 1024
# How long stopping waits for what is being sent, in seconds.
_CLEANUP = 2.0


log.getChild("http").addFilter(ClientFaults())


class Dashboard:
    """Pages over one registry; ``async with`` starts and stops it. ``port`` 0 takes a free one.

    ``operators``: tokens that let somebody drain; None: read-only. ``reports``: tokens that clients report with; None:
    anybody may. ``admin_token``: what the nodes demand of whoever drains them; ``node_tls``: whom to trust at https
    nodes. ``only``: globs of the services shown, empty for all. ``floor``: passing instances that a drain has to leave,
    unless the service's name is typed. Entering raises ``ConfigurationError`` for an address that cannot be used; the
    registry may be away.
    """

    def __init__(
        self,
        settings: ConsulSettings,
        host: str = "127.0.0.1",
        port: int = PORT,
        *,
        only: tuple[str, ...] = (),
        cluster: str = "",
        floor: int = 1,
        operators: Tokens | None = None,
        reports: Tokens | None = None,
        admin_token: Token | None = None,
        node_tls: ssl.SSLContext | None = None,
        tls: ssl.SSLContext | None = None,
        proxied: bool = False,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        clock, rng = clock or SystemClock(), rng or random.Random()
        self._host, self._port = host, port
        self._tls = tls
        self.state = State(
            settings,
            clock=clock,
            rng=rng,
            only=only,
            cluster=cluster,
            floor=floor,
            admin_token=admin_token,
            node_tls=node_tls,
            can_act=operators is not None,
            about={
                "Registry": settings.source,
                "Services shown": ", ".join(only) or "all",
                "Acting": "with an operator token" if operators else "nobody: read-only",
                "Reports of clients": "with a token" if reports else "from anybody who reaches this address",
                "Nodes' admin token": "given"
                if admin_token and admin_token.read()
                else "none: draining will be refused",
                "Passing instances a drain has to leave": str(floor),
                "Listening on": f"{host}:{port or 'a free port'}",
            },
        )
        access = Access(operators, clock=clock, reports=reports)
        epoch = f"{rng.getrandbits(32):08x}"
        self._surface = Surface(self.state, access, clock=clock, epoch=epoch, proxied=proxied)
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def address(self) -> str:
        """``host:port`` to reach it at, from this machine."""
        return reachable(self._host, self._port)

    @property
    def url(self) -> str:
        """The address for a browser, and for clients that report."""
        return f"{'https' if self._tls else 'http'}://{self.address}"

    def snapshot(self) -> dict[str, object]:
        """For tests and logs: address, services and instances known, pages and streams that are open."""
        services = self.state.source.fleet.services
        return {
            "address": self.address,
            "services": len(services),
            "instances": sum(len(each.members) for each in services.values()),
            **self._surface.live.snapshot(),
        }

    async def __aenter__(self) -> Self:
        runner = web.AppRunner(
            self._surface.application(),
            access_log=None,
            logger=log.getChild("http"),
            shutdown_timeout=_CLEANUP,
            max_line_size=_LONGEST_ADDRESS,
            max_field_size=_LONGEST_ADDRESS,
        )
        await listen(runner, self._host, self._port, tls=self._tls)
        self._runner = runner
        self._port = runner.addresses[0][1]
        self._tasks = [asyncio.create_task(each) for each in (self.state.run(), self._surface.live.run())]
        return self

    async def fault(self) -> None:
        """Wait for what must not happen: that it stops following the fleet. Raises what ended it."""
        await asyncio.gather(*map(asyncio.shield, self._tasks))

    async def __aexit__(self, *exception: object) -> None:
        self._surface.streams.stop()
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        await self.state.close()
