"""One list that is asked for: its rows, its recent changes, and who waits for the next one.

However many ask, a list is encoded once: readers of it are sent the same bytes. A list differs from the service's own
by its filters, or is a client's subset of such a list.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from registry.lookup.journal import PIECE, Journal
from registry.lookup.subset import Subset
from registry.lookup.turns import ROWS, Turns, batches
from registry.lookup.wire import ROWS_PER_LINE, Change, Listing, Part, Row, line
from registry.model import Instance
from registry.query import Query


class Difference(msgspec.Struct, frozen=True):
    """What turned a list into that of ``index``: the rows new or replaced, by id; the ids gone; the ids new."""

    index: int
    changed: Mapping[str, Row]
    removed: Collection[str]
    added: Collection[str] = ()


class Whole(msgspec.Struct, frozen=True):
    """A list, encoded: ``segments`` of rows, with the place it has in the journal."""

    place: int
    index: int
    segments: tuple[bytes, ...]

    def parts(self, stale_for: float) -> Iterator[bytes]:
        """Give the lines of a snapshot."""
        count = len(self.segments)
        for number, segment in enumerate(self.segments, 1):
            empty = line(Part(index=self.index, part=number, parts=count, stale_for=stale_for, instances=()))
            yield _filled(empty, segment, b"]}\n")

    def listing(self, service: str, stale_for: float) -> list[bytes]:
        """Give the pieces of an answer."""
        empty = msgspec.json.encode(Listing(service=service, index=self.index, stale_for=stale_for, instances=()))
        rest = [piece for segment in self.segments[1:] for piece in (b",", segment)]
        return [empty.removesuffix(b"]}"), self.segments[0], *rest, b"]}"]


class Follower(Protocol):
    """Somebody who is told of each change as it comes."""

    def tell(self, *, heartbeat: bool = False) -> None:
        """Send what is new, and with ``heartbeat`` something in any case."""
        ...

    def wake(self) -> None:
        """Look whether the view is closed."""
        ...


class View:
    """A list and those who follow it. ``users``: requests that hold it now. ``stale_for`` gives seconds."""

    def __init__(self, index: int, now: float, turns: Turns, stale_for: Callable[[], float]) -> None:
        self.rows: dict[str, Row] = {}
        self.index = index
        self.journal = Journal(index)
        self.live: set[Follower] = set()
        self.users = 0
        self.used_at = now
        self.closed = False
        self.stale_for = stale_for
        self._turns = turns
        self._waiting: set[asyncio.Future[None]] = set()
        self._whole: Whole | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing would miss it."""
        return not self.users

    def change(self, change: Difference) -> Difference | None:
        """Take a change in; what of it is one, or None."""
        changed = {key: row for key, row in change.changed.items() if self.rows.get(key) != row}
        removed = [key for key in change.removed if key in self.rows]
        if not changed and not removed:
            return None
        added = [key for key in changed if key not in self.rows]
        self.rows.update(changed)
        for key in removed:
            del self.rows[key]
        self.index = change.index
        if len(changed) + len(removed) > ROWS_PER_LINE:
            self.journal.renew(self.index)
        else:
            told = Change(index=self.index, changed=tuple(changed.values()), removed=tuple(removed))
            self.journal.append(line(told), self.index, len(self.rows))
        return Difference(self.index, changed, removed, added)

    async def changed(self) -> None:
        """Wait for the next change, or until the view is closed."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    async def deliver(self) -> None:
        """Tell everybody who follows, a few at a time."""
        for follower in list(self.live):
            follower.tell()
            await self._turns.breathe()
        for future in list(self._waiting):
            if not future.done():
                future.set_result(None)
                await self._turns.breathe()

    async def beat(self) -> None:
        """Tell all readers that nothing has changed."""
        for follower in list(self.live):
            follower.tell(heartbeat=True)
            await self._turns.breathe()

    def close(self) -> None:
        """End it for everybody who follows."""
        self.closed = True
        for follower in list(self.live):
            follower.wake()
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def whole(self, *, newest: bool = False) -> Whole:
        """Return the list encoded; a slightly older one that the journal leads on from will do unless ``newest``."""
        async with self._turns.encoding:
            known = self._whole
            if known is not None and (known.place == self.journal.end if newest else self.journal.holds(known.place)):
                return known
            place, index, rows = self.journal.end, self.index, [self.rows[key] for key in sorted(self.rows)]
            segments: list[bytes] = []
            for batch in batches(rows):
                segments += _segments(batch)
                if len(rows) > ROWS:
                    await self._turns.next()
            self._whole = Whole(place, index, tuple(segments) or (b"",))
            return self._whole


class Filtered(View):
    """The instances a query wants, and the subsets taken of them."""

    def __init__(self, query: Query, index: int, now: float, turns: Turns, stale_for: Callable[[], float]) -> None:
        super().__init__(index, now, turns, stale_for)
        self.subsets: dict[tuple[int, str], Chosen] = {}
        self._query = query

    @property
    def idle(self) -> bool:
        """See ``View``."""
        return not self.users and not self.subsets

    async def build(self, instances: Mapping[str, Instance], rows: Mapping[str, Row]) -> None:
        """Fill it from the service's list."""
        for batch in batches(list(instances.values())):
            self.rows |= {each.id: rows[each.id] for each in batch if self._query.wants(each)}
            await self._turns.next()

    async def take(self, change: Difference, instances: Mapping[str, Instance]) -> Difference | None:
        """Take a change of the service's list in, which is ``instances`` now; what of it concerns this one, or None."""
        wanted: dict[str, Row] = {}
        unwanted: list[str] = []
        for batch in batches(list(change.changed)):
            for each in batch:
                if self._query.wants(instances[each]):
                    wanted[each] = change.changed[each]
                else:
                    unwanted.append(each)
            if len(change.changed) > ROWS:
                await self._turns.next()
        return self.change(Difference(change.index, wanted, [*change.removed, *unwanted]))


class Chosen(View):
    """A client's own part of a filtered list."""

    def __init__(self, client: str, limit: int, of: Filtered, now: float, turns: Turns) -> None:
        super().__init__(of.index, now, turns, of.stale_for)
        self._subset = Subset(client, limit)

    async def build(self, rows: Mapping[str, Row]) -> None:
        """Choose from the filtered list."""
        rows = dict(rows)  # it may change meanwhile
        await self._scan(rows)
        self.rows = {key: rows[key] for key in self._subset.members}

    async def take(self, change: Difference, rows: Mapping[str, Row]) -> None:
        """Take a change of the filtered list in, which is ``rows`` now."""
        other = self._subset.update(change.added, change.removed)
        if self._subset.thin:
            await self._scan(rows)
        if other or not self.rows.keys().isdisjoint(change.changed):
            members = self._subset.members
            present = {key: rows[key] for key in sorted(members)}
            self.change(Difference(change.index, present, [key for key in self.rows if key not in members]))

    async def _scan(self, rows: Mapping[str, Row]) -> None:
        for _ in self._subset.scan(list(rows)):
            await self._turns.next()


def _filled(encoded: bytes, segment: bytes, tail: bytes) -> bytes:
    """Put rows into the empty list that something encoded ends with."""
    return b"".join((encoded.removesuffix(tail), segment, tail))


def _segments(rows: Sequence[Row]) -> Iterator[bytes]:
    """Encode rows, without the brackets of a list, in segments of ``PIECE`` where the rows allow it."""
    segment = msgspec.json.encode(rows)[1:-1]
    if len(segment) <= PIECE or len(rows) == 1:
        yield segment
    else:
        yield from _segments(rows[: len(rows) // 2])
        yield from _segments(rows[len(rows) // 2 :])
