"""The directory on Consul's HTTP API, which the embedded registry speaks too.

Reads are stale by default: with its leader gone a cluster goes on answering those. An answer that is too old by its
own word is asked again of the leader, once and not too often. Writes go to the agent; it syncs them in its own time,
so taking an instance out of service returns when look-ups have stopped naming it, or after two seconds.
"""

import random
import weakref
from typing import Unpack

from registry.codec import STEP, Registered, check_id, decode_in_steps, decode_registered, duration, encode
from registry.consulhttp import TIMEOUT, ConsulHttp, ConsulSettings
from registry.directory import Registration
from registry.errors import (
    ConfigurationError,
    PermissionDenied,
    RegistrationRefused,
    RegistryError,
    RegistryUnavailable,
    UnknownInstance,
    Unsupported,
)
from registry.model import Instance, Snapshot
from registry.query import Filters, Query
from registry.rules import ensure_name, ensure_registrable
from registry.timing import Clock
from registry.watch import WAIT, BlockingWatch, Reading, client_timeout

# Servers normally hear from their leader several times a second.
STALE_BOUND = 5.0
REASK_EVERY = 10.0
CONFIRM_WITHIN = 2.0
_CONFIRM_STEP = 0.05


class ConsulDirectory:
    """A ``Directory`` on one Consul agent (or the embedded registry); usable in one event loop at a time."""

    def __init__(self, settings: ConsulSettings, *, clock: Clock, rng: random.Random) -> None:
        self._http = ConsulHttp(settings)
        self._clock = clock
        self._rng = rng
        self._watches: weakref.WeakSet[BlockingWatch] = weakref.WeakSet()
        self._next_reask = 0.0

    @property
    def source(self) -> str:
        """See ``Directory``."""
        return self._http.settings.source

    async def lookup(self, service: str, **filters: Unpack[Filters]) -> Snapshot:
        """See ``Directory``."""
        ensure_name(service)
        return (await self._read(Query(service, **filters))).snapshot

    def watch(self, service: str, **filters: Unpack[Filters]) -> BlockingWatch:
        """See ``Directory``."""
        ensure_name(service)
        query = Query(service, **filters)

        async def read(*, index: int, stale: bool) -> Reading:
            return await self._read(query, index=index, stale=stale, blocking=True)

        watch = BlockingWatch(read, clock=self._clock, rng=self._rng)
        self._watches.add(watch)
        return watch

    async def register(self, registration: Registration) -> None:
        """See ``Directory``. An id that a living instance holds at another address is refused."""
        ensure_registrable(registration)
        known = await self._known(registration.id)
        if known is not None:
            await self._make_way(registration, known)
        try:
            await self._http.put(
                "/v1/agent/service/register", [("replace-existing-checks", "true")], encode(registration)
            )
        except ConfigurationError as error:
            raise RegistrationRefused(f"cannot register {registration.id!r}: {error}") from error

    async def registered(self, instance_id: str) -> bool:
        """See ``Directory``."""
        return (await self._http.get(f"/v1/agent/service/{instance_id}", expect={404})).found

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

    async def _read(self, query: Query, *, index: int = 0, stale: bool = True, blocking: bool = False) -> Reading:
        reading = await self._ask(query, index=index, stale=stale, blocking=blocking)
        now = self._clock.monotonic()
        if not stale or reading.snapshot.stale_for <= STALE_BOUND or now < self._next_reask:
            return reading
        self._next_reask = now + REASK_EVERY
        try:
            return await self._ask(query, index=0, stale=False, blocking=blocking)
        except RegistryUnavailable:
            return reading  # no leader to ask: old news is better than none, and it says how old it is

    async def _ask(self, query: Query, *, index: int, stale: bool, blocking: bool, within: float = TIMEOUT) -> Reading:
        params: list[tuple[str, str | int]] = []
        if query.passing_only:
            params.append(("passing", "1"))
        if query.tag:
            params.append(("tag", query.tag))
        if stale:
            params.append(("stale", ""))
        if index:
            params += [("index", index), ("wait", duration(WAIT))]
        answer = await self._http.get(
            f"/v1/health/service/{query.service}",
            params,
            within=client_timeout(WAIT) if index else within,
            blocking=blocking,
        )
        found = await self._decode(answer.body)
        if not found and answer.headers.get("x-consul-results-filtered-by-acls") == "true":
            raise PermissionDenied(
                f"{self.source} hides the instances of {query.service}; "
                "give a token with service:read and node:read in CONSUL_HTTP_TOKEN"
            )
        snapshot = Snapshot(
            service=query.service,
            index=answer.number("x-consul-index"),
            instances=tuple(each for each in found if query.wants(each)),
            fetched_at=self._clock.time(),
            stale_for=answer.number("x-consul-lastcontact") / 1000,
            source=self.source,
        )
        return Reading(snapshot, len(answer.body))

    async def _decode(self, body: bytes) -> tuple[Instance, ...]:
        steps = decode_in_steps(body)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            if len(body) > 2 * STEP:
                await self._clock.sleep(0)

    async def _known(self, instance_id: str) -> Registered | None:
        # The status repeats the health: 429 warning, 503 critical or in maintenance.
        path = f"/v1/agent/health/service/id/{instance_id}"
        answer = await self._http.get(path, [("format", "json")], expect={404, 429, 503})
        return decode_registered(answer.body) if answer.found else None

    async def _make_way(self, registration: Registration, known: Registered) -> None:
        there = f"{known.address}:{known.port}"
        same = known.port == registration.port and known.address in {"", registration.address}
        if known.alive and not same:
            raise RegistrationRefused(
                f"{registration.id!r} is registered at {self.source} for {there}, which is alive; "
                "choose another id, or stop that one first"
            )
        if not known.alive:
            # A new registration inherits the status of the old check, and this one is to start passing.
            await self._http.put(f"/v1/agent/service/deregister/{registration.id}", expect={404})

    async def _until_gone(self, service: str, instance_id: str, *, passing_only: bool) -> None:
        query = Query(service, passing_only=passing_only)
        give_up = self._clock.monotonic() + CONFIRM_WITHIN
        while (left := give_up - self._clock.monotonic()) > 0:
            try:
                reading = await self._ask(query, index=0, stale=False, blocking=False, within=left)
            except RegistryError:
                pass  # the write is done; whether it can be seen is what cannot be told now
            else:
                if all(each.id != instance_id for each in reading.snapshot.instances):
                    return
            await self._clock.sleep(_CONFIRM_STEP)


def _unknown(instance_id: str, source: str) -> UnknownInstance:
    return UnknownInstance(f"{instance_id} is not registered at {source}")
