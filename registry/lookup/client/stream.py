"""Following one service through a look-up service's stream, and from one service to the next when it breaks.

What a living stream says is believed: the service has confirmed it. The first list of a new connection is compared
with the one published last, and an implausible fall (to nothing, or by more than half) is believed only when a second
look-up, after a hold and at another address where there is one, agrees; meanwhile the old list stays. No line for
``SILENCE`` is a dead connection. Back-off is full jitter, 0.25 to 30 s, for ever, and begins anew after a connection
that lasted; two connections in one second are the most that a failing service is asked for.
"""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, Protocol

import msgspec

from registry.directory import WatchStatus
from registry.errors import InvalidAnswer, RegistryError, RegistryUnavailable
from registry.lookup.client.lines import LARGEST
from registry.lookup.client.replica import Replica
from registry.lookup.wire import HEARTBEAT, Part, decode_line
from registry.model import Instance, Snapshot
from registry.query import Query
from registry.stepwise import StepwiseWatch
from registry.timing import Backoff, Clock, TokenBucket
from registry.waiting import cancel, done_within
from registry.watch import HOLD_AFTER_RESET, Verdict, judge

# Heartbeats come every 15 s: two have been missed, and some.
SILENCE = 40.0
# A service this long out of touch with its registry is no living source; Consul's reads have the same bound.
OUT_OF_TOUCH = 5.0


class Stream(Protocol):
    """One open stream of lines."""

    address: str

    @property
    def ready(self) -> bool:
        """Whether a line is here already."""
        ...

    async def more(self) -> bool:
        """Wait for the next line; False when the service ended the stream. Raises ``RegistryError``.

        Cancelling it loses nothing.
        """
        ...

    def take(self) -> bytes:
        """The next line, which is there."""
        ...

    def close(self) -> None:
        """Close the connection; twice is fine."""
        ...


class Services(Protocol):
    """The look-up services a watch goes round among."""

    @property
    def source(self) -> str:
        """All of them, for people."""
        ...

    async def stream(self, query: Query) -> Stream:
        """Open a stream at the next one. Raises ``RegistryError``."""
        ...

    async def lookup(self, query: Query, *, last: str = "") -> Snapshot:
        """Ask once, the address ``last`` only when no other answers. Raises ``RegistryError``."""
        ...

    def lost(self, address: str) -> None:
        """Take note that a stream from here has ended."""
        ...


class _Connection:
    """A stream and what has become of it."""

    def __init__(self, stream: Stream, service: str, now: float) -> None:
        self.stream = stream
        self.replica = Replica(service)
        self.opened_at = self.heard_at = now
        self.list_bytes = 0  # of the snapshot that came last, as far as it came
        self.unjudged = False  # the replica may hold another list than was published
        self.trusted = False  # its first list has been believed
        self.held_until: float | None = None


class StreamWatch(StepwiseWatch):
    """A ``Watch`` over ``Services``. Everything happens inside ``anext``; nothing runs between two of them.

    Cancelling an ``anext`` loses nothing: the next one goes on with the same connection and the same pauses.
    """

    def __init__(self, query: Query, services: Services, *, clock: Clock, rng: random.Random) -> None:
        super().__init__()
        self._query = query
        self._services = services
        self._clock = clock
        self._rng = rng
        self._backoff = Backoff()
        self._bucket = TokenBucket(burst=2, interval=1.0)
        self._tries = 0
        self._due: float | None = None  # when the next connection may be made
        self._connection: _Connection | None = None
        self._instances: tuple[Instance, ...] | None = None  # as last published
        self._status = WatchStatus(live=False)

    def status(self) -> WatchStatus:
        """See ``Watch``; not ``live`` also while the service itself is out of touch with its registry."""
        return self._status

    async def aclose(self) -> None:
        """See ``Watch``."""
        await super().aclose()
        self._drop()

    def __del__(self) -> None:
        # Let go of without ``aclose``, as other watches may be: no connection is left behind.
        self._drop()

    async def _next_change(self) -> None:
        while self._undelivered is None:
            try:
                connection = self._connection or await self._connect()
                if connection.unjudged:
                    await self._judge(connection)
                else:
                    await self._read(connection)
            except RegistryError as error:
                self._failed(error)

    async def _connect(self) -> _Connection:
        if self._due is None:
            self._due = self._clock.monotonic() + self._bucket.take(self._clock.monotonic())
        await self._clock.sleep(self._due - self._clock.monotonic())
        self._due = None
        stream = await self._services.stream(self._query)
        self._connection = _Connection(stream, self._query.service, self._clock.monotonic())
        return self._connection

    async def _read(self, connection: _Connection) -> None:
        stream, replica = connection.stream, connection.replica
        left = connection.heard_at + SILENCE - self._clock.monotonic()
        try:
            more = stream.ready or await _within(left, stream.more(), self._clock)
        except TimeoutError as error:
            raise RegistryUnavailable(f"{stream.address} said nothing for {SILENCE:g} s") from error
        if not more:
            if not connection.trusted:
                raise InvalidAnswer(f"{stream.address} ended the stream before the list was whole")
            self._ended()
            return
        line = stream.take()
        try:
            event = decode_line(line)
            connection.unjudged = replica.apply(event)
        except InvalidAnswer as error:
            raise InvalidAnswer(f"{stream.address}: {error}") from error
        if isinstance(event, Part):
            connection.list_bytes = len(line) + (connection.list_bytes if event.part > 1 else 0)
            if connection.list_bytes > LARGEST:
                raise InvalidAnswer(f"{stream.address} sent a list of more than {LARGEST >> 20} MB")
        connection.heard_at = self._clock.monotonic()
        if connection.trusted:
            self._good(connection)
        if stream.ready:
            await self._clock.sleep(0)  # a long list is read line by line, and others want the loop too

    async def _judge(self, connection: _Connection) -> None:
        """Publish the replica's list if it is another one than the last, and no implausible one."""
        fresh = connection.replica.instances
        if not connection.trusted and judge(self._instances, fresh) is Verdict.CONFIRM:
            await self._confirm(connection)
        connection.trusted = True
        connection.unjudged = False
        self._good(connection)
        if fresh != self._instances:
            # Kept until somebody has it: a cancelled ``anext`` must not lose a change.
            self._instances = fresh
            self._undelivered = Snapshot(
                service=self._query.service,
                index=connection.replica.index,
                instances=fresh,
                fetched_at=self._clock.time(),
                stale_for=connection.replica.stale_for,
                source=self._services.source,
            )

    async def _confirm(self, connection: _Connection) -> None:
        self._status = msgspec.structs.replace(self._status, suspect=True)
        if connection.held_until is None:
            # Long enough for a registry that lost its memory to be told again: indexes of two services do not compare.
            connection.held_until = self._clock.monotonic() + HOLD_AFTER_RESET
        await self._clock.sleep(connection.held_until - self._clock.monotonic())
        second = await self._services.lookup(self._query, last=connection.stream.address)
        if judge(self._instances, second.instances) is not Verdict.CONFIRM:
            raise RegistryUnavailable(
                f"{connection.stream.address} lists {len(connection.replica.instances)} of "
                f"{len(self._instances or ())} instances, and a second look-up does not agree"
            )
        connection.heard_at = self._clock.monotonic()  # nobody listened meanwhile

    def _good(self, connection: _Connection) -> None:
        stale_for = connection.replica.stale_for
        live = stale_for <= OUT_OF_TOUCH
        gone = f"{connection.stream.address} has been out of touch with its registry for {stale_for:.0f} s"
        self._status = WatchStatus(
            live=live, last_good_at=self._clock.time() - stale_for, last_error="" if live else gone
        )

    def _ended(self) -> None:
        """A service that stops says goodbye: no fault of it, and the next one is asked at once."""
        self._status = msgspec.structs.replace(self._status, live=False)
        self._pause(at_once=True)

    def _failed(self, error: RegistryError) -> None:
        self._status = msgspec.structs.replace(
            self._status, live=False, failures=self._status.failures + 1, last_error=str(error)
        )
        self._pause(at_once=False)

    def _pause(self, *, at_once: bool) -> None:
        """Drop the connection and say when the next may be made."""
        now = self._clock.monotonic()
        if self._connection is not None and now - self._connection.opened_at >= HEARTBEAT:
            self._tries = 0
        pause = 0.0 if at_once and not self._tries else self._backoff.delay(self._tries, self._rng)
        self._tries += 1
        self._due = now + max(pause, self._bucket.take(now))
        if self._connection is not None:
            self._services.lost(self._connection.stream.address)
        self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.stream.close()


async def _within(seconds: float, work: Coroutine[Any, Any, bool], clock: Clock) -> bool:
    """What ``work`` gives, unless it takes longer. Raises ``TimeoutError``; ``work`` is cancelled then."""
    task = asyncio.ensure_future(work)
    try:
        if not await done_within(seconds, task, clock):
            raise TimeoutError
        return task.result()
    finally:
        await cancel(task)
