"""A node's place in the registry: taken once it is warm, kept up to date, given up first of all when it leaves.

An outage of the registry never stops a node: what is wanted is remembered and said when the registry is back.
"""

import random
from contextlib import AsyncExitStack

from node.metrics import Metrics
from registry.connect import connect
from registry.directory import Directory, Registration
from registry.registration import Registrar
from registry.timing import Clock


class Membership:
    """At most one registration. ``address`` is for ``registry.connect``; ``directory`` stands in for it in tests."""

    def __init__(
        self, address: str, metrics: Metrics, *, clock: Clock, rng: random.Random, directory: Directory | None = None
    ) -> None:
        self._address = address
        self._metrics = metrics
        self._clock = clock
        self._rng = rng
        self._directory = directory
        self._registrar: Registrar | None = None
        self._entered = AsyncExitStack()

    @property
    def source(self) -> str:
        """The registry it is registered in, for people; empty when it is in none."""
        return self._directory.source if self._registrar is not None and self._directory is not None else ""

    def connect(self) -> str:
        """Find the registry; returns its address for people. Raises ``ConfigurationError``."""
        if self._directory is None:
            self._directory = connect(self._address or None, clock=self._clock, rng=self._rng)
        return self._directory.source

    async def join(self, registration: Registration) -> None:
        """Register, after ``connect``. Raises ``RegistrationRefused``; an outage is waited out in the background."""
        if self._directory is None:
            raise RuntimeError("connect comes first")
        failed = self._metrics.sync_failures.inc
        registrar = Registrar(self._directory, registration, clock=self._clock, rng=self._rng, on_failure=failed)
        self._registrar = await self._entered.enter_async_context(registrar)

    async def update(self, registration: Registration) -> None:
        """Say something else of the same node."""
        if self._registrar is not None:
            await self._registrar.update(registration)

    async def out_of_service(self, reason: str) -> None:
        """Leave the look-ups, stay in the registry."""
        if self._registrar is not None:
            await self._registrar.maintenance(True, reason)

    async def in_service(self) -> None:
        """Come back."""
        if self._registrar is not None:
            await self._registrar.maintenance(False)

    async def leave(self) -> None:
        """Deregister and let the registry go; leaving twice is fine."""
        self._registrar = None
        await self._entered.aclose()
        directory, self._directory = self._directory, None
        if directory is not None:
            await directory.close()
