"""Asking nodes how busy they are, just before choosing among them.

A node whose registration says ``load=/load`` answers that path from memory. All candidates are asked at once; the
question is over when one of them is idle, when all have answered, or when ``limit`` seconds are up. What comes later
still counts as that node's newest report. A probe is never the reason why a call fails: who does not answer is only
not chosen. A node that misses three in a row, while another one answers, is as good as dead (``Balancer.unanswered``);
where nobody answers, it may be this process that stood still.
"""

import asyncio
from collections.abc import Sequence

from registry.timing import Clock
from smartclient.balancer import Balancer
from smartclient.endpoint import Endpoint
from smartclient.errors import ClientError
from smartclient.load import from_json
from smartclient.transport import Request, Transport, TransportFailure

LEAST, MOST = 0.025, 0.25  # seconds that a probe may take, between which it is 5 times what they took of late
FIRST = 0.1  # seconds for the first, which makes its connection


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
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if any(task.result() for task in done if not task.cancelled()):
                break
        return [endpoint for endpoint in endpoints if endpoint in answered]

    async def close(self) -> None:
        """End the probes under way."""
        tasks = tuple(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, endpoint: Endpoint, answered: set[Endpoint]) -> bool:
        """Ask one; whether it is idle, so that nobody else need be waited for."""
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
