"""Leaving a failing endpoint out for a while: a state machine of (its own state, outcome, now, rng), no I/O.

    closed --3 connect failures or 5 failures of any kind in a row, or half of the last 50--> ejected
    ejected --time is up--> probation: one request at a time --it works--> closed
                                                             --it fails--> ejected, longer

The numbers: 5 in a row is Envoy's ``consecutive_5xx``; refused connections say more, so 3 of them do. Half of the last
50 (of 20 at least) is for a node that fails often but never 5 times running; Envoy's 85 % waits for a node that is all
but dead. 30 s times the number of ejections, at most 300 s, are Envoy's base and maximum ejection time; the jitter is
ours, so that clients do not return as a herd. A node that asks for quiet (429, 503 with Retry-After) cools down and is
not counted as broken. How many endpoints may be out at once is the balancer's to say (``may_eject``).
"""

import random
from collections import deque
from enum import IntEnum
from typing import Literal

import msgspec

from smartclient.stats import NEUTRAL, Outcome

State = Literal["closed", "ejected", "probation", "cooling"]

LONGEST_COOL_DOWN = 30.0


class Reach(IntEnum):
    """How far down a pick may go: well endpoints only, those cooling down as well, ejected ones as well."""

    WELL = 0
    COOLING = 1
    EJECTED = 2


class EjectionRule(msgspec.Struct, frozen=True, kw_only=True):
    """When to eject and for how long (seconds).

    In a row: ``connect_failures`` or ``failures`` of any kind; or ``share`` of the last ``window`` attempts, once there
    are ``least``. ``jitter`` is the share by which a time may be shortened.
    """

    connect_failures: int = 3
    failures: int = 5
    share: float = 0.5
    window: int = 50
    least: int = 20
    base: float = 30.0
    longest: float = 300.0
    jitter: float = 0.2

    def duration(self, ejections: int, rng: random.Random) -> float:
        """Seconds to stay out at the ``ejections``-th ejection in a row (from 1)."""
        return min(self.longest, self.base * ejections) * (1.0 - self.jitter * rng.random())


class Breaker:
    """The state of one endpoint. Whoever picks calls ``begin``; whoever releases calls ``record`` with its answer.

    ``calm`` is True while nothing at all is wrong: the quick path of a pick.
    """

    __slots__ = (
        "_connect_failures",
        "_cool_until",
        "_failures",
        "_healthy_since",
        "_probing",
        "_recent",
        "_rule",
        "_until",
        "calm",
        "ejected",
        "ejections",
        "epoch",
    )

    def __init__(self, rule: EjectionRule) -> None:
        self._rule = rule
        self._connect_failures = 0
        self._failures = 0
        self._until = 0.0
        self._cool_until = 0.0
        self._healthy_since = 0.0
        self._probing = False
        self._recent: deque[bool] | None = None  # True is a failure; None while there is none: most never have one
        self.calm = True
        self.ejected = False
        self.ejections = 0
        self.epoch = 0  # counts ejections for ever; an attempt begun in an earlier epoch proves nothing now

    def available(self, now: float, reach: Reach = Reach.WELL) -> bool:
        """Whether a request may be sent: closed and not cooling, or on probation with no probe under way."""
        if self.calm or reach is Reach.EJECTED:
            return True
        if now < self._cool_until and reach is Reach.WELL:
            return False
        if self.ejected:
            return now >= self._until and not self._probing
        self._settle(now)
        return True

    def begin(self, now: float) -> bool:
        """Note that an attempt starts; True when it is the probe."""
        if self.ejected and now >= self._until and not self._probing:
            self._probing = True
            return True
        return False

    def record(
        self, outcome: Outcome, *, epoch: int, probe: bool, now: float, rng: random.Random, may_eject: bool
    ) -> None:
        """Note how an attempt ended that began in ``epoch``. ``may_eject`` False keeps it in all the same."""
        if probe:
            self._probing = False
        if outcome is Outcome.OK or outcome is Outcome.OVERLOADED:
            self._succeeded(epoch, now)
        elif outcome not in NEUTRAL and (self.ejected or epoch == self.epoch):
            self._failed(outcome, probe=probe, now=now, rng=rng, may_eject=may_eject)

    def cool(self, seconds: float, now: float) -> None:
        """Leave it alone for ``seconds`` (at most 30), as it asked."""
        self._cool_until = max(self._cool_until, now + min(seconds, LONGEST_COOL_DOWN))
        self.calm = False

    def eject(self, now: float, rng: random.Random) -> None:
        """Leave it out from ``now`` on, for longer each time."""
        self.calm = False
        self.ejected = True
        self.ejections += 1
        self.epoch += 1
        self._connect_failures = self._failures = 0
        self._recent = None
        self._until = now + self._rule.duration(self.ejections, rng)

    def returned(self, now: float) -> None:
        """Note that the registry lists it again after an absence: its next request is the probe, at once."""
        self._until = min(self._until, now)

    def state(self, now: float) -> State:
        """Where it stands, in one word."""
        if self.ejected:
            return "probation" if now >= self._until else "ejected"
        return "cooling" if now < self._cool_until else "closed"

    def cooling(self, now: float) -> float:
        """Seconds for which it still asks to be left alone."""
        return max(0.0, self._cool_until - now)

    def remaining(self, now: float) -> float:
        """Seconds until it may be tried again; 0 when it may be now."""
        return max(self.cooling(now), self._until - now if self.ejected else 0.0)

    def _succeeded(self, epoch: int, now: float) -> None:
        self._connect_failures = self._failures = 0
        if self.calm:
            return
        if self._recent is not None:
            self._recent.append(False)
        if self.ejected:
            if epoch != self.epoch:
                return  # answered what was sent before the ejection
            self.ejected = False
            self._healthy_since = now
        elif self.ejections and now - self._healthy_since >= self._rule.base:
            self.ejections -= 1  # every healthy stretch makes the next ejection a step shorter
            self._healthy_since = now
        self._settle(now)

    def _failed(self, outcome: Outcome, *, probe: bool, now: float, rng: random.Random, may_eject: bool) -> None:
        self.calm = False
        self._failures += 1
        self._connect_failures = self._connect_failures + 1 if outcome is Outcome.CONNECT_ERROR else 0
        if self.ejected:
            if probe:
                self.eject(now, rng)
            return
        if self._recent is None:
            self._recent = deque(maxlen=self._rule.window)
        self._recent.append(True)
        if may_eject and self._over(self._recent):
            self.eject(now, rng)

    def _over(self, recent: deque[bool]) -> bool:
        rule = self._rule
        if self._failures >= rule.failures or self._connect_failures >= rule.connect_failures:
            return True
        return len(recent) >= rule.least and sum(recent) >= rule.share * len(recent)

    def _settle(self, now: float) -> None:
        if self._recent is not None and True not in self._recent:
            self._recent = None
        self.calm = not (self.ejected or self.ejections or self._failures or self._recent or now < self._cool_until)
