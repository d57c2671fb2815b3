"""One timer for all the waits of a pool: most end long before their time, and a timer each costs more than a list.

The timer stands at the earliest time that anybody had when it was set. When it rings, whose time is up is ended, and it
is set to the earliest of the others: once in the length of a wait or so, however many there are.
"""

import asyncio
import math

from smartclient.wire.progress import Progress


class Deadlines:
    """What is waited for in ``loop``, and until when, by its clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._until: dict[Progress, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings = math.inf

    def add(self, progress: Progress, until: float) -> None:
        """End ``progress`` at ``until``, unless it is removed before."""
        self._until[progress] = until
        if until < self._rings:
            self._set(until)

    def remove(self, progress: Progress) -> None:
        """Nothing is waited for any more."""
        self._until.pop(progress, None)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, until: float) -> None:
        self.close()
        self._rings = until
        self._timer = self._loop.call_at(until, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        late = [progress for progress, until in self._until.items() if until <= now]
        for progress in late:
            del self._until[progress]
            progress.end()
        self._timer, self._rings = None, math.inf
        if self._until:
            self._set(min(self._until.values()))
