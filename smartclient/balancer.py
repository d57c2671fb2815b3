"""From the registry's list to the endpoint of the next attempt.

Control side: ``update(snapshot)`` turns the list into endpoints by difference, so that what is known of an unchanged
instance stays, and swaps the picker when anything changed. Data side: ``pick(info)`` returns a ``Lease``.
Which endpoints are offered, in this order: those neither ejected nor cooling down; when that is under half of them,
those cooling down as well, and when it still is, all (panic, as in Envoy: what condemns most of a fleet is more likely
wrong than right, and a few cannot bear the load of all); those this call has tried already; an error. The list itself:
passing and warning instances; when there are none, critical ones, because a registry that finds everything broken may
itself be the broken part; draining ones never. Newcomers and returners begin slowly, unless the whole list is new.

The cost of a pick does not grow with the list: only endpoints that a breaker has something to say of are looked at.
"""

import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from registry.model import Health, Instance, Snapshot
from registry.timing import Clock
from smartclient.breaker import EjectionRule, Reach
from smartclient.endpoint import Endpoint, Key, Lease, SlowStart, key_of
from smartclient.episode import Episode
from smartclient.errors import NoEndpoints, ServiceUnknown
from smartclient.policy import ANY, SOUND, AskingPicker, Picker, PickInfo, Policy
from smartclient.stats import NEUTRAL, Outcome

log = logging.getLogger(__name__)

MAX_EJECTED = 0.5  # share of the endpoints; Envoy's default of 10 % is for larger fleets. One may always be ejected.
PANIC_BELOW = 0.5  # share of available endpoints
PANIC_STANDS = 0.01  # seconds for which a verdict on panic is not asked again: with thousands ejected it takes a while
REMEMBER = 300.0  # seconds for which an endpoint that left the list keeps its record, in case it only flapped
LEAST_COOL_DOWN = 1.0  # seconds; "Retry-After: 0" comes from a node that is leaving, and the list needs a moment
UNANSWERED_PROBES = 3  # in a row, while another node answered: as good as so many refused connections
FAILURE_WEIGHS = 5.0  # times the average latency: failing fast must not look fast
UNKNOWN_FAILURE = 1.0  # seconds, where no latency is known yet


class Balancer:
    """The endpoints of one service and the picker over them.

    ``observer``: who is told of every attempt that ends, how, and after how many seconds; None costs nothing.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        service: str,
        source: str,
        clock: Clock,
        rng: random.Random,
        ejection: EjectionRule | None = None,
        slow_start: SlowStart | None = None,
    ) -> None:
        self.panics = 0
        self.ejections = 0
        self.observer: Callable[[Endpoint, Outcome, float], None] | None = None
        self._policy = policy
        self._service = service
        self._source = source
        self._clock = clock
        self._rng = rng
        self._rule = ejection or EjectionRule()
        self._slow_start = slow_start or SlowStart()
        self._endpoints: dict[Key, Endpoint] = {}
        self._left: dict[Key, tuple[float, Endpoint]] = {}
        self._picker: Picker
        self._candidates: Callable[[PickInfo, float], Sequence[Endpoint]] | None
        self._build()
        self._troubled: set[Endpoint] = set()  # whose breaker has something to say; the others need no look
        self._reach = Reach.WELL
        self._reach_until = 0.0
        self._panicking = Episode(
            log, service, begins="panic: too few nodes are well, so others are used as well", ends="the panic is over"
        )
        self._health: Counter[Health] = Counter()

    @property
    def policy(self) -> Policy:
        """How endpoints are chosen."""
        return self._policy

    @property
    def endpoints(self) -> Collection[Endpoint]:
        """Those that the list offers now."""
        return self._endpoints.values()

    def update(self, snapshot: Snapshot) -> None:
        """Take over a new list; what is in flight to an endpoint that left it runs to its end."""
        now = self._clock.monotonic()
        self._health = Counter(instance.health for instance in snapshot.instances)
        before = {key: endpoint.instance for key, endpoint in self._endpoints.items()}
        endpoints: dict[Key, Endpoint] = {}
        newcomers: list[Endpoint] = []
        for instance in _usable(snapshot):
            key = key_of(instance)
            endpoint = self._endpoints.get(key)
            if endpoint is None:
                endpoint = self._returned(key, now) or Endpoint(instance, self._rule, self._slow_start)
                newcomers.append(endpoint)
            endpoint.update(instance)
            endpoints[key] = endpoint
        if len(newcomers) < len(endpoints):
            for endpoint in newcomers:
                endpoint.start_slowly(now)
        for key, endpoint in self._endpoints.items():
            if key not in endpoints:
                self._left[key] = (now, endpoint)
        self._left = {key: entry for key, entry in self._left.items() if now - entry[0] < REMEMBER}
        self._endpoints = endpoints
        self._troubled = {endpoint for endpoint in endpoints.values() if not endpoint.breaker.calm}
        self._reach_until = now
        self._panic(now)
        if before != {key: endpoint.instance for key, endpoint in endpoints.items()}:
            self._build()

    def candidates(self, info: PickInfo = ANY) -> Sequence[Endpoint]:
        """Return the endpoints that the policy wants to hear from before it picks for ``info``; mostly none."""
        if self._candidates is None:
            return ()
        now = self._clock.monotonic()
        if self._troubled and (reach := self._panic(now)) is not info.reach:
            info = _reaching(info, reach)
        return self._candidates(info, now)

    def pick(self, info: PickInfo = ANY) -> Lease:
        """Choose the endpoint of the next attempt and count it in flight. Raises ``NoEndpoints``."""
        if not self._endpoints:
            raise self._empty()
        now = self._clock.monotonic()
        if not self._troubled:
            info = SOUND if info is ANY else info
        elif (reach := self._panic(now)) is not Reach.WELL:
            self.panics += 1
            info = _reaching(info, reach)
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

    def unanswered(self, endpoint: Endpoint) -> None:
        """Note that ``endpoint`` did not say how busy it is while another one did."""
        endpoint.unanswered_probes += 1
        if endpoint.unanswered_probes >= UNANSWERED_PROBES and not endpoint.breaker.ejected and self._may_eject():
            now = self._clock.monotonic()
            endpoint.breaker.eject(now, self._rng)
            self._noted(endpoint, Outcome.TIMEOUT, now, was_out=False)

    def snapshot(self) -> dict[str, Any]:
        """Return the policy's name, how often panic decided, and every endpoint's state."""
        now = self._clock.monotonic()
        return {
            "policy": self._policy.name,
            "panic": self._panic(now) is not Reach.WELL,
            "panics": self.panics,
            "ejections": self.ejections,
            "endpoints": [endpoint.snapshot(now) for endpoint in self._endpoints.values()],
        }

    def explain(self, info: PickInfo = ANY) -> list[dict[str, Any]]:
        """Return every endpoint's state with ``may`` (it stands to choose), ``why`` not, and its ``score``."""
        now = self._clock.monotonic()
        if self._troubled and (reach := self._panic(now)) is not info.reach:
            info = _reaching(info, reach)
        rows = []
        for endpoint in self._endpoints.values():
            may = info.admits(endpoint, now)
            why = "" if may else "tried already" if endpoint in info.exclude else endpoint.breaker.state(now)
            score = self._picker.score(endpoint, now)
            rows.append(endpoint.snapshot(now) | {"may": may, "why": why, "score": score})
        return rows

    def _build(self) -> None:
        self._picker = self._policy.build(tuple(self._endpoints.values()), self._rng)
        self._candidates = self._picker.candidates if isinstance(self._picker, AskingPicker) else None

    def _returned(self, key: Key, now: float) -> Endpoint | None:
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
                    return self._picker.pick(PickInfo(exclude=exclude, reach=reach, key=info.key), now)
                except NoEndpoints:
                    continue
        raise self._empty()

    def _panic(self, now: float) -> Reach:
        """Return how far a pick must reach so that it has at least half of the endpoints to choose from."""
        if now >= self._reach_until:
            self._troubled = {endpoint for endpoint in self._troubled if not endpoint.breaker.calm}
            self._reach = self._reach_now(now)
            self._reach_until = now + PANIC_STANDS
            if self._reach is not Reach.WELL:
                self._panicking.seen(now, f"{len(self._troubled)} of {len(self._endpoints)} in trouble")
            elif self._panicking.since is not None:
                self._panicking.over(now)
        return self._reach

    def _reach_now(self, now: float) -> Reach:
        total = len(self._endpoints)
        for reach in (Reach.WELL, Reach.COOLING):
            out = sum(not endpoint.breaker.available(now, reach) for endpoint in self._troubled)
            if total - out >= PANIC_BELOW * total:
                return reach
        return Reach.EJECTED

    def _settle(self, lease: Lease, outcome: Outcome, retry_after: float | None, took: float | None) -> None:
        endpoint, now = lease.endpoint, self._clock.monotonic()
        breaker = endpoint.breaker
        if self.observer is not None:
            self.observer(endpoint, outcome, now - lease.began if took is None else took)
        if outcome is Outcome.OK:
            endpoint.latency.observe(now - lease.began if took is None else took, now)
            if breaker.calm:
                return
        elif outcome is Outcome.OVERLOADED:
            breaker.cool(max(LEAST_COOL_DOWN, retry_after or 0.0), now)
        elif outcome not in NEUTRAL:
            known = endpoint.latency.read(now)
            endpoint.latency.observe(max(now - lease.began, FAILURE_WEIGHS * known or UNKNOWN_FAILURE), now)
        was_out = breaker.ejected
        breaker.record(
            outcome, epoch=lease.epoch, probe=lease.probe, now=now, rng=self._rng, may_eject=self._may_eject()
        )
        self._noted(endpoint, outcome, now, was_out=was_out)

    def _noted(self, endpoint: Endpoint, cause: Outcome, now: float, *, was_out: bool) -> None:
        """Take account of what a breaker has just decided."""
        self._reach_until = now
        breaker = endpoint.breaker
        if not breaker.calm and endpoint.key in self._endpoints:
            self._troubled.add(endpoint)
        if breaker.ejected and not was_out:
            self.ejections += 1
            facts = {"service": self._service, "node": endpoint.name, "cause": str(cause)}
            seconds = breaker.remaining(now)
            log.warning("%(service)s: %(node)s is left out (%(cause)s)", facts, extra={**facts, "seconds": seconds})
            if cause in {Outcome.TIMEOUT, Outcome.CONNECT_ERROR}:
                # A node that does not even answer will not answer these: their calls may try another one now.
                for lease in tuple(endpoint.leases()):
                    lease.abandon()
        elif was_out and not breaker.ejected:
            endpoint.start_slowly(now)
            facts = {"service": self._service, "node": endpoint.name}
            log.info("%(service)s: %(node)s is back", facts, extra=facts)

    def _may_eject(self) -> bool:
        ejected = sum(endpoint.breaker.ejected for endpoint in self._troubled)
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


def _reaching(info: PickInfo, reach: Reach) -> PickInfo:
    return PickInfo(exclude=info.exclude, reach=reach, key=info.key, among=info.among)


def _usable(snapshot: Snapshot) -> list[Instance]:
    up = [each for each in snapshot.instances if each.health in {Health.PASSING, Health.WARNING}]
    return up or [each for each in snapshot.instances if each.health is Health.CRITICAL]
