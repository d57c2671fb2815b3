"""From the registry's list to the endpoint of the next attempt.

Control side: ``update(snapshot)`` turns the list into endpoints by difference, so that what is known of an unchanged
instance stays, and swaps the picker when anything changed. Data side: ``pick(info)`` returns a ``Lease``.
Which endpoints are offered, in this order: those neither ejected nor cooling down; when that is under half of them,
those cooling down as well, and when it still is, all (panic, as in Envoy: what condemns most of a fleet is more likely
wrong than right, and a few cannot bear the load of all); those this call has tried already; an error. The list itself:
passing and warning instances; when there are none, critical ones, because a registry that finds everything broken may
itself be the broken part; draining ones never.
"""

import math
import random
from collections import Counter
from collections.abc import Collection
from typing import Any

from registry.model import Health, Instance, Snapshot
from registry.timing import Clock
from smartclient.breaker import EjectionRule, Reach
from smartclient.endpoint import Endpoint, Key, Lease, key_of
from smartclient.errors import NoEndpoints, ServiceUnknown
from smartclient.policy import ANY, PickInfo, Policy
from smartclient.stats import Outcome

MAX_EJECTED = 0.5  # share of the endpoints; Envoy's default of 10 % is for larger fleets. One may always be ejected.
PANIC_BELOW = 0.5  # share of available endpoints
REMEMBER = 300.0  # seconds for which an endpoint that left the list keeps its record, in case it only flapped
LEAST_COOL_DOWN = 1.0  # seconds; "Retry-After: 0" comes from a node that is leaving, and the list needs a moment


class Balancer:
    """The endpoints of one service and the picker over them."""

    def __init__(
        self,
        policy: Policy,
        *,
        service: str,
        source: str,
        clock: Clock,
        rng: random.Random,
        ejection: EjectionRule | None = None,
    ) -> None:
        self.panics = 0
        self._policy = policy
        self._service = service
        self._source = source
        self._clock = clock
        self._rng = rng
        self._rule = ejection or EjectionRule()
        self._endpoints: dict[Key, Endpoint] = {}
        self._left: dict[Key, tuple[float, Endpoint]] = {}
        self._picker = policy.build((), rng)
        self._calm = True  # no breaker has anything to say: the quick path of a pick
        self._health: Counter[Health] = Counter()

    def update(self, snapshot: Snapshot) -> None:
        """Take over a new list; what is in flight to an endpoint that left it runs to its end."""
        now = self._clock.monotonic()
        self._health = Counter(instance.health for instance in snapshot.instances)
        endpoints: dict[Key, Endpoint] = {}
        before = {key: endpoint.instance for key, endpoint in self._endpoints.items()}
        for instance in _usable(snapshot):
            endpoint = self._known(key_of(instance), now)
            if endpoint is None:
                endpoint = Endpoint(instance, self._rule)
            else:
                endpoint.update(instance)
            endpoints[endpoint.key] = endpoint
        for key, endpoint in self._endpoints.items():
            if key not in endpoints:
                self._left[key] = (now, endpoint)
        self._left = {key: entry for key, entry in self._left.items() if now - entry[0] < REMEMBER}
        self._endpoints = endpoints
        self._calm = False
        if before != {key: endpoint.instance for key, endpoint in endpoints.items()}:
            self._picker = self._policy.build(tuple(endpoints.values()), self._rng)

    def pick(self, info: PickInfo = ANY) -> Lease:
        """Choose the endpoint of the next attempt and count it in flight. Raises ``NoEndpoints``."""
        self.ensure_any()
        now = self._clock.monotonic()
        if not self._calm and (reach := self._panic(now)) is not Reach.WELL:
            self.panics += 1
            info = PickInfo(exclude=info.exclude, reach=reach)
        try:
            endpoint = self._picker.pick(info, now)
        except NoEndpoints:
            endpoint = self._any(info, now)
        return Lease(endpoint, now, self._settle)

    def ensure_any(self) -> None:
        """Raise ``NoEndpoints`` when the list offers nobody."""
        if not self._endpoints:
            raise self._empty()

    def pushback(self, tried: Collection[Endpoint]) -> float | None:
        """Return None when a node that is not among ``tried`` may be asked at once, else the seconds to wait first.

        An ejected node may be asked (it may have recovered); one that is cooling down may not (it said when).
        """
        now = self._clock.monotonic()
        endpoints = self._endpoints.values()
        if any(endpoint not in tried and not endpoint.breaker.cooling(now) for endpoint in endpoints):
            return None
        return min((endpoint.breaker.cooling(now) for endpoint in endpoints), default=0.0)

    def snapshot(self) -> dict[str, Any]:
        """Return the policy's name, how often panic decided, and every endpoint's state."""
        now = self._clock.monotonic()
        return {
            "policy": self._policy.name,
            "panic": self._panic(now) is not Reach.WELL,
            "panics": self.panics,
            "endpoints": [endpoint.snapshot(now) for endpoint in self._endpoints.values()],
        }

    def _known(self, key: Key, now: float) -> Endpoint | None:
        if key in self._endpoints:
            return self._endpoints[key]
        if key not in self._left:
            return None
        _, endpoint = self._left.pop(key)
        endpoint.breaker.returned(now)
        return endpoint

    def _any(self, info: PickInfo, now: float) -> Endpoint:
        """Pick when nobody is both untried and well: the least ill not tried yet, then among those tried."""
        for exclude in (info.exclude, ()):
            for reach in Reach:
                try:
                    return self._picker.pick(PickInfo(exclude=exclude, reach=reach), now)
                except NoEndpoints:
                    continue
        raise self._empty()

    def _panic(self, now: float) -> Reach:
        """Return how far a pick must reach so that it has at least half of the endpoints to choose from."""
        endpoints = self._endpoints.values()
        self._calm = all(endpoint.breaker.calm for endpoint in endpoints)
        if self._calm:
            return Reach.WELL
        for reach in (Reach.WELL, Reach.COOLING):
            if sum(each.breaker.available(now, reach) for each in endpoints) >= PANIC_BELOW * len(endpoints):
                return reach
        return Reach.EJECTED

    def _settle(self, lease: Lease, outcome: Outcome, retry_after: float | None) -> None:
        breaker = lease.endpoint.breaker
        if outcome is Outcome.OK and breaker.calm:
            return
        now = self._clock.monotonic()
        self._calm = False
        if outcome is Outcome.OVERLOADED:
            breaker.cool(max(LEAST_COOL_DOWN, retry_after or 0.0), now)
        breaker.record(
            outcome, epoch=lease.epoch, probe=lease.probe, now=now, rng=self._rng, may_eject=self._may_eject()
        )

    def _may_eject(self) -> bool:
        ejected = sum(endpoint.breaker.ejected for endpoint in self._endpoints.values())
        return ejected < max(1, math.floor(MAX_EJECTED * len(self._endpoints)))

    def _empty(self) -> NoEndpoints:
        where = f"at {self._source}"
        if not self._health:
            return ServiceUnknown(
                f"no instance of {self._service!r} is registered {where}; "
                f"check the name, or start one with `twostep node`"
            )
        seen = ", ".join(f"{count} {health}" for health, count in sorted(self._health.items()))
        return NoEndpoints(
            f"no instance of {self._service!r} takes requests {where} (seen: {seen}); "
            f"`twostep lookup {self._service} --all` shows them"
        )


def _usable(snapshot: Snapshot) -> list[Instance]:
    up = [each for each in snapshot.instances if each.health in {Health.PASSING, Health.WARNING}]
    return up or [each for each in snapshot.instances if each.health is Health.CRITICAL]
