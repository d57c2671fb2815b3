"""Keeping one instance registered for as long as its program runs, whatever the registry does meanwhile.

``Registrar`` is an async context manager. A registration that is itself wrong is raised on entering; a registry that
is away is not: it is tried again in the background, and the instance goes on serving. Entering takes five seconds at
most; a refusal that comes later is logged as an error. Every beat it asks whether its id is still known and still its
own, reports (TTL), and registers again when it was forgotten. When another living instance has taken the id over, that
one is left alone, also on leaving, until it is gone. Leaving deregisters, within a bound.
All of it is one step, ``_sync``, that brings the registry to the wanted state; a lock keeps two from interleaving.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Self

import msgspec

from registry.directory import Directory, Registration, TtlCheck
from registry.errors import RegistrationRefused, RegistryError, RegistryUnavailable, UnknownInstance
from registry.timing import Backoff, Clock, SystemClock
from registry.waiting import done_within

log = logging.getLogger(__name__)

BEAT = 5.0
# A TTL must last three beats: one may be lost and one late.
BEATS_PER_TTL = 3.0
# A loaded agent has been seen taking 12 s over one beat (consul #3852).
LEAST_TTL = 15.0
ENTER_WITHIN = 5.0
DEREGISTER_WITHIN = 5.0


class RegistrarState(msgspec.Struct, frozen=True, kw_only=True):
    """How a registration is doing. ``synced_at``: when the registry last agreed, seconds since the epoch."""

    id: str
    service: str
    source: str
    registered: bool
    maintenance: bool
    failures: int
    last_error: str
    synced_at: float | None


class Registrar:
    """Registers on entering, keeps it so, deregisters on leaving.

    ``beat``: seconds between two looks at the registry (a third of the TTL if that is less). ``on_failure`` is called
    at every failed call, for a counter; ``failures`` counts them too.
    """

    def __init__(
        self,
        directory: Directory,
        registration: Registration,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        beat: float = BEAT,
        on_failure: Callable[[], object] | None = None,
    ) -> None:
        self.failures = 0
        self._directory = directory
        self._registration = registration
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._beats = isinstance(registration.check, TtlCheck)
        self._every = beat
        if isinstance(registration.check, TtlCheck):
            self._every = min(beat, registration.check.ttl / BEATS_PER_TTL)
        self._on_failure = on_failure
        self._backoff = Backoff(cap=self._every)
        self._lock = asyncio.Lock()
        self._loop: asyncio.Task[None] | None = None
        self._registered = False
        self._maintenance: str | None = None  # the reason while wanted
        self._maintenance_set = False
        self._failures_in_a_row = 0
        self._last_error = ""
        self._synced_at: float | None = None

    async def __aenter__(self) -> Self:
        me, check = self._registration.id, self._registration.check
        if isinstance(check, TtlCheck) and check.ttl < LEAST_TTL:
            log.warning("%s has a ttl of %g s; a loaded registry needs %g s or more", me, check.ttl, LEAST_TTL)
        first = asyncio.create_task(self._locked_sync(), name=f"register {me}")
        try:
            if await done_within(ENTER_WITHIN, first, self._clock):
                first.result()
            else:
                log.warning("%s is not registered yet: no answer within %g s, trying on", me, ENTER_WITHIN)
        except RegistryError as error:
            if not error.retryable:
                raise
            self._failed(error)
        except asyncio.CancelledError:
            first.cancel()
            raise
        self._loop = asyncio.create_task(self._keep(first), name=f"registrar {me}")
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait({self._loop})
            self._loop = None
        if not await self._within(DEREGISTER_WITHIN, self._leave()):
            log.warning("%s was not deregistered: %s", self._registration.id, self._last_error)
        self._registered = False

    async def maintenance(self, on: bool, reason: str = "") -> bool:
        """Take the instance out of service or back in; whether the registry has agreed yet.

        Never raises for an outage: what is wanted is remembered and applied when the registry is back.
        """
        self._maintenance = reason if on else None
        async with self._lock:
            return await self._try_sync()

    async def update(self, registration: Registration) -> bool:
        """Say something else of the same instance, its id and service unchanged; whether the registry has agreed yet.

        Never raises for an outage, like ``maintenance``.
        """
        self._registration = registration
        async with self._lock:
            self._registered = False
            return await self._try_sync()

    def snapshot(self) -> RegistrarState:
        """How it is doing now."""
        return RegistrarState(
            id=self._registration.id,
            service=self._registration.service,
            source=self._directory.source,
            registered=self._registered,
            maintenance=self._maintenance is not None,
            failures=self.failures,
            last_error=self._last_error,
            synced_at=self._synced_at,
        )

    async def _keep(self, first: asyncio.Task[None]) -> None:
        if not first.done():
            try:
                await first
            except RegistryError as error:
                self._failed(error)
        while True:
            in_a_row = self._failures_in_a_row
            await self._clock.sleep(self._backoff.delay(in_a_row - 1, self._rng) if in_a_row else self._every)
            async with self._lock:
                await self._try_sync()

    async def _locked_sync(self) -> None:
        async with self._lock:
            await self._sync()

    async def _try_sync(self) -> bool:
        try:
            await self._sync()
        except RegistryError as error:
            self._failed(error)
            return False
        return True

    async def _sync(self) -> None:
        """Bring the registry to what is wanted. Raises ``RegistryError``; call it with the lock held."""
        if self._registered:
            try:
                self._registered = await self._still_registered()
            except RegistrationRefused:
                self._registered = False
                raise
        if not self._registered:
            self._maintenance_set = False
            if self._maintenance is None:
                await self._register()
            # Else: out of service is what is wanted, and registering would put it back in for a moment.
        if self._registered and (self._maintenance is not None) != self._maintenance_set:
            await self._directory.maintenance(
                self._registration.id, self._maintenance is not None, self._maintenance or ""
            )
            self._maintenance_set = self._maintenance is not None
        if self._failures_in_a_row:
            log.info("%s is in step with %s again", self._registration.id, self._directory.source)
        self._failures_in_a_row, self._last_error = 0, ""
        self._synced_at = self._clock.time()

    async def _still_registered(self) -> bool:
        if not await self._directory.registered(self._registration):
            return False
        if self._beats:
            try:
                await self._directory.beat(self._registration.id)
            except UnknownInstance:
                return False
        return True

    async def _register(self) -> None:
        await self._directory.register(self._registration)
        self._registered = True

    def _failed(self, error: RegistryError) -> None:
        self.failures += 1
        self._failures_in_a_row += 1
        if str(error) != self._last_error:
            level = logging.WARNING if error.retryable else logging.ERROR
            log.log(level, "%s is out of step with the registry, trying on: %s", self._registration.id, error)
        self._last_error = str(error)
        if self._on_failure is not None:
            self._on_failure()

    async def _leave(self) -> None:
        try:
            ours = await self._directory.registered(self._registration)
        except RegistrationRefused:
            return  # another living instance holds the id
        if ours:
            await self._directory.deregister(self._registration.id)

    async def _within(self, seconds: float, call: Awaitable[None]) -> bool:
        task = asyncio.ensure_future(call)
        try:
            await done_within(seconds, task, self._clock)
        finally:
            task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            self._failed(RegistryUnavailable(f"no answer within {seconds:g} s"))
            return False
        try:
            task.result()
        except RegistryError as error:
            self._failed(error)
            return False
        return True
