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

from registry.embedded.catalog import Index
from registry.embedded.checks import CheckRunner
from registry.embedded.core import Core
from registry.embedded.http import application
from registry.embedded.kv import KeyValues
from registry.embedded.store import State, encode, load, write
from registry.embedded.views import Machine
from registry.errors import ConfigurationError, RegistryError
from registry.timing import Clock, SystemClock

log = logging.getLogger(__name__)

# Changes that come together are written together.
SAVE_AFTER = 0.2
_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - these are replaced, not bound


class EmbeddedRegistry:
    """A Consul-compatible registry in this process; ``async with`` starts and stops it.

    ``port`` 0 takes a free one; ``file`` keeps services, checks and keys over a restart. Entering raises
    ``ConfigurationError`` for a port in use or an unusable file.
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
        self._dirty = asyncio.Event()
        self._core: Core | None = None
        self._checks: CheckRunner | None = None
        self._runner: web.AppRunner | None = None
        self._saver: asyncio.Task[None] | None = None

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
            await asyncio.to_thread(write, self._file, encode(self._state(core)))
        await self._listen(core)
        self._checks = CheckRunner(core.catalog, clock=self._clock, rng=self._rng)
        await self._checks.start()
        index.on_bump = partial(self._on_change, core, self._checks)
        if self._file:
            self._saver = asyncio.create_task(self._save_changes(self._file, core))
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._core is None or self._runner is None or self._checks is None:
            return
        self._core.close()
        await self._checks.close()
        await self._runner.cleanup()
        if self._saver is not None and self._file is not None:
            self._saver.cancel()
            await asyncio.gather(self._saver, return_exceptions=True)
            await asyncio.to_thread(write, self._file, encode(self._state(self._core)))

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
            "keys": len(core.kv.under("")),
            "waiting": core.waiting,
        }

    async def _listen(self, core: Core) -> None:
        # A client that hangs up ends its blocking query; nothing else in a handler waits.
        runner = web.AppRunner(application(core), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
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

    def _on_change(self, core: Core, checks: CheckRunner) -> None:
        core.wake()
        self._dirty.set()
        # The change is still being made: look at the catalog when it is done.
        asyncio.get_running_loop().call_soon(checks.follow)

    async def _save_changes(self, path: Path, core: Core) -> None:
        while True:
            await self._dirty.wait()
            await self._clock.sleep(SAVE_AFTER)
            self._dirty.clear()
            try:
                await asyncio.to_thread(write, path, encode(self._state(core)))
            except RegistryError as error:
                log.warning("the registry's state was not saved: %s", error)

    def _state(self, core: Core) -> State:
        return State(
            machine_id=core.machine.id,
            index=core.index.value,
            services=list(core.catalog.services.values()),
            checks=list(core.catalog.checks.values()),
            pairs=core.kv.under(""),
        )
