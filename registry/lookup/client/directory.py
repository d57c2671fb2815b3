"""The directory on look-up services, for programs that must not talk to Consul: ``lookup://host:port,host:port``.

It asks one service at a time, each in its turn, and goes to the next when one does not answer. It is read-only, as
the services are.
"""

import random
import weakref
from typing import Unpack

from registry.directory import Registration
from registry.errors import Unsupported
from registry.lookup.client.address import LookupSettings
from registry.lookup.client.services import LookupServices
from registry.lookup.client.stream import StreamWatch
from registry.model import Snapshot
from registry.query import Filters, Query
from registry.rules import ensure_name
from registry.timing import Clock


class LookupDirectory:
    """A ``Directory`` on look-up services; usable in one event loop at a time."""

    def __init__(self, settings: LookupSettings, *, clock: Clock, rng: random.Random) -> None:
        self._services = LookupServices(settings, clock=clock, rng=rng)
        self._clock = clock
        self._rng = rng
        self._watches: weakref.WeakSet[StreamWatch] = weakref.WeakSet()

    @property
    def source(self) -> str:
        """See ``Directory``."""
        return self._services.source

    async def lookup(self, service: str, **filters: Unpack[Filters]) -> Snapshot:
        """See ``Directory``. Each address is asked at most once, all of them within 15 s."""
        ensure_name(service)
        return await self._services.lookup(Query(service, **filters))

    def watch(self, service: str, **filters: Unpack[Filters]) -> StreamWatch:
        """See ``Directory``."""
        ensure_name(service)
        watch = StreamWatch(Query(service, **filters), self._services, clock=self._clock, rng=self._rng)
        self._watches.add(watch)
        return watch

    async def register(self, registration: Registration) -> None:
        """Raise ``Unsupported``, as all that writes does."""
        raise _unsupported(f"register {registration.id}")

    async def registered(self, registration: Registration) -> bool:
        """Raise ``Unsupported``."""
        raise _unsupported(f"look up the registration of {registration.id}")

    async def beat(self, instance_id: str, note: str = "") -> None:  # noqa: ARG002 - part of the protocol
        """Raise ``Unsupported``."""
        raise _unsupported(f"report {instance_id}")

    async def maintenance(self, instance_id: str, on: bool, reason: str = "") -> None:  # noqa: ARG002 - as above
        """Raise ``Unsupported``."""
        raise _unsupported(f"drain {instance_id}")

    async def deregister(self, instance_id: str) -> None:
        """Raise ``Unsupported``."""
        raise _unsupported(f"deregister {instance_id}")

    async def close(self) -> None:
        """See ``Directory``."""
        for watch in list(self._watches):
            await watch.aclose()
        await self._services.close()

    def snapshot(self) -> dict[str, object]:
        """For logs and status pages: the source and how many watches there are."""
        return {"source": self.source, "watches": len(self._watches)}


def _unsupported(what: str) -> Unsupported:
    return Unsupported(
        f"a look-up service cannot {what}; give the registry itself, for example: --registry consul://127.0.0.1:8500"
    )
