"""One node as the client sees it, and the lease that every pick returns.

An ``Endpoint`` joins what the registry says (``Instance``) with what the client has seen (counters, in flight,
breaker). It outlives pickers and snapshots; only the balancer makes one. A ``Lease`` is closed exactly once, whatever
happens: leaving its ``with`` block without a word, by cancellation too, releases it as cancelled.
"""

from collections.abc import Callable
from typing import Any, Self

from registry.model import Instance
from smartclient.breaker import Breaker, EjectionRule
from smartclient.stats import Counters, Outcome

Key = tuple[str, str, str, int]


def key_of(instance: Instance) -> Key:
    """Return what makes an instance the same one later: machine, id, address and port."""
    return (instance.node, instance.id, instance.address, instance.port)


class Endpoint:
    """A node's instance, in-flight count, counters and breaker. Compared by identity."""

    __slots__ = ("breaker", "counters", "in_flight", "instance", "key", "url")

    def __init__(self, instance: Instance, rule: EjectionRule) -> None:
        self.key = key_of(instance)
        self.instance = instance
        self.url = instance.url
        self.in_flight = 0
        self.counters = Counters()
        self.breaker = Breaker(rule)

    @property
    def name(self) -> str:
        """The instance's id."""
        return self.instance.id

    @property
    def weight(self) -> int:
        """Share of the traffic relative to the others, never negative."""
        return max(0, self.instance.weight)

    def update(self, instance: Instance) -> None:
        """Take over what the registry now says of the same instance."""
        self.instance = instance
        self.url = instance.url

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return its observable state."""
        return {
            "id": self.instance.id,
            "endpoint": self.instance.endpoint,
            "health": str(self.instance.health),
            "weight": self.weight,
            "state": self.breaker.state(now),
            "back_in_s": round(self.breaker.remaining(now), 3),
            "in_flight": self.in_flight,
            "picked": self.counters.picked,
            "ok": self.counters.ok,
            "failed": self.counters.failed,
            "overloaded": self.counters.overloaded,
        }

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} {self.instance.endpoint} in_flight={self.in_flight}>"


Settle = Callable[["Lease", Outcome, float | None], None]


class Lease:
    """The right to send one attempt to ``endpoint``; in-flight went up when it was made, and goes down once.

    ``release(outcome, retry_after)`` says how it ended; a second release changes nothing.
    """

    __slots__ = ("_settle", "endpoint", "epoch", "open", "probe")

    def __init__(self, endpoint: Endpoint, now: float, settle: Settle) -> None:
        self.endpoint = endpoint
        self.probe = not endpoint.breaker.calm and endpoint.breaker.begin(now)
        self.epoch = endpoint.breaker.epoch
        self.open = True
        self._settle = settle
        endpoint.in_flight += 1
        endpoint.counters.picked += 1

    def release(self, outcome: Outcome, retry_after: float | None = None) -> None:
        """Close it with how the attempt ended; ``retry_after``: seconds the node asked to be left alone."""
        if self.open:
            self.open = False
            self.endpoint.in_flight -= 1
            self.endpoint.counters.count(outcome)
            self._settle(self, outcome, retry_after)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.open:
            self.release(Outcome.CANCELLED)
