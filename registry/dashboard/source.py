"""Following a whole Consul: the list of services, each of them, and whether the registry itself answers.

Every list comes through a ``BlockingWatch``, whose rules hold here too: an outage clears nothing, a great fall is
believed when it is confirmed, churn is read at a bounded pace. What is followed is bounded as well. A service that
left the catalog stays for a day, empty: that "digits" has no instance left is what an operator must see, next morning
too; it makes room when a living one needs its place.

The heartbeat is a question of its own, because a blocking query that says nothing may be a quiet fleet or a registry
that hangs. One failure is no outage; it is asked again within two seconds.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

import msgspec

from registry.consul.http import ConsulHttp
from registry.consul.settings import ConsulSettings
from registry.dashboard.fold import fold
from registry.dashboard.model import Event, Fleet, Kind, Registry, Service
from registry.dashboard.reading import Checked, CheckedReads, read_leader, read_services
from registry.directory import WatchStatus
from registry.errors import ConfigurationError, RegistryError
from registry.model import Instance, Snapshot
from registry.query import Query
from registry.rules import ensure_name
from registry.timing import Clock
from registry.watch import BlockingWatch, Reading
from registry.wording import length

# Seconds between two questions to the registry whether it is there, and how long each may take.
BEAT = 2.0
BEAT_WITHIN = 2.0
# After a failure: seconds until it is asked again, and for how long.
CONFIRM_AFTER = 0.5
CONFIRM_WITHIN = 1.5
# Seconds a service is kept that has left the catalog.
KEPT = 86_400.0
# Bytes per second and service: a thousand instances with their checks are read about once a second.
PACE = 2e6
# Consul's servers, which register under this name: no service of anybody's fleet.
_ITSELF = "consul"
_LONGEST_NAME = 256
# Instances of which folding takes 1 ms, and 15 ms when all of them change at once; only more is worth a thread, which
# takes the interpreter from the event loop for 5 ms at a time.
_LONG = 1500

OnChange = Callable[[Fleet, list[Event]], None]


@dataclass(slots=True)
class _Followed:
    """One service. ``folded``: None before its first list. ``left``: when it left the catalog, on the clock."""

    watch: BlockingWatch
    folded: Service | None = None
    left: float | None = None
    task: asyncio.Task[None] | None = None


class Source:
    """The fleet as one Consul (or the embedded registry) tells it; ``run`` it in one task, then ``close`` it.

    ``on_change`` is called in the event loop with each new fleet and what happened; at every heartbeat too, and then
    often with nothing but times renewed, which leaves ``version`` as it is. ``only``: globs of service names, empty
    for all but Consul's own. Not more than ``most_services`` are followed.
    """

    def __init__(
        self,
        settings: ConsulSettings,
        *,
        clock: Clock,
        rng: random.Random,
        on_change: OnChange,
        only: tuple[str, ...] = (),
        most_services: int = 100,
    ) -> None:
        self._http = ConsulHttp(settings)
        self._clock = clock
        self._rng = rng
        self._on_change = on_change
        self._only = only
        self._most = most_services
        self._names: tuple[str, ...] | None = None  # as the catalog said last
        self._followed: dict[str, _Followed] = {}
        self._catalog = BlockingWatch(partial(read_services, self._http, clock), clock=clock, rng=rng, pace=PACE)
        self._registry = Registry(source=settings.source)
        self._lost_at: float | None = None
        self._fleet = Fleet(registry=self._registry)

    @property
    def fleet(self) -> Fleet:
        """Everything known now."""
        return self._fleet

    async def run(self) -> None:
        """Follow until cancelled; an outage ends nothing, a fault in this program or in ``on_change`` does."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._heartbeats(tasks), name="registry heartbeat")
            async for snapshot in self._catalog:
                self._take_names(snapshot, tasks)

    async def close(self) -> None:
        """Give connections back, after ``run`` has ended."""
        await self._http.close()

    async def _heartbeats(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            events = await self._heartbeat()
            self._arrange(tasks)
            self._publish(events)
            await self._clock.sleep(BEAT)

    async def _heartbeat(self) -> list[Event]:
        began = self._clock.time()
        try:
            try:
                leader = await read_leader(self._http, within=BEAT_WITHIN)
            except RegistryError:
                await self._clock.sleep(CONFIRM_AFTER)
                leader = await read_leader(self._http, within=CONFIRM_WITHIN)
        except RegistryError as error:
            self._registry = msgspec.structs.replace(self._registry, live=False, error=str(error))
            if self._lost_at is not None:
                return []
            self._lost_at = began
            words = f"registry lost, lists stay as they were: {error}"
            return [Event(at=self._clock.time(), kind=Kind.REGISTRY_LOST, words=words)]
        now, lost_at, self._lost_at = self._clock.time(), self._lost_at, None
        self._registry = msgspec.structs.replace(
            self._registry, live=True, leader=leader, heard_at=now, error=self._trouble(leader)
        )
        if lost_at is None:
            return []
        return [Event(at=now, kind=Kind.REGISTRY_BACK, words=f"registry back after {length(now - lost_at)} away")]

    def _trouble(self, leader: str) -> str:
        """What is not well with a registry that answers."""
        if not leader:
            return "it has no leader now: lists may be old, and nothing can be registered"
        unread = self._catalog.status().last_error
        return f"its list of services is not read yet: {unread}" if unread else ""

    def _take_names(self, snapshot: Snapshot, tasks: asyncio.TaskGroup) -> None:
        before, self._names = self._names, tuple(each.id for each in snapshot.instances if self._wants(each.id))
        # What was there before anybody looked has not registered now; what came since has, all of it.
        self._arrange(tasks, fresh=set() if before is None else {*self._names} - {*before})
        self._publish([])

    def _wants(self, name: str) -> bool:
        if not self._only:
            return name != _ITSELF
        return any(fnmatchcase(name, glob) for glob in self._only) and (name != _ITSELF or _ITSELF in self._only)

    def _arrange(self, tasks: asyncio.TaskGroup, fresh: set[str] | frozenset[str] = frozenset()) -> None:
        """Follow what can be followed of the catalog, and let go of what left it long ago or is in the way."""
        if self._names is None:
            return
        now, names = self._clock.monotonic(), set(self._names)
        for name, each in self._followed.items():
            each.left = None if name in names else now if each.left is None else each.left
        left = sorted((each.left, name) for name, each in self._followed.items() if each.left is not None)
        missing = [name for name in self._names if name not in self._followed and _is_name(name)]
        excess = len(self._followed) + len(missing) - self._most
        for number, (since, name) in enumerate(left):
            if number < excess or now - since >= KEPT:
                self._let_go(name)
        for name in missing[: max(0, self._most - len(self._followed))]:
            self._follow(name, tasks, fresh=name in fresh)

    def _follow(self, name: str, tasks: asyncio.TaskGroup, *, fresh: bool) -> None:
        reads, query = CheckedReads(self._http, self._clock), Query(name, passing_only=False)

        async def read(*, index: int, stale: bool) -> Reading:
            return await reads.read(query, index=index, stale=stale)

        followed = _Followed(BlockingWatch(read, clock=self._clock, rng=self._rng, pace=PACE))
        followed.folded = Service(name=name) if fresh else None
        self._followed[name] = followed
        followed.task = tasks.create_task(self._keep_up(name, followed), name=f"following {name}")

    def _let_go(self, name: str) -> None:
        task = self._followed.pop(name).task
        if task is not None:
            task.cancel()

    async def _keep_up(self, name: str, followed: _Followed) -> None:
        async for snapshot in followed.watch:
            listed = [each for each in snapshot.instances if isinstance(each, Checked)]
            step = partial(_fold, followed.folded, listed, name=name, index=snapshot.index, now=self._clock.time())
            followed.folded, events = await asyncio.to_thread(step) if len(listed) > _LONG else step()
            self._publish(events)

    def _publish(self, events: list[Event]) -> None:
        """Make the fleet of what is known; its version grows unless only times are others."""
        old, services = self._fleet, dict[str, Service]()
        for name, each in sorted(self._followed.items()):
            status = each.watch.status()
            if each.folded is not None or status.failures:
                service = _with_status(each.folded or Service(name=name), status)
                services[name] = _kept(old.services.get(name), service)
        fresh = Fleet(
            registry=self._registry,
            services=services,
            unfollowed=len(set(self._names or ()) - self._followed.keys()),
            version=old.version,
        )
        if _timeless(fresh) != _timeless(old):
            fresh = msgspec.structs.replace(fresh, version=old.version + 1)
        self._fleet = fresh
        self._on_change(fresh, events)


def _fold(
    old: Service | None, listed: list[Checked], *, name: str, index: int, now: float
) -> tuple[Service, list[Event]]:
    instances: tuple[Instance, ...] = tuple(each.plain for each in listed)
    return fold(old, instances, {each.id: each.checks for each in listed}, name=name, index=index, now=now)


def _with_status(service: Service, status: WatchStatus) -> Service:
    return msgspec.structs.replace(
        service,
        live=status.live,
        last_good_at=status.last_good_at,
        error="" if status.live else status.last_error,
        suspect=status.suspect,
    )


def _kept(old: Service | None, new: Service) -> Service:
    """The old one if the new one says the same, with what has been counted of it."""
    same = old is not None and old.last_good_at == new.last_good_at and _facts(old) == _facts(new)
    return old if old is not None and same else new


def _timeless(fleet: Fleet) -> tuple[object, ...]:
    """What makes a fleet another one: all but when it was heard of."""
    registry = msgspec.structs.replace(fleet.registry, heard_at=None)
    return registry, fleet.unfollowed, {name: _facts(each) for name, each in fleet.services.items()}


def _facts(service: Service) -> tuple[object, ...]:
    # The tuple's identity stands for the members, a thousand of which are not to be compared every time.
    return id(service.members) if service.members else 0, service.live, service.error, service.suspect


def _is_name(name: str) -> bool:
    try:
        ensure_name(name)
    except ConfigurationError:
        return False
    return len(name) <= _LONGEST_NAME and name.isprintable()
