"""What the dashboard knows, kept up to date: the registry's word, the nodes', the clients', and what operators did.

The one place where the sources meet. Everything runs in one event loop; ``world()`` is what pages look at, ``stamp()``
is another value whenever anything they show has changed.
"""

import asyncio
import random
import ssl
from collections.abc import Mapping

from registry.consul.settings import ConsulSettings
from registry.dashboard.calls import Calls
from registry.dashboard.drains import Drains
from registry.dashboard.journal import Journal
from registry.dashboard.loads import Loads
from registry.dashboard.model import Event, Fleet, Kind
from registry.dashboard.series import Series
from registry.dashboard.shelf import Shelf
from registry.dashboard.source import Source
from registry.dashboard.world import World
from registry.model import Health
from registry.timing import Clock
from registry.token import Token

# Seconds between two points of a chart.
SAMPLE = 10.0
# Seconds after which pages are looked at again though nothing has come in.
FADE = 5.0
# Instances whose own charts are kept; those of a larger fleet would fill the memory.
MOST_CHARTED = 1000


class State:
    """Live objects and the tasks that feed them; ``run`` until cancelled, then ``close``."""

    def __init__(
        self,
        settings: ConsulSettings,
        *,
        clock: Clock,
        rng: random.Random,
        only: tuple[str, ...] = (),
        cluster: str = "",
        floor: int = 1,
        admin_token: Token | None = None,
        node_tls: ssl.SSLContext | None = None,
        can_act: bool = False,
        about: Mapping[str, str] | None = None,
    ) -> None:
        self._clock = clock
        self._cluster = cluster or settings.source
        self._floor = floor
        self._can_act = can_act
        self._about = dict(about or {})
        self._changes = 0
        self._shelf = Shelf()
        self.journal = Journal()
        self.series = Series()
        self.calls = Calls(clock, on_eject=self._ejected)
        self.loads = Loads(clock=clock, on_change=self._loaded, tls=node_tls)
        self.drains = Drains(admin_token or Token(), clock=clock, on_event=self._happened, tls=node_tls)
        self.source = Source(settings, clock=clock, rng=rng, on_change=self._changed, only=only)

    def world(self) -> World:
        """What there is to see now."""
        return World(
            now=self._clock.time(),
            fleet=self.source.fleet,
            loads=self.loads,
            calls=self.calls,
            journal=self.journal,
            series=self.series,
            drains=self.drains,
            cluster=self._cluster,
            floor=self._floor,
            about=self._about,
            can_act=self._can_act,
            shelf=self._shelf,
        )

    def stamp(self) -> object:
        """Another value whenever a page may look different; and every few seconds, for rates fade with time alone."""
        fleet = self.source.fleet
        return self._changes, fleet.version, fleet.registry.live, self.calls.version, self._clock.time() // FADE

    async def run(self) -> None:
        """Follow everything until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.source.run())
            tasks.create_task(self.loads.run())
            tasks.create_task(self._sample())

    async def close(self) -> None:
        """Give connections back."""
        await self.drains.close()
        await self.loads.close()
        await self.source.close()

    def _changed(self, fleet: Fleet, events: list[Event]) -> None:
        self.loads.update(fleet)
        self._changes += bool(events)
        for each in events:
            self.journal.add(each)

    def _loaded(self, keys: set[tuple[str, str]]) -> None:
        self._changes += bool(keys)

    def _happened(self, event: Event) -> None:
        self._changes += 1
        self.journal.add(event)

    def _ejected(self, service: str, instance: str, ejected_by: int, clients: int) -> None:
        words = (
            f"{ejected_by} of {clients} clients leave {instance} out: it failed them"
            if ejected_by
            else f"clients use {instance} again"
        )
        self._happened(Event(at=self._clock.time(), kind=Kind.EJECTED, words=words, service=service, instance=instance))

    async def _sample(self) -> None:
        while True:
            await self._clock.sleep(SAMPLE)
            self.sample()

    def sample(self) -> None:
        """Add a point to every chart."""
        now, charted = self._clock.time(), 0
        add = self.series.add
        for name, service in self.source.fleet.services.items():
            traffic = self.calls.service(name)
            add(f"passing:{name}", now, service.counts[Health.PASSING])
            add(f"rps:{name}", now, traffic.rps)
            add(f"success:{name}", now, traffic.success)
            add(f"p95:{name}", now, traffic.latency.p95)
            for member in service.members:
                load = self.loads.get(name, member.id)
                if load is None or charted >= MOST_CHARTED:
                    continue
                charted += 1
                key = f"{name}/{member.id}"
                seen = self.calls.instance(name, member.id)
                silent = bool(load.error)
                add(f"queue:{key}", now, None if silent else load.queue)
                add(f"wait:{key}", now, None if silent else load.wait_ms)
                add(f"busy:{key}", now, None if silent else load.utilization)
                add(f"rps:{key}", now, seen.rps if seen.rps is not None else load.rps)
                add(f"p95:{key}", now, seen.latency.p95)
        self._changes += 1
