"""Time, and how long to wait: the only module of the project that reads the real clock.

Everything that decides by time takes a ``Clock``; everything that decides by chance takes a ``random.Random``. Tests
hand in ``registry.testing.ManualClock``. The back-off is "full jitter" (a uniform draw below an exponential ceiling),
which spreads a herd of clients better than a jittered exponential (M. Brooker, "Exponential Backoff And Jitter",
AWS Architecture Blog, 2015). Times are seconds throughout.
"""

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean anything."""
        ...

    def time(self) -> float:
        """Seconds since the epoch, for people and for files."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; 0 or less gives other tasks one turn."""
        ...


class SystemClock:
    """The machine's own clock."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)

    async def sleep(self, seconds: float) -> None:
        """See ``Clock``."""
        await asyncio.sleep(max(0.0, seconds))


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: attempt n (from 0) waits a uniform draw from [0, min(cap, base * 2**n)) seconds."""

    base: float = 0.25
    cap: float = 30.0

    def delay(self, attempt: int, rng: random.Random) -> float:
        """Seconds to wait before trying again after failure number ``attempt`` (from 0)."""
        ceiling = min(self.cap, self.base * 2.0 ** min(attempt, 63))
        return rng.random() * ceiling


class TokenBucket:
    """How soon the next call may go: ``burst`` at once, then one per ``interval`` seconds.

    Pure but for its own two numbers; the caller does the waiting.
    """

    __slots__ = ("_burst", "_interval", "_level", "_updated")

    def __init__(self, *, burst: int, interval: float) -> None:
        self._burst = float(burst)
        self._interval = interval
        self._level = float(burst)
        self._updated: float | None = None

    def take(self, now: float, interval: float | None = None) -> float:
        """Take one token and return the seconds to wait until it is due (0 when there was one).

        ``interval``: from now on refill at this pace instead.
        """
        if self._updated is not None:
            self._level = min(self._burst, self._level + (now - self._updated) / self._interval)
        self._interval = interval or self._interval
        self._updated = now
        self._level -= 1.0
        return max(0.0, -self._level * self._interval)
