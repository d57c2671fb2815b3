"""Long work in short turns, so that a list of ten thousand does not hold the event loop.

Also, of what takes many turns, one thing is done at a time: a thousand such jobs side by side would leave as little
room for anything else as a single long one.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import TypeVar

from registry.timing import Clock

# Rows filtered, compared or encoded in a turn: about a millisecond.
ROWS = 500
# How long small things may follow one another, in seconds.
TURN = 0.002

_T = TypeVar("_T")


class Turns:
    """Gives the event loop its turn."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = 0.0
        self.filtering = asyncio.Lock()
        self.choosing = asyncio.Lock()
        self.encoding = asyncio.Lock()

    async def next(self) -> None:
        """Let everything else that is ready run."""
        await self._clock.sleep(0)

    async def breathe(self) -> None:
        """Between two small things: let the others run when this turn has lasted ``TURN``."""
        if self._clock.monotonic() - self._began > TURN:
            await self.next()
            self._began = self._clock.monotonic()


def batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Cut into pieces of ``ROWS``."""
    for start in range(0, len(items), ROWS):
        yield items[start : start + ROWS]
