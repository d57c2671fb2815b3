"""How long nodes take, learned from what they report of themselves: for one request, and until an answer would come.

A node that was busy for a share ``utilization`` of its time and answered ``rps`` requests per second took
``utilization / rps`` for each. That is steadier than what one client sees: an average over all clients, without queues.
What a node says while it does next to nothing is old news, so it is not learned. What is not confirmed fades, so that
a node that was slow once is tried again; slowly, because each of many clients tries by itself.
"""

import math
from collections.abc import Iterable

from smartclient.endpoint import Endpoint
from smartclient.load import LoadReport

TELLING = 0.02  # busy share from which the quotient says something of the present
FADE = 60.0  # seconds to 1/e
BUSY = 0.5  # of a service time: the least wait where somebody is inside, however overdue his answer is


class ServiceTimes:
    """Seconds of service by endpoint, and when that was learned."""

    def __init__(self) -> None:
        self._known: dict[Endpoint, tuple[float, float]] = {}

    def keep(self, endpoints: Iterable[Endpoint]) -> None:
        """Forget all others."""
        self._known = {endpoint: self._known[endpoint] for endpoint in endpoints if endpoint in self._known}

    def learn(self, endpoint: Endpoint, report: LoadReport) -> None:
        """Take in what ``endpoint`` reports, if it says both figures."""
        if report.rps and report.utilization is not None and report.utilization >= TELLING:
            self._known[endpoint] = (report.utilization / report.rps, report.at)

    def service(self, endpoint: Endpoint, now: float) -> float:
        """Seconds for one request; from this client's own answers where the node does not say; 0: nothing is known."""
        known = self._known.get(endpoint)
        if known is None:
            return endpoint.latency.read(now)
        seconds, learned = known
        return seconds * math.exp((learned - now) / FADE)

    def until_answer(self, endpoint: Endpoint, report: LoadReport, now: float) -> float:
        """Seconds until the answer to a request sent now: what waits there, what was sent since ``report``, itself."""
        self.learn(endpoint, report)
        service = self.service(endpoint, now)
        inside = report.in_flight or 0.0
        wait = inside * service if report.wait is None else report.wait
        if inside:
            wait = max(wait, BUSY * service)
        return wait + (endpoint.sent_since_report + 1) * service
