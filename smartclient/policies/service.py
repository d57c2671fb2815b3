"""How long nodes take for one request, the waiting left out: learned from what they report, remembered for a while.

A node that was busy for a share ``utilization`` of its time and answered ``rps`` requests per second took
``utilization / rps`` for each. That is steadier than what one client sees: an average over all clients, without queues.
What a node said while it did next to nothing is old news, so it is not learned. What is not confirmed fades, so that
a node that was slow once is tried again; slowly, because each of many clients tries by itself.
"""

import math
from collections.abc import Iterable

from smartclient.endpoint import Endpoint
from smartclient.load import LoadReport

TELLING = 0.02  # busy share from which the quotient is worth something: a request within the last few service times
FADE = 60.0  # seconds to 1/e


class ServiceTimes:
    """What is known of each endpoint, in seconds."""

    def __init__(self) -> None:
        self._known: dict[Endpoint, tuple[float, float]] = {}  # seconds, and when that was learned

    def keep(self, endpoints: Iterable[Endpoint]) -> None:
        """Forget all others."""
        self._known = {endpoint: self._known[endpoint] for endpoint in endpoints if endpoint in self._known}

    def learn(self, endpoint: Endpoint, report: LoadReport) -> None:
        """Take in what ``endpoint`` reports, if it says both figures."""
        if report.rps and report.utilization is not None and report.utilization >= TELLING:
            self._known[endpoint] = (report.utilization / report.rps, report.at)

    def of(self, endpoint: Endpoint, now: float) -> float:
        """Seconds; where the node says nothing of it, what this client's answers took; 0 when nothing is known."""
        known = self._known.get(endpoint)
        if known is None:
            return endpoint.latency.read(now)
        seconds, learned = known
        return seconds * math.exp((learned - now) / FADE)
