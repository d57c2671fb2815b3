"""Fakes for your own tests: a clock you move by hand and a directory you script.

Both ship with the package on purpose: code that takes a ``Clock`` and a ``Directory`` can be tested without waiting
and without a registry. ``tests/registry/test_testing.py`` shows their use.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import Unpack

import msgspec

from registry.directory import Registration, WatchStatus
from registry.errors import RegistrationRefused, RegistryError, RegistryUnavailable, UnknownInstance
from registry.model import Health, Instance, Snapshot
from registry.query import Filters, Query


class ManualClock:
    """A ``Clock`` that stands still until ``advance`` moves it; sleepers wake in the order of their times."""

    def __init__(self, *, monotonic: float = 1000.0, epoch: float = 1_700_000_000.0) -> None:
        self._now = monotonic
        self._offset = epoch - monotonic
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        """Seconds; starts at 1000 so that a forgotten zero shows."""
        return self._now

    def time(self) -> float:
        """Seconds since the epoch; moves with ``monotonic``."""
        return self._now + self._offset

    @property
    def sleepers(self) -> int:
        """How many tasks are waiting in ``sleep`` now."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Wait until somebody has advanced the clock by ``seconds``."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move the clock on, waking every sleeper on the way at its own time and letting it run."""
        await self.settle()
        target = self._now + seconds
        while self._sleepers and self._sleepers[0][0] <= target:
            when, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, when)
            if not future.done():
                future.set_result(None)
                await self.settle()
        self._now = target
        await self.settle()

    async def settle(self, turns: int = 20) -> None:
        """Give every ready task some turns of the event loop without moving the clock."""
        for _ in range(turns):
            await asyncio.sleep(0)


def instance(number: int, service: str = "digits", **changes: object) -> Instance:
    """Return a plausible instance: id ``digits-1``, address 127.0.0.1, port 9000 + number, passing."""
    fields: dict[str, object] = {
        "id": f"{service}-{number}",
        "service": service,
        "address": "127.0.0.1",
        "port": 9000 + number,
    }
    return Instance(**(fields | changes))  # type: ignore[arg-type]


class ScriptedDirectory:
    """A ``Directory`` in memory that says what the test told it to, and can be made to fail.

    ``lookups`` counts calls of ``lookup``; ``registrations`` holds what was registered, by id.
    """

    source = "scripted://"

    def __init__(self, instances: Iterable[Instance] = ()) -> None:
        self._services: dict[str, dict[str, Instance]] = {}
        self._index = 0
        self._changed = asyncio.Event()
        self._failure: RegistryError | None = None
        self.lookups = 0
        self.registrations: dict[str, Registration] = {}
        self.set(instances)

    def set(self, instances: Iterable[Instance]) -> None:
        """Replace everything known; watches see it at once."""
        self._services.clear()
        for each in instances:
            self._services.setdefault(each.service, {})[each.id] = each
        self._index += 1
        self._wake()

    def fail(self, error: RegistryError | None = None) -> None:
        """From now on every call raises ``error`` (default: unavailable) and watches go quiet."""
        self._failure = error or RegistryUnavailable("scripted outage")
        self._wake()

    def heal(self) -> None:
        """End the outage."""
        self._failure = None
        self._wake()

    async def lookup(self, service: str, **filters: Unpack[Filters]) -> Snapshot:
        """See ``Directory``."""
        self.lookups += 1
        self._raise_if_failing()
        return self._snapshot(Query(service, **filters))

    def watch(self, service: str, **filters: Unpack[Filters]) -> "ScriptedWatch":
        """See ``Directory``."""
        query = Query(service, **filters)
        return ScriptedWatch(self, lambda: self._snapshot(query))

    async def register(self, registration: Registration) -> None:
        """See ``Directory``."""
        self._raise_if_failing()
        self.registrations[registration.id] = registration
        fields = ("id", "service", "address", "port", "tags", "meta", "zone", "version", "weight")
        known = Instance(**{name: getattr(registration, name) for name in fields})
        self._services.setdefault(registration.service, {})[registration.id] = known
        self._index += 1
        self._wake()

    async def registered(self, registration: Registration) -> bool:
        """See ``Directory``."""
        self._raise_if_failing()
        known = self.registrations.get(registration.id)
        if known is not None and (known.address, known.port) != (registration.address, registration.port):
            raise RegistrationRefused(f"{registration.id} now belongs to {known.address}:{known.port}")
        return known is not None

    async def beat(self, instance_id: str, note: str = "") -> None:  # noqa: ARG002 - part of the protocol
        """See ``Directory``."""
        self._raise_if_failing()
        if instance_id not in self.registrations:
            raise UnknownInstance(f"{instance_id} is not registered")

    async def maintenance(self, instance_id: str, on: bool, reason: str = "") -> None:  # noqa: ARG002 - as above
        """See ``Directory``."""
        self._raise_if_failing()
        for instances in self._services.values():
            if instance_id in instances:
                health = Health.DRAINING if on else Health.PASSING
                instances[instance_id] = msgspec.structs.replace(instances[instance_id], health=health)
                self._index += 1
                self._wake()
                return
        raise UnknownInstance(f"{instance_id} is not registered")

    async def deregister(self, instance_id: str) -> None:
        """See ``Directory``."""
        self._raise_if_failing()
        self.registrations.pop(instance_id, None)
        for instances in self._services.values():
            instances.pop(instance_id, None)
        self._index += 1
        self._wake()

    async def close(self) -> None:
        """See ``Directory``."""

    def forget(self, instance_id: str) -> None:
        """Lose a registration without being asked, as an agent that lost its data does."""
        self.registrations.pop(instance_id, None)
        for instances in self._services.values():
            instances.pop(instance_id, None)
        self._index += 1
        self._wake()

    def _raise_if_failing(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _snapshot(self, query: Query) -> Snapshot:
        chosen = filter(query.wants, self._services.get(query.service, {}).values())
        return Snapshot(
            service=query.service,
            index=self._index,
            instances=tuple(sorted(chosen, key=lambda each: each.id)),
            fetched_at=0.0,
            source=self.source,
        )


class ScriptedWatch:
    """The watch of a ``ScriptedDirectory``."""

    def __init__(self, directory: ScriptedDirectory, read: Callable[[], Snapshot]) -> None:
        self._directory = directory
        self._read = read
        self._last: Snapshot | None = None
        self._closed = False

    def __aiter__(self) -> "ScriptedWatch":
        return self

    async def __anext__(self) -> Snapshot:
        while not self._closed:
            changed = self._directory._changed
            if self._directory._failure is None:
                now = self._read()
                if self._last is None or now.instances != self._last.instances:
                    self._last = now
                    return now
            await changed.wait()
        raise StopAsyncIteration

    def status(self) -> WatchStatus:
        """See ``Watch``."""
        failure = self._directory._failure
        return WatchStatus(live=failure is None, last_error=str(failure or ""), last_good_at=0.0)

    async def aclose(self) -> None:
        """See ``Watch``."""
        self._closed = True
        self._directory._wake()
