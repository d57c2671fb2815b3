"""The directory on Consul's HTTP API, which the embedded registry speaks too.

Reading is in ``reads``. Writes go to the agent; it syncs them in its own time, so taking an instance out of
service returns when look-ups have stopped naming it, or after two seconds. An id belongs to one living instance: its
address is compared before registering and after it (another may have come in between), and at every beat.
"""

import random
import weakref
from collections.abc import Mapping
from typing import Unpack

from registry.consul.codec import Registered, check_id, decode_datacenter, decode_registered, encode
from registry.consul.http import ConsulHttp
from registry.consul.reads import ConsulReads
from registry.consul.reports import CheckReport
from registry.consul.settings import ConsulSettings
from registry.directory import Registration
from registry.errors import (
    ConfigurationError,
    PermissionDenied,
    RegistrationRefused,
    RegistryError,
    UnknownInstance,
    Unsupported,
)
from registry.model import Snapshot
from registry.query import Filters, Query
from registry.rules import ensure_name, ensure_registrable
from registry.timing import Clock
from registry.watch import PACE, BlockingWatch, Reading

CONFIRM_WITHIN = 2.0
_CONFIRM_STEP = 0.05


class ConsulDirectory:
    """A ``Directory`` on one Consul agent (or the embedded registry); usable in one event loop at a time.

    ``pace``: bytes per second that each watch reads at most under churn.
    """

    def __init__(self, settings: ConsulSettings, *, clock: Clock, rng: random.Random, pace: float = PACE) -> None:
        self._http = ConsulHttp(settings)
        self._reads = ConsulReads(self._http, clock)
        self._clock = clock
        self._rng = rng
        self._watches: weakref.WeakSet[BlockingWatch] = weakref.WeakSet()
        self._pace = pace

    @property
    def source(self) -> str:
        """See ``Directory``."""
        return self._http.settings.source

    async def lookup(self, service: str, **filters: Unpack[Filters]) -> Snapshot:
        """See ``Directory``."""
        ensure_name(service)
        return await self._reads.lookup(Query(service, **filters))

    def watch(self, service: str, **filters: Unpack[Filters]) -> BlockingWatch:
        """See ``Directory``."""
        ensure_name(service)
        query = Query(service, **filters)

        async def read(*, index: int, stale: bool) -> Reading:
            return await self._reads.read(query, index=index, stale=stale)

        watch = BlockingWatch(read, clock=self._clock, rng=self._rng, pace=self._pace)
        self._watches.add(watch)
        return watch

    async def checks(self, service: str) -> Mapping[str, tuple[CheckReport, ...]]:
        """Return the checks of each instance, by its id in a snapshot. Raises ``RegistryError``."""
        ensure_name(service)
        return await self._reads.checks(service)

    async def services(self) -> tuple[str, ...]:
        """Return the names of all services, in order. Raises ``RegistryError``."""
        return await self._reads.services()

    async def register(self, registration: Registration) -> None:
        """See ``Directory``. An id that a living instance holds at another address is refused."""
        ensure_registrable(registration)
        await self._ensure_same_datacenter()
        known = await self._known(registration.id)
        if known is not None and not (self._is_at_home(registration, known) and known.alive):
            # A new registration inherits the status of the old check, and this one is to start passing.
            await self._http.put(f"/v1/agent/service/deregister/{registration.id}", expect={404})
        try:
            await self._http.put(
                "/v1/agent/service/register", [("replace-existing-checks", "true")], encode(registration)
            )
        except ConfigurationError as error:
            raise RegistrationRefused(f"cannot register {registration.id!r}: {error}") from error
        await self.registered(registration)

    async def registered(self, registration: Registration) -> bool:
        """See ``Directory``."""
        known = await self._known(registration.id)
        return known is not None and self._is_at_home(registration, known)

    async def beat(self, instance_id: str, note: str = "") -> None:
        """See ``Directory``."""
        params = [("note", note)] if note else []
        path = f"/v1/agent/check/pass/{check_id(instance_id)}"
        answer = await self._http.put(path, params, expect={404, 500})
        if answer.status < 300:
            return
        # Older agents answer 500 both for an unknown check and for one that takes no beats.
        if await self._known(instance_id) is None:
            raise _unknown(instance_id, self.source)
        raise Unsupported(f"{instance_id} has no TTL check to report to; register it with TtlCheck")

    async def maintenance(self, instance_id: str, on: bool, reason: str = "") -> None:
        """See ``Directory``."""
        known = await self._known(instance_id)
        params = [("enable", "true" if on else "false"), ("reason", reason)]
        answer = await self._http.put(f"/v1/agent/service/maintenance/{instance_id}", params, expect={404})
        if known is None or not answer.found:
            raise _unknown(instance_id, self.source)
        if on:
            await self._until_gone(known.service, instance_id, passing_only=True)

    async def deregister(self, instance_id: str) -> None:
        """See ``Directory``."""
        known = await self._known(instance_id)
        if known is None:
            return
        await self._http.put(f"/v1/agent/service/deregister/{instance_id}", expect={404})
        await self._until_gone(known.service, instance_id, passing_only=False)

    async def close(self) -> None:
        """See ``Directory``."""
        for watch in list(self._watches):
            await watch.aclose()
        await self._http.close()

    def snapshot(self) -> dict[str, object]:
        """For logs and status pages: the source and how many watches there are."""
        return {"source": self.source, "watches": len(self._watches)}

    async def _known(self, instance_id: str) -> Registered | None:
        # The status repeats the health: 429 warning, 503 critical or in maintenance.
        path = f"/v1/agent/health/service/id/{instance_id}"
        answer = await self._http.get(path, [("format", "json")], expect={404, 429, 503})
        return decode_registered(answer.body) if answer.found else None

    def _is_at_home(self, registration: Registration, known: Registered) -> bool:
        """Whether what the agent holds under our id is us. Raises ``RegistrationRefused`` for a living other one."""
        same = known.port == registration.port and known.address in {"", registration.address}
        if known.alive and not same:
            raise RegistrationRefused(
                f"{registration.id!r} is registered at {self.source} for {known.address}:{known.port}, which is alive; "
                "choose another id, or stop that one first"
            )
        return same

    async def _ensure_same_datacenter(self) -> None:
        wanted = self._http.settings.dc
        if not wanted:
            return
        try:
            there = decode_datacenter((await self._http.get("/v1/agent/self")).body)
        except PermissionDenied:
            return  # it need not be allowed to know
        if there != wanted:
            raise RegistrationRefused(
                f"the agent at {self.source} registers in {there}, not in {wanted}; name an agent of {wanted}"
            )

    async def _until_gone(self, service: str, instance_id: str, *, passing_only: bool) -> None:
        query = Query(service, passing_only=passing_only)
        give_up = self._clock.monotonic() + CONFIRM_WITHIN
        while (left := give_up - self._clock.monotonic()) > 0:
            try:
                reading = await self._reads.ask(query, stale=False, within=left)
            except RegistryError:
                pass  # the write is done; whether it can be seen is what cannot be told now
            else:
                if all(each.id != instance_id for each in reading.snapshot.instances):
                    return
            await self._clock.sleep(_CONFIRM_STEP)


def _unknown(instance_id: str, source: str) -> UnknownInstance:
    return UnknownInstance(f"{instance_id} is not registered at {source}")
