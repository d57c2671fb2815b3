"""The last good list for one question, in this process and on disk: when to write it, and when to live on it."""

import asyncio
import logging

import msgspec

from registry.coldstart.files import SavedLists
from registry.model import Snapshot
from registry.query import Query
from registry.timing import Clock
from registry.waiting import cancel, done_within
from registry.watch import HOLD_AFTER_RESET, Verdict, judge
from registry.wording import length, printable

log = logging.getLogger(__name__)

WRITE_EVERY = 1.0
# So that the age of a list that never changes is the time since it was confirmed, give or take this.
WRITE_AGAIN_AFTER = 300.0


class LastList:
    """The last good list for one question: kept, and given when the registry cannot. In ``known`` once there is one."""

    def __init__(self, lists: SavedLists, query: Query, clock: Clock, known: "set[LastList]") -> None:
        self.query = query
        self._lists = lists
        self._clock = clock
        self._known = known
        self._last: Snapshot | None = None  # as the registry last gave it to this process
        self._stands_in: Snapshot | None = None  # what callers live on, from an outage to the next believed answer
        self._doubted_at: float | None = None
        self._unwritten: Snapshot | None = None
        self._writer: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    @property
    def standing_in(self) -> Snapshot | None:
        """The saved list that callers live on, if they do."""
        return self._stands_in

    async def stand_in(self, reason: str) -> Snapshot | None:
        """Return the list to live on while the registry cannot answer, None when there is none."""
        if self._stands_in is None:
            saved = self._last or await asyncio.to_thread(self._read)
            if saved is None:
                return None
            age = length(self._clock.time() - saved.fetched_at)
            log.warning("the list of %s is the one saved %s ago: %s", printable(self.query.service), age, reason)
            self._stands_in = msgspec.structs.replace(saved, saved=True, source=f"{saved.source} (saved)")
            self._known.add(self)
        return self._stands_in

    def believes(self, fresh: Snapshot) -> bool:
        """Whether an answer may take the place of the list that stands in; asked again later, it may well."""
        if self._stands_in is not None:
            if judge(self._stands_in.instances, fresh.instances) is Verdict.CONFIRM:
                now = self._clock.monotonic()
                self._doubted_at = now if self._doubted_at is None else self._doubted_at
                if now < self._doubted_at + HOLD_AFTER_RESET:
                    return False
            log.info("%s is looked up at the registry again", printable(self.query.service))
        self._stands_in = self._doubted_at = None
        return True

    def doubt_anew(self) -> None:
        """Start the time after which an implausible answer is believed again: the registry went away meanwhile."""
        self._doubted_at = None

    def take(self, fresh: Snapshot) -> Snapshot:
        """Return an answer, kept for later; or the list that stands in, while the answer is in doubt."""
        if not self.believes(fresh) and self._stands_in is not None:
            return self._stands_in
        last = self._last
        if last is None or fresh.fetched_at >= last.fetched_at + WRITE_AGAIN_AFTER or fresh.instances != last.instances:
            self.keep(fresh)
        return fresh

    def keep(self, fresh: Snapshot) -> None:
        """Write a list out, soon and not too often. An empty one is no help to anybody and not kept."""
        if not fresh.instances:
            return
        self._last = self._unwritten = fresh
        self._known.add(self)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name=f"save {self.query.service}")

    async def finish(self) -> None:
        """Write what is unwritten, now."""
        self._hurry.set()
        if self._writer is not None:
            await self._writer
        self._hurry.clear()

    async def _write(self) -> None:
        while (fresh := self._unwritten) is not None:
            self._unwritten = None
            await asyncio.to_thread(self._lists.write, self.query, fresh, self._clock.time())
            hurry = asyncio.ensure_future(self._hurry.wait())
            try:
                await done_within(WRITE_EVERY, hurry, self._clock)
            finally:
                await cancel(hurry)

    def _read(self) -> Snapshot | None:
        """Take the newer of the answer to this very question and what the list of all says to it."""
        exact = self._lists.read(self.query)
        everything = Query(self.query.service, passing_only=False)
        all_of_it = None if self.query == everything else self._lists.read(everything)
        if all_of_it is not None and (exact is None or all_of_it.fetched_at > exact.fetched_at):
            exact = msgspec.structs.replace(
                all_of_it, instances=tuple(each for each in all_of_it.instances if self.query.wants(each))
            )
        return exact if exact is not None and exact.instances else None
