"""All services that are followed now, their bounds, and the one clock tick that serves them all."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase

from registry.directory import Directory
from registry.errors import ConfigurationError
from registry.lookup.feed import Feed
from registry.lookup.outlet import Patience
from registry.lookup.question import Question
from registry.lookup.reader import Tally
from registry.lookup.refused import full, not_found, unavailable
from registry.lookup.turns import Turns
from registry.lookup.view import View
from registry.rules import ensure_name
from registry.timing import Clock
from registry.waiting import within

log = logging.getLogger(__name__)

TICK = 1.0
# Seconds after which a service nobody asks for is no longer followed.
FEED_IDLE = 600.0
# Seconds a request waits for the first list of a service.
FIRST_LIST = 5.0
_LONGEST_NAME = 256


class Hub:
    """``allow``: globs of service names, empty for all. Not more than ``services`` are followed, for ``readers``."""

    def __init__(
        self,
        directory: Directory,
        *,
        clock: Clock,
        allow: Sequence[str] = (),
        services: int = 1000,
        readers: int = 20_000,
    ) -> None:
        self.feeds: dict[str, Feed] = {}
        self.tally = Tally()
        self.patience = Patience()
        self.readers = 0
        self.stopping = False
        self._directory = directory
        self._clock = clock
        self._turns = Turns(clock)
        self._allow = tuple(allow)
        self._most_services = services
        self._most_readers = readers
        self._ticker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to tick."""
        self._ticker = asyncio.create_task(self._tick(), name="look-up ticker")

    async def stop(self) -> None:
        """Answer those who wait, end all streams, stop following."""
        self.stopping = True
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        while self.feeds:
            await self.feeds.popitem()[1].close()

    @asynccontextmanager
    async def view(self, question: Question, *, waits: bool) -> AsyncIterator[View]:
        """Hold the list asked for; ``waits``: as one of the readers, of which there is a bound. Raises ``Refused``."""
        self._ensure_allowed(question.query.service)
        if self.stopping:
            raise unavailable("this look-up service is stopping; ask another one")
        if waits and self.readers >= self._most_readers:
            raise full(f"this look-up service has its {self._most_readers} readers; ask another one")
        self.readers += waits
        try:
            feed, dropped = self._feed(question.query.service)
            feed.users += 1
            try:
                if dropped is not None:
                    await dropped.close()
                await self._first_list(feed, question.query.service)
                async with feed.view(question) as view:
                    yield view
            finally:
                feed.users -= 1
                feed.used_at = self._clock.monotonic()
        finally:
            self.readers -= waits

    def _ensure_allowed(self, service: str) -> None:
        try:
            ensure_name(service)
        except ConfigurationError as error:
            raise not_found(str(error)) from error
        if len(service) > _LONGEST_NAME or not service.isprintable():
            raise not_found("no service has such a name")
        if self._allow and not any(fnmatchcase(service, glob) for glob in self._allow):
            raise not_found(f"{service} is not served here; is the name right, and is it on the service's allow-list?")

    def _feed(self, service: str) -> tuple[Feed, Feed | None]:
        """The feed of a service, and the one that had to make room for it, which is to be closed."""
        if service in self.feeds:
            return self.feeds[service], None
        dropped = self._make_room() if len(self.feeds) >= self._most_services else None
        feed = self.feeds[service] = Feed(service, self._directory, clock=self._clock, turns=self._turns)
        feed.task.add_done_callback(lambda task: self._ended(service, task))
        return feed, dropped

    def _make_room(self) -> Feed:
        # Of names that nobody has registered there may be any number, and they are forgotten at no loss.
        idle = [name for name, feed in self.feeds.items() if not feed.users and not feed.size]
        if not idle:
            raise full(f"this look-up service follows its {self._most_services} services; ask another one")
        return self.feeds.pop(min(idle, key=lambda name: self.feeds[name].used_at))

    async def _first_list(self, feed: Feed, service: str) -> None:
        if not feed.ready.is_set():
            await within(FIRST_LIST, feed.ready.wait(), self._clock)
        if not feed.ready.is_set() or feed.closed:
            raise unavailable(f"there is no list of {service} yet: the registry has not answered; ask again soon")

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK)
            now = self._clock.monotonic()
            self.tally.cut_off += self.patience.cut_off(now)
            for service, feed in list(self.feeds.items()):
                await feed.tick(now)
                if not feed.users and now - feed.used_at > FEED_IDLE and self.feeds.pop(service, None) is feed:
                    await feed.close()

    def _ended(self, service: str, task: asyncio.Task[None]) -> None:
        feed = self.feeds.get(service)
        if self.stopping or feed is None or feed.task is not task:
            return
        # A watch ends by itself only when its directory is closed, or by a fault in this program.
        error = None if task.cancelled() else task.exception()
        log.error("following %s ended; it begins anew when it is asked for", service, exc_info=error)
        del self.feeds[service]
        closing = asyncio.ensure_future(feed.close())
        closing.add_done_callback(lambda done: done.cancelled() or done.exception())
