"""The embedded registry as one thing to start and stop: address, state, checks, file."""

import asyncio
import errno
import logging
import random
import uuid
from functools import partial
from pathlib import Path
from typing import Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from registry.embedded.catalog import Index
from registry.embedded.checks import CheckRunner
from registry.embedded.core import Core
from registry.embedded.http import application
from registry.embedded.kv import KeyValues
from registry.embedded.store import Keeper, State, load, write
from registry.embedded.views import Machine
from registry.errors import ConfigurationError
from registry.timing import Clock, SystemClock

# How far the index in the file is ahead of the registry's own: readers see changes before they are on the disk, and
# after a crash none of them must meet an index it has seen before with another meaning.
_AHEAD = 2**20
_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - these are replaced, not bound

_log = logging.getLogger(__name__)
# Who talks no HTTP is told so; a traceback of it is no news.
_log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))


class EmbeddedRegistry:
    """A Consul-compatible registry in this process; ``async with`` starts and stops it.

    ``port`` 0 takes a free one. ``file`` keeps services, checks and keys over a restart, and over a crash whatever had
    been answered with success. Entering raises ``ConfigurationError`` for a port in use or an unusable file.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        file: Path | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._host, self._port, self._file = host, port, file
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._core: Core | None = None
        self._checks: CheckRunner | None = None
        self._runner: web.AppRunner | None = None
        self._keeper: Keeper | None = None

    @property
    def address(self) -> str:
        """``host:port`` to reach it at, from this machine."""
        host = _WILDCARDS.get(self._host, self._host)
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    @property
    def url(self) -> str:
        """The address for ``connect`` and TWOSTEP_REGISTRY."""
        return f"consul://{self.address}"

    async def __aenter__(self) -> Self:
        state = await asyncio.to_thread(load, self._file) if self._file else State()
        state.machine_id = state.machine_id or str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        machine = Machine(state.machine_id, "embedded", _WILDCARDS.get(self._host, self._host))
        index = Index(state.index)
        core = Core(machine, index, KeyValues(index, state.pairs), clock=self._clock, rng=self._rng)
        core.catalog.restore(state.services, state.checks, self._clock.monotonic())
        self._core = core
        if self._file:
            await asyncio.to_thread(write, self._file, self._picture(core, ahead=_AHEAD))
            self._keeper = Keeper(self._file, partial(self._picture, core, ahead=_AHEAD), self._clock)
            core.keep = self._keeper.kept
        index.on_bump = partial(self._on_change, core)
        await self._listen(core)
        self._checks = CheckRunner(core.catalog, clock=self._clock, rng=self._rng)
        await self._checks.start()
        if self._keeper is not None:
            self._keeper.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._core is None or self._runner is None or self._checks is None:
            return
        self._core.close()
        await self._checks.close()
        await self._runner.cleanup()
        if self._keeper is not None and self._file is not None:
            await self._keeper.close()
            await asyncio.to_thread(write, self._file, self._picture(self._core))

    def snapshot(self) -> dict[str, object]:
        """For tests and status pages: address, index, and how many services, checks, keys and waiting queries."""
        core = self._core
        if core is None:
            return {"address": self.address, "index": 0}
        return {
            "address": self.address,
            "index": core.index.value,
            "services": len(core.catalog.services),
            "checks": len(core.catalog.checks),
            "keys": len(core.kv),
            "waiting": core.waiting,
        }

    async def _listen(self, core: Core) -> None:
        # A client that hangs up ends its blocking query; nothing else in a handler waits.
        runner = web.AppRunner(
            application(core), access_log=None, logger=_log, handler_cancellation=True, shutdown_timeout=1.0
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host or None, self._port).start()
        except OSError as error:
            await runner.cleanup()
            if error.errno == errno.EADDRINUSE:
                raise ConfigurationError(
                    f"port {self._port} on {self._host} is in use; choose another one with --port, "
                    f"or use what is there: --registry consul://{self.address}"
                ) from error
            raise ConfigurationError(f"cannot listen on {self._host}:{self._port}: {error.strerror}") from error
        self._runner = runner
        self._port = core.port = runner.addresses[0][1]

    def _on_change(self, core: Core) -> None:
        core.wake()
        if self._keeper is not None:
            self._keeper.note_change()

    def _picture(self, core: Core, *, ahead: int = 0) -> State:
        return State(
            machine_id=core.machine.id,
            index=core.index.value + ahead,
            services=list(core.catalog.services.values()),
            checks=list(core.catalog.checks.values()),
            pairs=core.kv.all(),
        )
