"""A start without a registry: any directory, and beside it the last good list of each service on disk.

While the registry answers, this is the directory behind it, and every real change is kept. When it cannot answer (an
error that may pass, or silence), the saved list stands in, marked as such and with the time it was good at. A refusal
is a refusal. What comes after a list that stood in and lacks more than half of it is believed only when it is still so
ten seconds later, for a registry that comes back may have lost its memory (see ``watch``).
"""

import asyncio
import weakref
from pathlib import Path
from typing import Any, Unpack

import msgspec

from registry.coldstart.files import SavedLists
from registry.coldstart.lastlist import WRITE_AGAIN_AFTER, LastList
from registry.directory import Directory, Registration, Watch, WatchStatus
from registry.errors import RegistryError
from registry.model import Snapshot
from registry.query import Filters, Query
from registry.stepwise import StepwiseWatch
from registry.timing import Clock
from registry.waiting import cancel, done_within
from registry.watch import HOLD_AFTER_RESET

# A registry that is there answers within hundredths of a second, one whose packets are dropped never.
PATIENCE = 2.0


class ColdStartDirectory:
    """A ``Directory`` over ``behind`` that keeps its lists in ``folder``."""

    def __init__(self, behind: Directory, folder: Path, *, clock: Clock) -> None:
        self.behind = behind
        self._lists = SavedLists(folder, behind.source)
        self._clock = clock
        self._lasts: weakref.WeakValueDictionary[Path, LastList] = weakref.WeakValueDictionary()
        self._known: set[LastList] = set()
        self._watches: weakref.WeakSet[ColdStartWatch] = weakref.WeakSet()

    @property
    def source(self) -> str:
        """See ``Directory``."""
        return self.behind.source

    async def lookup(self, service: str, **filters: Unpack[Filters]) -> Snapshot:
        """See ``Directory``; a saved list when the registry cannot answer."""
        last = self._last(Query(service, **filters))
        asking = asyncio.ensure_future(self.behind.lookup(service, **filters))
        try:
            if not await done_within(PATIENCE, asking, self._clock):
                saved = await last.stand_in(f"no answer within {PATIENCE:g} s")
                if saved is not None:
                    return saved
            fresh = await asking
        except RegistryError as error:
            saved = await last.stand_in(str(error)) if error.retryable else None
            if saved is None:
                raise
            return saved
        finally:
            await cancel(asking)
        return last.take(fresh)

    def watch(self, service: str, **filters: Unpack[Filters]) -> "ColdStartWatch":
        """See ``Directory``; it begins with the saved list when the registry does not answer."""
        watch = ColdStartWatch(self, self._last(Query(service, **filters)), self._clock)
        self._watches.add(watch)
        return watch

    async def register(self, registration: Registration) -> None:
        """See ``Directory``."""
        await self.behind.register(registration)

    async def registered(self, registration: Registration) -> bool:
        """See ``Directory``."""
        return await self.behind.registered(registration)

    async def beat(self, instance_id: str, note: str = "") -> None:
        """See ``Directory``."""
        await self.behind.beat(instance_id, note)

    async def maintenance(self, instance_id: str, on: bool, reason: str = "") -> None:
        """See ``Directory``."""
        await self.behind.maintenance(instance_id, on, reason)

    async def deregister(self, instance_id: str) -> None:
        """See ``Directory``."""
        await self.behind.deregister(instance_id)

    async def close(self) -> None:
        """See ``Directory``; what is still to be written is written."""
        for watch in list(self._watches):
            await watch.aclose()
        await self.behind.close()
        for last in list(self._known):
            await last.finish()

    def snapshot(self) -> dict[str, Any]:
        """For logs and status pages: the source, the folder, and how many lists stand in for the registry now."""
        standing_in = sum(last.standing_in is not None for last in self._known)
        return {"source": self.source, "folder": str(self._lists.folder), "standing_in": standing_in}

    def _last(self, query: Query) -> "LastList":
        # One that holds nothing lives no longer than its users: a stranger may ask for ever new names.
        last = LastList(self._lists, query, self._clock, self._known)
        return self._lasts.setdefault(self._lists.path(query), last)


class ColdStartWatch(StepwiseWatch):
    """A ``Watch`` over that of the directory behind. Everything happens inside ``anext``, and cancelling it is safe."""

    def __init__(self, directory: ColdStartDirectory, last: LastList, clock: Clock) -> None:
        super().__init__()
        self._directory = directory
        self._behind: Watch = directory.behind.watch(last.query.service, **last.query.filters)
        self._last = last
        self._clock = clock
        self._patient = True  # until the registry has had its time to answer first
        self._answer: Snapshot | None = None  # as it came, not yet believed
        self._believed: Snapshot | None = None
        self._ask_at: float | None = None  # when the answer in doubt is asked about again
        self._repeated = False  # the watch behind may come with what was believed already

    def status(self) -> WatchStatus:
        """See ``Watch``; while a saved list stands in, ``last_good_at`` is its own time."""
        status, saved = self._behind.status(), self._last.standing_in
        if self._believed is not None or saved is None:
            return status
        suspect = status.suspect or self._answer is not None
        return msgspec.structs.replace(status, last_good_at=saved.fetched_at, suspect=suspect)

    async def aclose(self) -> None:
        """See ``Watch``."""
        await super().aclose()
        await self._behind.aclose()

    async def _next_change(self) -> None:
        if self._answer is None:
            await self._receive()
        if self._answer is None:
            return  # a saved list is to be delivered
        answer = self._answer if self._believed else await self._confirm(self._answer)
        self._answer = None
        if not (self._repeated and self._believed and answer.instances == self._believed.instances):
            self._believed = self._undelivered = answer
            self._last.keep(answer)

    async def _receive(self) -> None:
        """Wait for an answer; or, the first time and not for long, for the lack of one."""
        pending = asyncio.ensure_future(anext(self._behind))
        try:
            if self._patient and not await done_within(PATIENCE, pending, self._clock):
                saved = await self._stand_in()
                if saved is not None and not pending.done():
                    self._patient = False
                    self._undelivered = saved
                    return
            self._patient = False
            while not await done_within(WRITE_AGAIN_AFTER, pending, self._clock):
                self._still_so()
        finally:
            await cancel(pending)
            if not pending.cancelled() and pending.exception() is None:
                self._answer = pending.result()
        pending.result()

    async def _confirm(self, answer: Snapshot) -> Snapshot:
        """Hold what came after a saved list until it may be believed, asking again."""
        while self._ask_at is not None or not self._last.believes(answer):
            now = self._clock.monotonic()
            self._ask_at = now + HOLD_AFTER_RESET if self._ask_at is None else self._ask_at
            self._repeated = True
            await self._clock.sleep(self._ask_at - now)
            try:
                answer = await self._directory.behind.lookup(self._last.query.service, **self._last.query.filters)
                self._answer, self._ask_at = answer, None
            except RegistryError:
                self._last.doubt_anew()
                self._ask_at = self._clock.monotonic() + HOLD_AFTER_RESET
        return answer

    def _still_so(self) -> None:
        """Keep the time at which the list was confirmed last."""
        good_at = self._behind.status().last_good_at
        if self._believed is not None and good_at is not None and good_at > self._believed.fetched_at:
            self._last.keep(msgspec.structs.replace(self._believed, fetched_at=good_at))

    async def _stand_in(self) -> Snapshot | None:
        if not self._behind.status().failures:
            return await self._last.stand_in(f"no answer within {PATIENCE:g} s")
        # A watch does not say whether what it met will pass. Asking does.
        try:
            snapshot = await self._directory.lookup(self._last.query.service, **self._last.query.filters)
        except RegistryError:
            return None
        return snapshot if snapshot.saved else None


def behind(directory: Directory) -> Directory:
    """Return the directory that asks the registry itself."""
    return directory.behind if isinstance(directory, ColdStartDirectory) else directory
