"""A look-up service that answers what the test put there, over real sockets, and what it is made of."""

import asyncio

import msgspec
from aiohttp import web

from registry.lookup.wire import Change, Heartbeat, Listing, Part, line, to_row
from registry.testing import instance

TOKEN = "c0ffee-token"  # no secret of anything


def some(count, **changes):
    return tuple(sorted((instance(number, **changes) for number in range(count)), key=lambda each: each.id))


def whole(instances, index=1, *, part=1, parts=1, stale_for=0.0):
    rows = tuple(map(to_row, instances))
    return line(Part(index=index, part=part, parts=parts, stale_for=stale_for, instances=rows))


def delta(*changed, removed=(), index=2):
    return line(Change(index=index, changed=tuple(map(to_row, changed)), removed=tuple(removed)))


def heartbeat(stale_for=0.0, index=1):
    return line(Heartbeat(index=index, stale_for=stale_for))


def listing(instances, index=1, stale_for=0.0):
    rows = tuple(map(to_row, instances))
    return msgspec.json.encode(Listing(service="digits", index=index, stale_for=stale_for, instances=rows))


class FakeService:
    """``listing``: the answer of a look-up; ``greeting``: the first lines of a stream; ``send`` adds to all streams."""

    def __init__(self, instances=(), *, port=0, tls=None):
        self.port = port
        self._tls = tls
        self.asked = []
        self.answer = None
        self._streams = []
        self.lists(instances)

    @property
    def readers(self):
        """How many streams are open."""
        return len(self._streams)

    def lists(self, instances):
        self.listing, self.greeting = listing(instances), whole(instances)

    def answers(self, body=b"", status=200, **headers):
        """From now on answer everything so."""
        self.answer = (status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def send(self, data):
        """Add to every open stream; None ends it."""
        for stream in self._streams:
            stream.put_nowait(data)

    async def handle(self, request):
        self.asked.append(request)
        if self.answer is not None:
            status, body, headers = self.answer
            return web.Response(status=status, body=body, headers=headers)
        if not request.path.endswith("/stream"):
            return web.Response(body=self.listing, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        stream = asyncio.Queue()
        stream.put_nowait(self.greeting)
        self._streams.append(stream)
        try:
            while (data := await stream.get()) is not None:
                await response.write(data)
        finally:
            self._streams.remove(stream)
        return response

    async def __aenter__(self):
        app = web.Application()
        app.router.add_get("/{path:.*}", self.handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls).start()
        self.port = self._runner.addresses[0][1]
        self.address = f"127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *exception):
        await self._runner.cleanup()
