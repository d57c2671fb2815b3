"""Following one service with blocking queries: the rules as pure functions, and the loop that obeys them.

An answer is no proof of change: lists are compared and only real changes published. An outage never clears the list,
and an implausible fall (to nothing, or by more than half) is believed only when a second read, not stale and after a
short hold, agrees; meanwhile the old list stays, marked *suspect*. Index rules and wait jitter are those of Consul's
documentation of blocking queries; back-off is full jitter, 0.25 to 30 s, for ever.

Calls are rate-limited by two buckets. The first few changes go through at once, then one call per second, fewer for
large answers, so that a watcher of a churning service reads about 1 MB/s at most (one call per 13 s at 10,000
instances). Calls that change nothing (errors, the list as it was) have less: two at once, then the same pace, so that
a server that answers nonsense, or wakes its watchers for nothing, cannot make them spin.
"""

import random
from collections.abc import Awaitable
from enum import Enum, auto
from typing import Protocol

import msgspec

from registry.directory import WatchStatus
from registry.errors import RegistryError
from registry.model import Instance, Snapshot
from registry.stepwise import StepwiseWatch
from registry.timing import Backoff, Clock, TokenBucket

WAIT = 60.0
HOLD = 1.0
# Instances register again within two beats of theirs (registration.BEAT).
HOLD_AFTER_RESET = 10.0
FULL_READ_EVERY = 300.0
# Less than any registry needs to come back with nothing.
SOON = 0.1
BURST = 4
PACE = 1e6
_INTERVALS = (1.0, 15.0)


class Reading(msgspec.Struct, frozen=True):
    """One answer: the list, and how many bytes and calls it took."""

    snapshot: Snapshot
    size: int = 0
    calls: int = 1


class Reader(Protocol):
    """Asks for the list once.

    ``index`` 0 answers at once; otherwise the answer may take ``WAIT`` seconds and their jitter. Not ``stale``: from
    the leader, or not at all. Raises ``RegistryError``.
    """

    def __call__(self, *, index: int, stale: bool) -> Awaitable[Reading]:
        """See the class."""
        ...


class Verdict(Enum):
    """What to do with a list that came in."""

    SAME = auto()
    PUBLISH = auto()
    CONFIRM = auto()


def judge(old: tuple[Instance, ...] | None, new: tuple[Instance, ...]) -> Verdict:
    """Compare with the list last published (None: there is none yet)."""
    if old is None:
        return Verdict.PUBLISH
    if old == new:
        return Verdict.SAME
    return Verdict.CONFIRM if 2 * len(new) < len(old) else Verdict.PUBLISH


def next_index(asked: int, answered: int) -> int:
    """The index to ask with next: never below 1 after an answer, and 0 (start again) when it went backwards."""
    answered = max(1, answered)
    return 0 if answered < asked else answered


def hold_for(believed: int, answered: int) -> float:
    """Seconds to keep the old list before a fall is asked about again, by the index of both answers.

    An index that went backwards is a registry that lost its memory: what it has forgotten is being told again.
    """
    return HOLD_AFTER_RESET if answered < believed else HOLD


def client_timeout(wait: float) -> float:
    """Seconds a client allows a blocking query: the server adds up to a sixteenth of ``wait`` on its own."""
    return wait * (1 + 1 / 16) + 10.0


def interval_for(size: int, pace: float = PACE) -> float:
    """Seconds between calls under churn, by the size of the last answer in bytes and the bytes per second to read."""
    least, most = _INTERVALS
    return min(most, max(least, size / pace))


class BlockingWatch(StepwiseWatch):
    """A ``Watch`` over a ``Reader``. Everything happens inside ``anext``; nothing runs between two of them.

    ``pace``: bytes per second to read at most under churn. Cancelling an ``anext`` loses nothing: the next one goes on
    from the same index.
    """

    def __init__(self, read: Reader, *, clock: Clock, rng: random.Random, pace: float = PACE) -> None:
        super().__init__()
        self._read = read
        self._clock = clock
        self._rng = rng
        self._pace = pace
        self._backoff = Backoff()
        self._calls = TokenBucket(burst=BURST, interval=_INTERVALS[0])
        # Taken from after a call and not before it: one at once and the one that follows make two.
        self._useless_calls = TokenBucket(burst=1, interval=_INTERVALS[0])
        self._spent = 0  # calls since the last verdict
        self._pause = 0.0  # seconds that verdict asks for before the next call
        self._due: float | None = None
        self._changed_at: float | None = None  # when the last answer came, if it was a change
        self._size = 0
        self._index = 0
        self._instances: tuple[Instance, ...] | None = None  # as last published
        self._believed = 0  # the index of the last answer taken for true
        self._next_full_read: float | None = None
        self._status = WatchStatus(live=False)

    def status(self) -> WatchStatus:
        """See ``Watch``."""
        return self._status

    async def _next_change(self) -> None:
        while True:
            await self._turn()
            try:
                fresh, verdict = await self._believable()
            except RegistryError as error:
                self._after_failure(error)
                continue
            self._believed = fresh.index
            self._status = WatchStatus(live=True, last_good_at=self._clock.time())
            first = self._instances is None
            self._charge(useful=0 if first or verdict is Verdict.SAME else 1)
            self._changed_at = None
            if verdict is not Verdict.SAME:
                self._changed_at = self._clock.monotonic()
                # Kept until somebody has it: a cancelled ``anext`` must not lose a change.
                self._instances, self._undelivered = fresh.instances, fresh
                return

    async def _turn(self) -> None:
        """Wait until the next call may go; a cancelled wait goes on where it was."""
        now = self._clock.monotonic()
        if self._due is None:
            self._due = now + max(self._calls.take(now, interval_for(self._size, self._pace)), self._pause)
        await self._clock.sleep(self._due - now)
        self._due = None
        if self._changed_at is not None and self._clock.monotonic() > self._changed_at + SOON:
            # A registry that lost its memory meanwhile would wait with its answer for an index far in its future. In a
            # churn the list is due anyway; after it, this costs one more.
            self._index = 0

    async def _believable(self) -> tuple[Snapshot, Verdict]:
        """Ask, and once more of the leader when the answer is hard to believe."""
        fresh = await self._ask(stale=True)
        verdict = judge(self._instances, fresh.instances)
        if verdict is Verdict.CONFIRM:
            self._status = msgspec.structs.replace(self._status, suspect=True)
            self._index = 0
            await self._clock.sleep(hold_for(self._believed, fresh.index))
            fresh = await self._ask(stale=False)
            verdict = judge(self._instances, fresh.instances)
        return fresh, verdict

    async def _ask(self, *, stale: bool) -> Snapshot:
        now = self._clock.monotonic()
        if self._next_full_read is None:
            # Anywhere in the period, so that watchers started together stay apart.
            self._next_full_read = now + FULL_READ_EVERY * (1 - self._rng.random())
        elif now >= self._next_full_read:
            # Against a wake that was missed.
            self._index = 0
            self._next_full_read = now + FULL_READ_EVERY
        self._spent += 1
        reading = await self._read(index=self._index, stale=stale)
        self._spent += reading.calls - 1
        self._size = reading.size
        self._index = next_index(self._index, reading.snapshot.index)
        return reading.snapshot

    def _after_failure(self, error: RegistryError) -> None:
        failures = self._status.failures + 1
        self._status = msgspec.structs.replace(self._status, live=False, failures=failures, last_error=str(error))
        # A blocking query would not answer before the next change; what became of the list meanwhile is wanted now.
        self._index = 0
        self._charge(useful=0)
        self._pause = max(self._pause, self._backoff.delay(failures - 1, self._rng))

    def _charge(self, *, useful: int) -> None:
        """Pay for the calls since the last verdict, of which so many brought a change."""
        now, interval = self._clock.monotonic(), interval_for(self._size, self._pace)
        waits = [self._useless_calls.take(now, interval) for _ in range(self._spent - useful)]
        self._spent, self._pause = 0, max(waits, default=0.0)
