"""Who sends what, and when: drawn before anything is simulated, so that it is the same for every policy."""

import random
from array import array

from smartclient.simulation.scenario import Scenario


class Workload:
    """The requests of a scenario, in the order in which they arrive.

    ``times``: seconds from the beginning; ``services``: seconds of work; ``clients`` and ``keys``: numbers from 0.
    """

    __slots__ = ("clients", "keys", "services", "times")

    def __init__(self, scenario: Scenario, rng: random.Random) -> None:
        self.times, self.services = array("d"), array("d")
        self.clients, self.keys = array("l"), array("l")
        rate, count, keys = scenario.rate, scenario.clients.count, scenario.clients.keys
        draw, now = scenario.service.draw, 0.0
        for _ in range(scenario.requests):
            now += rng.expovariate(rate)
            self.times.append(now)
            self.services.append(draw(rng))
            self.clients.append(int(rng.random() * count))
            self.keys.append(int(rng.random() * keys))

    @property
    def duration(self) -> float:
        """Seconds until the last arrival."""
        return self.times[-1]
