"""What the look-up service's tests share: a registry to script, and a client that reads lines."""

import asyncio
import json

from registry.directory import WatchStatus
from registry.lookup.client.replica import Replica
from registry.lookup.wire import Heartbeat, Resync, decode_line
from registry.testing import ScriptedDirectory

SOON = 20.0  # real seconds, on a loaded machine


class Upstream(ScriptedDirectory):
    """A registry whose watches tell when they last heard from it; ``followed`` holds what is watched now."""

    def __init__(self, instances=(), clock=None):
        self.clock = clock
        self.good_at = None
        self.followed = []
        super().__init__(instances)

    def fail(self, error=None):
        self.good_at = self.clock.time()
        super().fail(error)

    def watch(self, service, **filters):
        assert filters == {"passing_only": False}
        watch = super().watch(service, **filters)
        close = watch.aclose
        self.followed.append(service)

        def status():
            failing = self._failure is not None
            return WatchStatus(live=not failing, last_good_at=self.good_at if failing else self.clock.time())

        async def aclose():
            if service in self.followed:
                self.followed.remove(service)
            await close()

        watch.status, watch.aclose = status, aclose
        return watch


class Lines:
    """The client's end of a stream: events as they come, and the list they make."""

    def __init__(self, response, service="digits"):
        self.response = response
        self.replica = Replica(service)
        self.seen = []

    async def next(self):
        async with asyncio.timeout(SOON):
            text = await self.response.content.readline()
        if not text:
            return None
        event = decode_line(text)
        self.replica.apply(event)
        self.seen.append(event)
        return event

    async def until(self, ids):
        """Read until the list is this one."""
        while [each.id for each in self.replica.instances] != list(ids) or not self.replica.index:
            assert await self.next() is not None, f"ended with {[each.id for each in self.replica.instances]}"
        return self

    async def until_heartbeat(self):
        while not isinstance(event := await self.next(), Heartbeat):
            assert event is not None
        return event

    def resyncs(self):
        return sum(isinstance(each, Resync) for each in self.seen)


async def get(session, path, **options):
    """Status, headers and JSON of an answer."""
    async with session.get(path, **options) as response:
        text = await response.text()
        return response.status, response.headers, json.loads(text) if text else None


async def eventually(condition, what):
    """Let real sockets do their work until something is so."""
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what
