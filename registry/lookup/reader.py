"""One reader of a stream.

While it keeps up it is told by whoever makes the change, and its own task sleeps. When it does not, it is left alone
until it has taken what was written, then catches up by itself: from the journal, or with a new snapshot. So what is
kept for a slow reader is one piece, whatever happens meanwhile.
"""

import asyncio
from dataclasses import dataclass

from registry.lookup.outlet import Outlet, Patience
from registry.lookup.view import View
from registry.lookup.wire import Heartbeat, Resync, line
from registry.timing import Clock

# Bytes not taken with which a reader does not keep up.
BEHIND = 16 * 1024
_RESYNC = line(Resync())


@dataclass(slots=True)
class Tally:
    """What was sent to all readers."""

    deltas: int = 0
    snapshots: int = 0
    resyncs: int = 0
    cut_off: int = 0


class Reader:
    """A ``Follower`` at the other end of an ``Outlet``. ``place``: where in the journal it starts; None: nowhere."""

    __slots__ = ("_clock", "_outlet", "_patience", "_place", "_rest", "_tally", "_view")

    def __init__(
        self, view: View, outlet: Outlet, place: int | None, *, clock: Clock, patience: Patience, tally: Tally
    ) -> None:
        self._view = view
        self._outlet = outlet
        self._place = place
        self._clock = clock
        self._patience = patience
        self._tally = tally
        self._rest: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Follow until the view is closed. Raises ``ConnectionError`` when the client is gone."""
        while True:
            await self._catch_up()
            if self._view.closed:
                return
            self._rest = asyncio.get_running_loop().create_future()
            self._view.live.add(self)
            try:
                await self._rest
            finally:
                self._view.live.discard(self)

    def tell(self, *, heartbeat: bool = False) -> None:
        """See ``Follower``."""
        journal, outlet = self._view.journal, self._outlet
        if self._place is None or not journal.holds(self._place) or (heartbeat and outlet.backlog):
            self.wake()
            return
        data, reached = journal.since(self._place)
        self._tally.deltas += reached - self._place
        self._place = reached
        outlet.write(data + self._heartbeat() if heartbeat else data)
        if reached < journal.end or outlet.backlog > BEHIND:
            self.wake()

    def wake(self) -> None:
        """See ``Follower``."""
        self._view.live.discard(self)
        if self._rest is not None and not self._rest.done():
            self._rest.set_result(None)

    async def _catch_up(self) -> None:
        journal = self._view.journal
        await self._drained()
        while not self._view.closed and self._place != journal.end:
            if self._place is None or not journal.holds(self._place):
                await self._start_again(self._place)
            else:
                data, reached = journal.since(self._place)
                self._tally.deltas += reached - self._place
                self._place = reached
                self._outlet.write(data)
                await self._drained()
        if self._view.stale_for() >= 1:
            # Whoever was behind when the registry went away was not told.
            self._outlet.write(self._heartbeat())

    async def _start_again(self, place: int | None) -> None:
        if place is not None and self._view.journal.missed(place):
            self._tally.resyncs += 1
            self._outlet.write(_RESYNC)
        whole = await self._view.whole()
        self._tally.snapshots += 1
        for part in whole.parts(self._view.stale_for()):
            self._outlet.write(part)
            await self._drained()
        self._place = whole.place

    async def _drained(self) -> None:
        with self._patience.waiting(self._outlet.transport, self._clock.monotonic()):
            await self._outlet.drained()

    def _heartbeat(self) -> bytes:
        return line(Heartbeat(index=self._view.index, stale_for=self._view.stale_for()))
