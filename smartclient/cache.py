"""The list of one service, asked for once and then watched.

The first need for the list asks the registry and surfaces its error, for then nothing is known. From then on one
watch keeps it fresh, and nothing takes it away: however long the registry is gone, the last list stands (fail
static) and ``snapshot()`` tells its age. All instances are followed, passing or not: which of them may be used is
the balancer's decision, and an error can say what was seen.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from registry.directory import Directory, Watch
from registry.errors import RegistryError
from registry.model import Snapshot
from registry.timing import Backoff, Clock
from registry.wording import printable
from smartclient.episode import Episode
from smartclient.errors import RegistryGone, RegistryRefused

log = logging.getLogger(__name__)

MINDED = 5.0  # seconds between looks at whether the registry answers; shorter outages are nobody's concern


class DiscoveryCache:
    """The last known ``Snapshot`` of ``service``; ``publish`` is called with every new one, in the event loop."""

    def __init__(
        self,
        directory: Directory,
        service: str,
        publish: Callable[[Snapshot], None],
        *,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.current: Snapshot | None = None
        self._directory = directory
        self._service = service
        self._publish = publish
        self._clock = clock
        self._rng = rng
        self._seen_at = 0.0
        self._loading: asyncio.Task[Snapshot] | None = None
        self._following: asyncio.Task[None] | None = None
        self._minding: asyncio.Task[None] | None = None
        self._watch: Watch | None = None
        source = directory.source
        self._lost = Episode(
            log, service, begins=f"{source} is lost, its last list stands", ends=f"{source} answers again"
        )

    async def load(self) -> Snapshot:
        """Return the list, asking for it when there is none; callers at the same time share one question.

        Raises ``RegistryGone`` or ``RegistryRefused`` when nothing is known. Cancelling one caller leaves the others.
        """
        if self.current is not None:
            return self.current
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load(), name=f"lookup {self._service}")
        return await asyncio.shield(self._loading)

    async def _load(self) -> Snapshot:
        try:
            snapshot = await self._directory.lookup(self._service, passing_only=False)
        except RegistryError as error:
            raise _mapped(error, self._service, self._directory.source) from error
        self._take(snapshot)
        if self._following is None:
            self._following = asyncio.create_task(self._follow(), name=f"watch {self._service}")
            self._minding = asyncio.create_task(self._mind(), name=f"mind {self._service}")
        return snapshot

    async def _follow(self) -> None:
        backoff, failures = Backoff(), 0
        while True:
            self._watch = self._directory.watch(self._service, passing_only=False)
            try:
                async for snapshot in self._watch:
                    self._take(snapshot)
                    failures = 0
            except RegistryError:
                # A watch waits outages out by itself; one that gives up all the same is begun again.
                await self._clock.sleep(backoff.delay(failures, self._rng))
                failures += 1
            else:
                return  # the directory was closed
            finally:
                await self._watch.aclose()

    async def _mind(self) -> None:
        """Tell when the registry is lost and when it is back: a watch waits outages out without a word."""
        while True:
            await self._clock.sleep(MINDED)
            if self._watch is None:
                continue
            status, now = self._watch.status(), self._clock.monotonic()
            if status.live:
                self._lost.over(now)
            elif status.last_error:
                self._lost.seen(now, printable(status.last_error))

    def _take(self, snapshot: Snapshot) -> None:
        self.current = snapshot
        self._seen_at = snapshot.fetched_at if snapshot.saved else self._clock.time()
        self._publish(snapshot)

    def snapshot(self) -> dict[str, Any]:
        """Return the list's index and size, whether it is from disk, its age (s since confirmed), the watch's state."""
        status = None if self._watch is None else self._watch.status()
        confirmed = max(self._seen_at, (status and status.last_good_at) or 0.0)
        return {
            "registry": self._directory.source,
            "known": self.current is not None,
            "index": self.current.index if self.current else 0,
            "instances": len(self.current.instances) if self.current else 0,
            "saved": self.current.saved if self.current else False,
            "age_s": round(max(0.0, self._clock.time() - confirmed), 3) if self.current else None,
            "live": status.live if status else False,
            "failures": status.failures if status else 0,
            "last_error": status.last_error if status else "",
        }

    async def close(self) -> None:
        """End the watch; the directory stays open, for it may be shared."""
        started = (self._loading, self._following, self._minding)
        tasks = [task for task in started if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _mapped(error: RegistryError, service: str, source: str) -> RegistryGone | RegistryRefused:
    where = "" if source in str(error) else f" at {source}"
    said = f"cannot look {service!r} up{where}: {error}"
    if error.retryable:
        return RegistryGone(f"{said} (another registry can be named in TWOSTEP_REGISTRY)")
    return RegistryRefused(said)
