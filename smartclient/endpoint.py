"""One node as the client sees it, and the lease that every pick returns.

An ``Endpoint`` joins what the registry says (``Instance``) with what the client has seen (counters, latency, the
node's own load report, attempts in flight, breaker). It outlives pickers and snapshots; only the balancer makes one. A
``Lease`` is closed exactly once, whatever happens: leaving its ``with`` block without a word, by cancellation too,
releases it as cancelled.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Self

import msgspec

from registry.model import Instance
from smartclient.breaker import Breaker, EjectionRule
from smartclient.load import META, LoadReport, from_header
from smartclient.stats import NEUTRAL, Outcome, PeakEwma

Key = tuple[str, str, str, int]


def key_of(instance: Instance) -> Key:
    """Return what makes an instance the same one later: machine, id, address and port."""
    return (instance.node, instance.id, instance.address, instance.port)


class SlowStart(msgspec.Struct, frozen=True):
    """A newcomer's share of its weight: ``max(floor, (t / window) ** (1 / aggression))`` (Envoy's formula).

    ``window``: seconds, 0 turns it off. ``floor``: Envoy's ``min_weight_percent``.
    """

    window: float = 10.0
    floor: float = 0.1
    aggression: float = 1.0

    def share(self, age: float) -> float:
        """The share (0 to 1) after ``age`` seconds."""
        if age >= self.window:
            return 1.0
        return max(self.floor, math.pow(age / self.window, 1.0 / self.aggression))


class Endpoint:
    """A node's instance, attempts in flight, statistics and breaker. Compared by identity.

    ``load_path``: where it answers for its load, empty when it does not. ``sent_since_report``: attempts this client
    has begun there since it last said how busy it is. ``picked``, ``ok``, ``failed``, ``overloaded``: attempts begun,
    and how they ended; ``failed`` counts what the breaker counts. ``oldest``, ``newest``: the ends of the chain of
    attempts under way. All of this stands in few objects, for a pick from thousands of nodes finds none of them in the
    processor's caches.
    """

    __slots__ = (
        "_report",
        "_said",
        "_slow_start",
        "breaker",
        "failed",
        "in_flight",
        "instance",
        "joined",
        "key",
        "latency",
        "load_path",
        "newest",
        "ok",
        "oldest",
        "overloaded",
        "picked",
        "probe_latency",
        "sent_since_report",
        "unanswered_probes",
        "url",
        "weight",
    )

    def __init__(self, instance: Instance, rule: EjectionRule, slow_start: SlowStart | None = None) -> None:
        self.key = key_of(instance)
        self.in_flight = 0
        self.picked = self.ok = self.failed = self.overloaded = 0
        self.breaker = Breaker(rule)
        self.latency = PeakEwma()
        self.probe_latency = PeakEwma()
        self.unanswered_probes = 0
        self._report: LoadReport | None = None
        self._said: tuple[str, float] | None = None  # a header not parsed yet, and when it came
        self.sent_since_report = 0
        self.oldest: Lease | None = None
        self.newest: Lease | None = None
        self.joined: float | None = None  # monotonic seconds; None: no slow start, or it is over
        self._slow_start = slow_start or SlowStart()
        self.update(instance)

    @property
    def name(self) -> str:
        """The instance's id."""
        return self.instance.id

    def update(self, instance: Instance) -> None:
        """Take over what the registry now says of the same instance."""
        self.instance = instance
        self.url = instance.url
        self.weight = max(0, instance.weight)
        path = instance.meta.get(META, "")
        self.load_path = path if path.startswith("/") else ""

    def count(self, outcome: Outcome) -> None:
        """Add one ended attempt; stale connections and cancelled calls are neither good nor bad."""
        if outcome is Outcome.OK:
            self.ok += 1
        elif outcome is Outcome.OVERLOADED:
            self.overloaded += 1
        elif outcome not in NEUTRAL:
            self.failed += 1

    def start_slowly(self, now: float) -> None:
        """Begin at a small share of its weight, as a node that has just joined or returned."""
        self.joined = now if self._slow_start.window > 0 else None

    def share(self, now: float) -> float:
        """The share (0 to 1) of its weight that it should have now; 1 but for newcomers."""
        if self.joined is None:
            return 1.0
        share = self._slow_start.share(now - self.joined)
        if share >= 1.0:
            self.joined = None
        return share

    @property
    def report(self) -> LoadReport | None:
        """What the node last said of its load."""
        if self._said is not None:
            self._report = from_header(*self._said) or self._report
            self._said = None
        return self._report

    def heard(self, report: LoadReport) -> None:
        """Take over what the node answered when it was asked for its load."""
        self._report, self._said = report, None
        self.sent_since_report = 0

    def said(self, header: str, now: float) -> None:
        """Take over the load that an answer's header tells; it is read when somebody asks for it, for most do not."""
        self._said = (header, now)
        self.sent_since_report = 0

    def expected(self, now: float) -> float:
        """Seconds that an answer is likely to take, 0 when nothing is known.

        The peak average; or, when more than half of the attempts under way are already older than that, their mean
        age: a node that hangs is seen before it has answered anything (kratos does the same).
        """
        mean = self.latency.read(now)
        if self.oldest is None or now - self.oldest.began <= mean:
            return mean
        older = [age for lease in self.leases() if (age := now - lease.began) > mean]
        return sum(older) / len(older) if len(older) > self.in_flight // 2 else mean

    def leases(self) -> Iterator["Lease"]:
        """Yield the attempts under way, oldest first."""
        lease = self.oldest
        while lease is not None:
            following = lease.newer  # whoever looks may end this one
            yield lease
            lease = following

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return its observable state; times in milliseconds but for ``back_in_s``."""
        report = self.report
        return {
            "id": self.instance.id,
            "endpoint": self.instance.endpoint,
            "health": str(self.instance.health),
            "zone": self.instance.zone,
            "version": self.instance.version,
            "weight": self.weight,
            "share": round(self.share(now), 3),
            "state": self.breaker.state(now),
            "back_in_s": round(self.breaker.remaining(now), 3),
            "in_flight": self.in_flight,
            "latency_ms": round(self.latency.value * 1000, 3),
            "wait_ms": round(report.wait * 1000, 3) if report and report.wait is not None else None,
            "picked": self.picked,
            "ok": self.ok,
            "failed": self.failed,
            "overloaded": self.overloaded,
        }

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} {self.instance.endpoint} in_flight={self.in_flight}>"


Settle = Callable[["Lease", Outcome, float | None, float | None], None]
GiveUp = Callable[[], None]


class Lease:
    """The right to send one attempt to ``endpoint``; in-flight went up when it was made, and goes down once.

    ``began``: when it was made, in monotonic seconds. ``release(outcome, retry_after)`` says how it ended; a second
    release changes nothing. ``give_up``, where whoever waits has set it, ends the wait at once: ``abandon`` calls it
    when the node turns out to be hung.
    """

    __slots__ = ("_settle", "began", "endpoint", "epoch", "give_up", "kept", "newer", "older", "open", "probe")

    def __init__(self, endpoint: Endpoint, now: float, settle: Settle) -> None:
        breaker = endpoint.breaker
        self.endpoint = endpoint
        self.began = now
        self.probe = not breaker.calm and breaker.begin(now)
        self.epoch = breaker.epoch
        self.open = True
        self.kept = False
        self.give_up: GiveUp | None = None
        self._settle = settle
        endpoint.in_flight += 1
        endpoint.sent_since_report += 1
        endpoint.picked += 1
        self.newer: Lease | None = None
        self.older = endpoint.newest
        if self.older is None:
            endpoint.oldest = self
        else:
            self.older.newer = self
        endpoint.newest = self

    def release(self, outcome: Outcome, retry_after: float | None = None, *, took: float | None = None) -> None:
        """Close it with how the attempt ended.

        ``retry_after``: seconds the node asked to be left alone. ``took``: seconds to count as its latency, None for
        the time since it was made.
        """
        if self.open:
            self.open = False
            endpoint = self.endpoint
            endpoint.in_flight -= 1
            endpoint.count(outcome)
            self._settle(self, outcome, retry_after, took)
            self._leave_the_chain()

    def _leave_the_chain(self) -> None:
        older, newer, endpoint = self.older, self.newer, self.endpoint
        if older is None:
            endpoint.oldest = newer
        else:
            older.newer = newer
        if newer is None:
            endpoint.newest = older
        else:
            newer.older = older
        self.older = self.newer = None

    def keep(self) -> Self:
        """Leave it open at the end of its ``with`` block, for whoever reads the rest of the answer to release."""
        self.kept = True
        return self

    def waits(self, give_up: GiveUp) -> None:
        """Let ``abandon`` call ``give_up`` while this is open."""
        self.give_up = give_up

    def abandon(self) -> None:
        """End the wait for the answer, where somebody said how."""
        if self.open and self.give_up is not None:
            self.give_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.open and not self.kept:
            self.release(Outcome.CANCELLED)
