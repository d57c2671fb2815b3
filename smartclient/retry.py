"""May a failed attempt be made again, and when: a pure rule and a budget.

The rule: a failure to connect is always safe to repeat, for nothing was sent; anything else only when the request is
idempotent (by its method, or because the caller says so). The second attempt goes to another node at once; from then
on, or where there is no other node, a full-jitter back-off comes first, on top of what those nodes asked for with
``Retry-After``. Everything stays inside the call's one deadline.

The budget bounds what retries may add to a fleet in trouble. In any 10 s it lets through

    the largest of 20 % of the calls begun, 10 (1/s), and the calls now in flight

Proportion, rate and window are Finagle's and Linkerd's, the rate a tenth of theirs, which would never bind for a slow
client; they add the rate where this takes the larger, so that a fleet in trouble sees 20 % more and not a bit above.
The calls in flight are there because a node that dies takes its share of them with it at one moment: with 32 in flight
over three nodes 11 fail at once, and each deserves one more try. In an outage that term is small (calls in flight =
rate x duration). Failures to connect, and kept-alive connections that turn out closed, cost nothing: they put no work
on anybody (gRPC calls these retries transparent), and ejection soon ends them.
"""

import random

import msgspec

from registry.timing import Backoff
from smartclient.stats import Outcome
from smartclient.window import SECONDS, Window

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
"""RFC 9110, section 9.2.2, less TRACE, which nobody sends."""

SHARE = 0.2
"""Retries for each call begun."""

PER_SECOND = 1.0
"""Retries that are always allowed, so that a client with few calls has any at all."""


class RetryBudget:
    """Calls and retries of the last ten seconds."""

    __slots__ = ("_calls", "_retries", "refused")

    def __init__(self) -> None:
        self._calls = Window()
        self._retries = Window()
        self.refused = 0

    def called(self, now: float) -> None:
        """Note that a call begins."""
        self._calls.add(now)

    def withdraw(self, now: float, in_flight: int) -> bool:
        """Take one retry if the budget has it. ``in_flight``: calls under way now, this one included."""
        if self._retries.total(now) + 1 > self.allowance(now, in_flight):
            self.refused += 1
            return False
        self._retries.add(now)
        return True

    def left(self, now: float, in_flight: int) -> float:
        """Retries that it would let through now."""
        return max(0.0, self.allowance(now, in_flight) - self._retries.total(now))

    def allowance(self, now: float, in_flight: int) -> float:
        """Retries that the window may hold at present."""
        return max(SHARE * self._calls.total(now), PER_SECOND * SECONDS, in_flight)


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The facts the rule needs of the attempt that just failed.

    ``made``: attempts so far. ``remaining``: seconds left of the deadline. ``pushback``: None when a node not yet tried
    may be asked at once, else the seconds for which those that can be asked want to be left alone (mostly 0).
    """

    outcome: Outcome
    made: int
    remaining: float
    idempotent: bool
    pushback: float | None = None


class Verdict(msgspec.Struct, frozen=True):
    """Try again after ``delay`` seconds; None means no, for the reason ``why``."""

    delay: float | None
    why: str = ""


class RetryRule(msgspec.Struct, frozen=True, kw_only=True):
    """At most ``attempts`` in all; ``backoff`` from the third on, or from the second where there is no other node."""

    attempts: int = 3
    backoff: Backoff = Backoff(base=0.05, cap=2.0)

    def judge(self, failure: Failure, rng: random.Random) -> Verdict:
        """Decide about the attempt that failed; the budget is asked by the caller, after this."""
        if failure.made >= self.attempts:
            return Verdict(None, f"all {self.attempts} attempts are used")
        if failure.outcome is not Outcome.CONNECT_ERROR and not failure.idempotent:
            return Verdict(None, "it may have been carried out; pass idempotent=True if doing it twice is harmless")
        delay = 0.0
        if failure.made > 1 or failure.pushback is not None:
            delay = self.backoff.delay(failure.made - 1, rng) + (failure.pushback or 0.0)
        if delay >= failure.remaining:
            return Verdict(None, "no time is left for another attempt")
        return Verdict(delay)


def free_of_charge(outcome: Outcome) -> bool:
    """Whether a retry after ``outcome`` is made without asking the budget."""
    return outcome in {Outcome.CONNECT_ERROR, Outcome.STALE}
