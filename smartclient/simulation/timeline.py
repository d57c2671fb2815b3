"""Virtual time: a heap of what is going to happen, and the clock that everything simulated reads.

An event is a function and its one argument. Events of the same moment happen in the order in which they were put down,
so a run is the same every time. The clock does not begin at 0, nor does a machine's.
"""

import heapq
import itertools
from collections.abc import Callable
from typing import Any

BEGIN = 1000.0


class Timeline:
    """A ``registry.timing.Clock`` that jumps from event to event."""

    __slots__ = ("_heap", "_order", "now")

    def __init__(self) -> None:
        self.now = BEGIN
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = itertools.count()

    def at(self, when: float, act: Callable[[Any], None], what: Any = None) -> None:
        """Call ``act(what)`` at ``when``."""
        heapq.heappush(self._heap, (when, next(self._order), act, what))

    def run(self) -> None:
        """Let everything happen, and what follows from it, until nothing is left."""
        heap, pop = self._heap, heapq.heappop
        while heap:
            self.now, _, act, what = pop(heap)
            act(what)

    def monotonic(self) -> float:
        """See ``Clock``."""
        return self.now

    def time(self) -> float:
        """See ``Clock``."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """See ``Clock``; nothing simulated may wait in this way."""
        raise NotImplementedError("virtual time is moved by events, not by sleeping")
