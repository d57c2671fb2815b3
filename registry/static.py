"""A directory over a list of addresses written down: no registry at all, for tests, for one machine, for a fallback.

It serves the same list for whatever service is asked, knows nothing of health, tags, zones or versions (a filter on
one of those finds nothing), and takes no registrations.
"""

import asyncio
import weakref
from collections.abc import Sequence
from typing import Unpack

from registry.directory import Registration, WatchStatus
from registry.errors import Unsupported
from registry.model import Instance, Snapshot
from registry.query import Filters, Query
from registry.rules import ensure_name
from registry.timing import Clock


class StaticDirectory:
    """A ``Directory`` over ``(host, port)`` pairs; each instance's id is its ``host:port``."""

    def __init__(self, addresses: Sequence[tuple[str, int]], *, clock: Clock) -> None:
        self._addresses = tuple(dict.fromkeys(addresses))
        self._clock = clock
        self._watches: weakref.WeakSet[StaticWatch] = weakref.WeakSet()

    @property
    def source(self) -> str:
        """See ``Directory``."""
        return "static://" + ",".join(each.endpoint for each in self._instances("static"))

    async def lookup(self, service: str, **filters: Unpack[Filters]) -> Snapshot:
        """See ``Directory``."""
        return self._snapshot(Query(service, **filters))

    def watch(self, service: str, **filters: Unpack[Filters]) -> "StaticWatch":
        """See ``Directory``."""
        watch = StaticWatch(self._snapshot(Query(service, **filters)))
        self._watches.add(watch)
        return watch

    async def register(self, registration: Registration) -> None:
        """Raise ``Unsupported``, as all that writes does."""
        raise self._unsupported(f"register {registration.id}")

    async def registered(self, registration: Registration) -> bool:
        """Raise ``Unsupported``."""
        raise self._unsupported(f"look up the registration of {registration.id}")

    async def beat(self, instance_id: str, note: str = "") -> None:  # noqa: ARG002 - part of the protocol
        """Raise ``Unsupported``."""
        raise self._unsupported(f"report {instance_id}")

    async def maintenance(self, instance_id: str, on: bool, reason: str = "") -> None:  # noqa: ARG002 - as above
        """Raise ``Unsupported``."""
        raise self._unsupported(f"drain {instance_id}")

    async def deregister(self, instance_id: str) -> None:
        """Raise ``Unsupported``."""
        raise self._unsupported(f"deregister {instance_id}")

    async def close(self) -> None:
        """See ``Directory``."""
        for watch in list(self._watches):
            await watch.aclose()

    def snapshot(self) -> dict[str, object]:
        """For logs and status pages: the source and how many watches there are."""
        return {"source": self.source, "watches": len(self._watches)}

    def _instances(self, service: str) -> list[Instance]:
        named = {
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}": (host, port) for host, port in self._addresses
        }
        return [
            Instance(id=name, service=service, address=host, port=port) for name, (host, port) in sorted(named.items())
        ]

    def _snapshot(self, query: Query) -> Snapshot:
        ensure_name(query.service)
        return Snapshot(
            service=query.service,
            index=1,
            instances=tuple(filter(query.wants, self._instances(query.service))),
            fetched_at=self._clock.time(),
            source=self.source,
        )

    def _unsupported(self, what: str) -> Unsupported:
        return Unsupported(f"a static list cannot {what}; use a registry: --registry consul://127.0.0.1:8500")


class StaticWatch:
    """One snapshot, then quiet until closed."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot: Snapshot | None = snapshot
        self._status = WatchStatus(live=True, last_good_at=snapshot.fetched_at)
        self._closed = asyncio.Event()

    def __aiter__(self) -> "StaticWatch":
        return self

    async def __anext__(self) -> Snapshot:
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None and not self._closed.is_set():
            return snapshot
        await self._closed.wait()
        raise StopAsyncIteration

    def status(self) -> WatchStatus:
        """See ``Watch``."""
        return self._status

    async def aclose(self) -> None:
        """See ``Watch``."""
        self._closed.set()
