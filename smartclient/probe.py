"""Asking nodes how busy they are, just before choosing among them.

A node whose registration says ``load=/load`` answers that path from memory. All candidates are asked at once; the
question is over when all have answered, or ``limit`` seconds are up, or one of them is idle and the others have had as
long again: a slow node is often idle, and then the first to say so. What comes later still counts as that node's newest
report. A probe is never the reason why a call fails: who does not answer is only not chosen. A node that misses three
in a row, while another one answers, is as good as dead (``Balancer.unanswered``); where nobody answers, it may be this
process that stood still.
"""

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import Sequence

from registry.timing import Clock
from smartclient.balancer import Balancer
from smartclient.endpoint import Endpoint
from smartclient.errors import ClientError
from smartclient.load import from_json
from smartclient.transport import Request, Transport, TransportFailure

LEAST, MOST = 0.025, 0.25  # seconds that a probe may take, between which it is 5 times what they took of late
FIRST = 0.1  # seconds for the first, which makes its connection
GRACE = 0.002  # seconds that the others have at least when one is idle


class Prober:
    """Sends probes and notes the answers on the endpoints. ``close`` ends those under way."""

    def __init__(self, transport: Transport, balancer: Balancer, *, clock: Clock) -> None:
        self.sent = 0
        self._transport = transport
        self._balancer = balancer
        self._clock = clock
        self._under_way: set[asyncio.Task[bool]] = set()

    async def ask(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """Return those of ``endpoints``, in their order, that have said how busy they are."""
        answered: set[Endpoint] = set()
        waiting = {asyncio.create_task(self._one(endpoint, answered)) for endpoint in endpoints}
        self._under_way |= waiting
        for task in waiting:
            task.add_done_callback(self._under_way.discard)
        began = self._clock.monotonic()
        enough: asyncio.Task[None] | None = None
        try:
            while waiting:
                done, _ = await asyncio.wait({*waiting, enough} if enough else waiting, return_when=FIRST_COMPLETED)
                if enough in done:
                    break
                idle = any(task.result() for task in waiting & done if not task.cancelled())
                waiting -= done
                if idle and enough is None:
                    grace = max(GRACE, self._clock.monotonic() - began)
                    enough = asyncio.create_task(self._clock.sleep(grace))
        finally:
            if enough is not None:
                enough.cancel()
        return [endpoint for endpoint in endpoints if endpoint in answered]

    async def close(self) -> None:
        """End the probes under way."""
        tasks = tuple(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, endpoint: Endpoint, answered: set[Endpoint]) -> bool:
        """Ask one; whether it is idle, so that nobody else need be waited for much longer."""
        began = self._clock.monotonic()
        within = limit(endpoint, began)
        self.sent += 1
        request = Request(method="GET", target=endpoint.load_path)
        try:
            answer = await self._transport.send(endpoint.url, request, {}, within=within, connect_within=within)
        except TransportFailure:
            if answered:
                self._balancer.unanswered(endpoint)
            return False
        except ClientError:  # a path that is none, or the client was closed meanwhile
            endpoint.load_path = ""
            return False
        now = self._clock.monotonic()
        report = from_json(answer.body, now) if answer.status == 200 else None
        endpoint.probe_latency.observe(now - began, now)
        endpoint.unanswered_probes = 0
        if report is None:
            endpoint.load_path = ""  # it promised more than it does; until the registry says something new of it
            return False
        endpoint.heard(report)
        answered.add(endpoint)
        return not (report.wait or report.in_flight)


def limit(endpoint: Endpoint, now: float) -> float:
    """Seconds that a probe of ``endpoint`` may take."""
    usual = endpoint.probe_latency.read(now)
    return min(MOST, max(LEAST, 5.0 * usual)) if usual else FIRST
