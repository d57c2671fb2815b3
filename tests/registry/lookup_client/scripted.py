"""Streams and look-up services as a test scripts them, without sockets."""

import asyncio
import random

from registry.errors import RegistryUnavailable
from registry.lookup.client.lines import Lines
from registry.model import Snapshot

END = None


class Script:
    """What one connection sends, as a ``Stream``; more may be put in while it is read."""

    def __init__(self, address, *data):
        self.address = address
        self.closed = False
        self._data = asyncio.Queue()
        self._lines = Lines(self)
        for each in data:
            self.put(each)

    def put(self, data):
        self._data.put_nowait(data)

    async def readany(self):
        data = await self._data.get()
        if isinstance(data, Exception):
            raise data
        return data or b""

    @property
    def ready(self):
        return self._lines.ready

    async def more(self):
        return await self._lines.more()

    def take(self):
        return self._lines.take()

    def close(self):
        self.closed = True


class Services:
    """Connections in the order they are to be made; past the last, refused. ``answers``: what look-ups say."""

    source = "lookup://a,b"

    def __init__(self, clock):
        self._clock = clock
        self._scripts = []
        self.answers = []
        self.connected_at = []
        self.asked_last = []
        self.lost_addresses = []

    def then(self, *data):
        address = "ab"[len(self._scripts) % 2]
        self._scripts.append(Script(address, *data))
        return self._scripts[-1]

    async def stream(self, query):
        self.connected_at.append(self._clock.monotonic() - 1000)
        number = len(self.connected_at)
        if number > len(self._scripts):
            raise RegistryUnavailable("refused")
        return self._scripts[number - 1]

    async def lookup(self, query, *, last=""):
        self.asked_last.append(last)
        answer = self.answers.pop(0) if self.answers else RegistryUnavailable("gone")
        if isinstance(answer, Exception):
            raise answer
        return Snapshot(service="digits", index=1, instances=answer, fetched_at=0.0)

    def lost(self, address):
        self.lost_addresses.append(address)


class Most(random.Random):
    """The longest pause full jitter allows."""

    def random(self):
        return 0.999
