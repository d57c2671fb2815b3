"""Asking nodes how busy they are, just before choosing among them.

A node whose registration says ``load=/load`` answers that path from memory. All candidates are asked at once; the
question is over when all have answered, when ``limit`` seconds are up, or when one of them is idle. One that is idle
because it is slow ends it only after the others have had as long again: such a node is often the first to say so. What
comes later still counts as that node's newest report. A probe is never the reason why a call fails: who does not answer
is only not chosen. A node that misses three in a row, while another one answers, is as good as dead
(``Balancer.unanswered``); where nobody answers, it may be this process that stood still.
"""

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import Iterable, Sequence

from registry.timing import Clock
from smartclient.balancer import Balancer
from smartclient.endpoint import Endpoint
from smartclient.errors import ClientError
from smartclient.load import from_json
from smartclient.transport import Request, Transport, TransportFailure

LEAST, MOST = 0.025, 0.25  # seconds that a probe may take, between which it is 5 times what they took of late
FIRST = 0.1  # seconds for the first, which makes its connection
GRACE = 0.002  # seconds that the others have at least when a slow one is idle
SLOW = 2.0  # times what another one typically takes


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
        asked = {asyncio.create_task(self._one(endpoint, answered)): endpoint for endpoint in endpoints}
        self._under_way |= asked.keys()
        for task in asked:
            task.add_done_callback(self._under_way.discard)
        await self._enough(asked)
        return [endpoint for endpoint in endpoints if endpoint in answered]

    async def _enough(self, asked: dict[asyncio.Task[bool], Endpoint]) -> None:
        """Wait until there is no use in waiting for more answers."""
        began = self._clock.monotonic()
        waiting = set(asked)
        grace: asyncio.Task[None] | None = None
        try:
            while waiting:
                done, _ = await asyncio.wait({*waiting, grace} if grace else waiting, return_when=FIRST_COMPLETED)
                idle = [asked[task] for task in waiting & done if not task.cancelled() and task.result()]
                if grace in done or any(not slow(endpoint, asked.values()) for endpoint in idle):
                    break
                waiting -= done
                if idle and grace is None:
                    grace = asyncio.create_task(self._clock.sleep(max(GRACE, self._clock.monotonic() - began)))
        finally:
            if grace is not None:
                grace.cancel()

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
            if answer.status < 500:  # it promised more than it does; until the registry says something new of it
                endpoint.load_path = ""
            return False
        endpoint.heard(report)
        answered.add(endpoint)
        return not (report.wait or report.in_flight)


def slow(endpoint: Endpoint, others: Iterable[Endpoint]) -> bool:
    """Whether ``endpoint`` typically takes much longer than one of ``others``, or may, for all that is known."""
    typical = endpoint.latency.typical
    return not typical or any(typical > SLOW * other.latency.typical > 0.0 for other in others)


def limit(endpoint: Endpoint, now: float) -> float:
    """Seconds that a probe of ``endpoint`` may take."""
    usual = endpoint.probe_latency.read(now)
    return min(MOST, max(LEAST, 5.0 * usual)) if usual else FIRST
