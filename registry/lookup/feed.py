"""One service: the one watch of it, the list it gave last, and the views taken of that list.

An outage of the registry changes nothing but the age of the list. The index starts at the clock's microseconds, so an
index from before a restart, or from another process, is never taken for one of this process.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from registry.directory import Directory
from registry.lookup.question import Question
from registry.lookup.refused import full, unavailable
from registry.lookup.turns import Turns, batches
from registry.lookup.view import Chosen, Difference, Filtered, View
from registry.lookup.wire import HEARTBEAT, Row, to_row
from registry.model import Instance, Snapshot
from registry.query import Query
from registry.timing import Clock

# Views nobody used for this long, in seconds, are dropped; when there are so many, the longest unused one at once.
VIEW_IDLE = 60.0
MOST_VIEWS = 256
MOST_SUBSETS = 5000

_AnyKey = TypeVar("_AnyKey")
_AnyView = TypeVar("_AnyView", bound=View)
_Key = tuple[str, str, str, tuple[tuple[str, str], ...], bool]


class Feed:
    """``ready`` is set with the first list; ``users``: requests that hold it now. ``close`` must follow."""

    def __init__(self, service: str, directory: Directory, *, clock: Clock, turns: Turns) -> None:
        self.index = int(clock.time() * 1e6)
        self.ready = asyncio.Event()
        self.closed = False
        self.users = 0
        self.used_at = clock.monotonic()
        self._clock = clock
        self._turns = turns
        self._watch = directory.watch(service, passing_only=False)
        self._instances: Mapping[str, Instance] = {}
        self._rows: Mapping[str, Row] = {}
        self._snapshot: Snapshot | None = None
        self._filtered: dict[_Key, Filtered] = {}
        self._live = True
        self._next_beat = self.used_at + HEARTBEAT
        self.task = asyncio.create_task(self._follow(), name=f"look-up feed of {service}")

    @property
    def size(self) -> int:
        """Instances known, whatever their health."""
        return len(self._instances)

    def stale_for(self) -> float:
        """Seconds without contact to the registry, to the millisecond."""
        if self._snapshot is None:
            return 0.0
        status, age = self._watch.status(), self._snapshot.stale_for
        if not status.live:
            heard = self._snapshot.fetched_at if status.last_good_at is None else status.last_good_at
            age += max(0.0, self._clock.time() - heard)
        return round(age, 3)

    def unconfirmed_for(self) -> float | None:
        """Seconds since the registry last said what the list is; None: never."""
        heard = self._watch.status().last_good_at
        return None if heard is None else max(0.0, self._clock.time() - heard)

    @asynccontextmanager
    async def view(self, question: Question) -> AsyncIterator[View]:
        """Hold the list asked for, once ``ready``. Raises ``Refused``."""
        filtered = await self._filter(question.query)
        with _held(filtered, self._clock):
            view = await self._choose(question, filtered) if question.limit else filtered
            if self.closed:
                raise unavailable("this service is no longer followed; ask again")
            with _held(view, self._clock):
                yield view

    async def tick(self, now: float) -> None:
        """Send heartbeats that are due, at once when the registry went away or came back; drop what is not used."""
        live = self._watch.status().live
        if live != self._live or now >= self._next_beat:
            self._live, self._next_beat = live, now + HEARTBEAT
            for view in list(self._views()):
                await view.beat()
        for key, filtered in list(self._filtered.items()):
            for name, chosen in list(filtered.subsets.items()):
                if chosen.idle and now - chosen.used_at > VIEW_IDLE:
                    del filtered.subsets[name]
            if filtered.idle and now - filtered.used_at > VIEW_IDLE:
                del self._filtered[key]

    async def close(self) -> None:
        """End the watch, and the streams and waits on all views."""
        self.closed = True
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self._watch.aclose()
        self.ready.set()
        for view in self._views():
            view.close()

    def _views(self) -> list[View]:
        return [each for one in self._filtered.values() for each in (one, *one.subsets.values())]

    async def _filter(self, query: Query) -> Filtered:
        key = (query.tag.lower(), query.zone, query.version, tuple(sorted(query.meta.items())), query.passing_only)
        while key not in self._filtered:
            async with self._turns.filtering:
                if key not in self._filtered:
                    if len(self._filtered) >= MOST_VIEWS and not _drop_one(self._filtered):
                        raise full(f"{MOST_VIEWS} different filters are in use on this service; try again later")
                    made = Filtered(query, self.index, self._clock.monotonic(), self._turns, self.stale_for)
                    await made.build(self._instances, self._rows)
                    if made.index == self.index:  # else the list changed meanwhile
                        self._filtered[key] = made
        return self._filtered[key]

    async def _choose(self, question: Question, filtered: Filtered) -> Chosen:
        key = (question.limit, question.client)
        while key not in filtered.subsets:
            async with self._turns.choosing:
                if key not in filtered.subsets:
                    if len(filtered.subsets) >= MOST_SUBSETS:
                        _drop_one(filtered.subsets)
                    made = Chosen(question.client, question.limit, filtered, self._clock.monotonic(), self._turns)
                    await made.build(filtered.rows)
                    if made.index == filtered.index:  # else the list changed meanwhile
                        filtered.subsets[key] = made
        return filtered.subsets[key]

    async def _follow(self) -> None:
        async for snapshot in self._watch:
            await self._take(snapshot)

    async def _take(self, snapshot: Snapshot) -> None:
        old, new, changed = self._instances, dict[str, Instance](), dict[str, Row]()
        for batch in batches(snapshot.instances):
            for each in batch:
                new[each.id] = each
                if old.get(each.id) != each:
                    changed[each.id] = to_row(each)
            await self._turns.next()
        removed = [key for key in old if key not in new]
        # From here to the first ``await`` everything changes at once: a view is made of the old list or of the new.
        rows = {**self._rows, **changed}
        for key in removed:
            del rows[key]
        self._instances, self._rows, self._snapshot = new, rows, snapshot
        self.index = max(snapshot.index, self.index + 1)
        self.ready.set()
        change = Difference(self.index, changed, removed)
        for filtered in list(self._filtered.values()):
            told = await filtered.take(change, new)
            if told is None:
                continue
            subsets = list(filtered.subsets.values())
            await filtered.deliver()
            for chosen in subsets:
                await chosen.take(told, filtered.rows)
                await chosen.deliver()
                await self._turns.breathe()


@contextmanager
def _held(view: View, clock: Clock) -> Iterator[None]:
    view.users += 1
    try:
        yield
    finally:
        view.users -= 1
        view.used_at = clock.monotonic()


def _drop_one(views: dict[_AnyKey, _AnyView]) -> bool:
    idle = [key for key, each in views.items() if each.idle]
    if idle:
        del views[min(idle, key=lambda key: views[key].used_at)]
    return bool(idle)
