"""One call: its deadline, its attempts, and the budgets it draws on.

The deadline is one for the call, spent across attempts. In the common case the whole call runs in the caller's own
task: a pick, a send, a release. Only a hedged call starts tasks, two at most, and leaves none behind: the first answer
that is good enough wins and the other attempt is cancelled, which says nothing of its node.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec

from registry.timing import Clock
from smartclient.attempt import Sender, Terms, Tried
from smartclient.balancer import Balancer
from smartclient.endpoint import Endpoint, Lease
from smartclient.episode import Episode
from smartclient.errors import Attempt, CallFailed, DeadlineExceeded, NoEndpoints, Throttled
from smartclient.hedge import Hedger, HedgeRule
from smartclient.race import race
from smartclient.retry import IDEMPOTENT_METHODS, Failure, RetryBudget, RetryRule, Verdict, free_of_charge
from smartclient.stats import LatencyHistogram, Outcome
from smartclient.throttle import Throttle
from smartclient.transport import Answer, Request

log = logging.getLogger(__name__)

TICK = 0.001  # seconds; a timer may ring a moment before its time
UNREACHED = frozenset({Outcome.CONNECT_ERROR, Outcome.STALE, Outcome.CANCELLED})


class End(StrEnum):
    """How a call ended for whoever made it."""

    OK = "ok"  # an answer, 4xx included
    REFUSED = "refused"  # the last node asked answered 429 or 5xx
    FAILED = "failed"  # no node gave an answer
    DEADLINE = "deadline"  # its time ran out
    THROTTLED = "throttled"  # not sent, because nearly everything is refused
    NO_ENDPOINTS = "no_endpoints"  # the list offers nobody
    CANCELLED = "cancelled"  # the caller left
    ERROR = "error"  # it could not be sent as given, or the client was closed meanwhile


_ENDS: tuple[tuple[type[BaseException], End], ...] = (
    (Throttled, End.THROTTLED),
    (DeadlineExceeded, End.DEADLINE),
    (CallFailed, End.FAILED),
    (NoEndpoints, End.NO_ENDPOINTS),
    (asyncio.CancelledError, End.CANCELLED),
)


class Done(msgspec.Struct, frozen=True):
    """An answer, good or bad, and how it was come by.

    ``milliseconds``: the whole call; ``last_milliseconds``: its last attempt; ``failures``: the attempts before that.
    ``hide`` takes the client's token out of what was answered, for messages.
    """

    answer: Answer
    endpoint: Endpoint
    milliseconds: float
    last_milliseconds: float
    failures: tuple[Attempt, ...] = ()
    hide: Callable[[str], str] = str

    @property
    def attempts(self) -> int:
        """Attempts made in all."""
        return len(self.failures) + 1


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a call may cost beyond one attempt: see ``RetryRule``, ``HedgeRule`` (None: never) and ``Throttle``."""

    retry: RetryRule = RetryRule()
    hedge: HedgeRule | None = None
    throttle: bool = True


class Caller:
    """Makes calls to one service. Owns the budgets and the tallies; everything else is handed in."""

    def __init__(
        self,
        balancer: Balancer,
        sender: Sender,
        *,
        service: str,
        clock: Clock,
        rng: random.Random,
        limits: Limits,
    ) -> None:
        self.in_flight = 0
        self.calls = 0
        self.ends = dict.fromkeys(End, 0)
        self.retries = 0
        self.hedges = 0
        self.hedges_won = 0
        self.latencies = LatencyHistogram()
        self._balancer = balancer
        self._sender = sender
        self._service = service
        self._clock = clock
        self._rng = rng
        self._rule = limits.retry
        self._budget = RetryBudget()
        self._hedger = Hedger(limits.hedge) if limits.hedge else None
        self._throttle = Throttle() if limits.throttle else None
        self._throttling = Episode(
            log, service, begins="nodes refuse most calls, so some end here", ends="every call is sent again"
        )

    async def call(
        self,
        request: Request,
        *,
        within: float,
        idempotent: bool | None = None,
        elsewhere: bool = False,
        key: str = "",
        stream: bool = False,
    ) -> Done:
        """Send ``request`` to one node, or more if need be, within that many seconds.

        Returns the last answer whatever its status. ``idempotent`` None: by the method. ``elsewhere``: after a 404
        another node is asked as well. ``key``: see ``PickInfo``. ``stream``: the answer's body is still to be read.
        Raises ``NoEndpoints``, ``CallFailed`` when no node gave an answer, ``DeadlineExceeded``, ``Throttled``.
        """
        started = self._clock.monotonic()
        self.calls += 1
        if self._throttle is not None:
            if self._throttle.rejects(started, self._rng):
                self.ends[End.THROTTLED] += 1
                self._throttling.seen(started, f"{self._throttle.chance(started):.0%} of them for now")
                raise Throttled(self._throttled(request, started))
            if self._throttling.since is not None and not self._throttle.chance(started):
                self._throttling.over(started)
        self._budget.called(started)
        if idempotent is None:
            idempotent = request.method in IDEMPOTENT_METHODS
        terms = Terms(
            request=request,
            attempts=self._rule.attempts,
            resend=idempotent and request.repeatable,
            elsewhere=elsewhere,
            key=key,
            stream=stream,
        )
        self.in_flight += 1
        try:
            return await self._attempts(terms, started, started + within)
        except BaseException as error:
            self.ends[next((end for kind, end in _ENDS if isinstance(error, kind)), End.ERROR)] += 1
            raise
        finally:
            self.in_flight -= 1

    @property
    def failed(self) -> int:
        """Calls that ended without an answer."""
        return sum(self.ends.values()) - self.ends[End.OK] - self.ends[End.REFUSED]

    async def close(self) -> None:
        """End what was started beside calls."""
        await self._sender.prober.close()

    async def _attempts(self, terms: Terms, started: float, deadline: float) -> Done:
        tried: list[Endpoint] = []
        failures: list[Attempt] = []
        now, fresh = started, False
        while True:
            last = await self._attempt(terms, tried, failures, deadline, fresh)
            now = self._clock.monotonic()
            if self._throttle is not None and last.outcome not in UNREACHED:
                self._throttle.ended(now, accepted=last.outcome is Outcome.OK)
            if last.outcome is Outcome.OK and last.answer is not None and not self._elsewhere(terms, last, tried):
                break
            tried.append(last.endpoint)
            fresh = fresh or last.outcome is Outcome.STALE  # where one kept-alive connection was dead, others may be
            verdict = self._judge(last.outcome, tried, deadline - now, terms, now)
            if verdict.delay is None and last.answer is not None:
                break
            failures.append(Attempt(last.endpoint.name, last.reason, last.seconds * 1000))
            if last.answer is not None and last.answer.stream is not None:
                await last.answer.stream.close()
            if verdict.delay is None:
                spent = deadline - started if deadline - now < TICK else None
                raise self._error(terms.request, failures, verdict, spent) from last.failure
            self.retries += 1
            if verdict.delay > 0:
                await self._clock.sleep(verdict.delay)
                now = self._clock.monotonic()
                if now >= deadline:  # slept for longer than asked
                    raise self._error(terms.request, failures, verdict, deadline - started)
        self.latencies.observe(now - started)
        self.ends[End.OK if last.outcome is Outcome.OK else End.REFUSED] += 1
        whole, final = (now - started) * 1000, last.seconds * 1000
        return Done(last.answer, last.endpoint, whole, final, tuple(failures), self._sender.hide)

    async def _attempt(
        self, terms: Terms, tried: list[Endpoint], failures: list[Attempt], deadline: float, fresh: bool
    ) -> Tried:
        lease = await self._sender.lease(tried, terms.key)
        number, remaining = len(failures) + 1, deadline - lease.began
        delay = None if self._hedger is None else self._hedge_after(terms, lease.began, remaining)
        if delay is None:
            last = await self._sender.send(lease, terms, number=number, remaining=remaining, fresh=fresh)
        else:
            last = await self._hedged(lease, terms, tried, failures, deadline, delay=delay)
        if self._hedger is not None and last.outcome is Outcome.OK:
            self._hedger.observe(last.seconds, self._clock.monotonic())
        return last

    def _hedge_after(self, terms: Terms, now: float, remaining: float) -> float | None:
        if self._hedger is None:
            return None
        self._hedger.called(now)
        delay = self._hedger.delay(now) if terms.resend else None
        return delay if delay is not None and delay < remaining else None

    async def _hedged(
        self,
        lease: Lease,
        terms: Terms,
        tried: list[Endpoint],
        failures: list[Attempt],
        deadline: float,
        *,
        delay: float,
    ) -> Tried:
        """Attempt at the node of ``lease``, after ``delay`` seconds at another one as well; note what failed."""
        number = len(failures) + 1

        async def second() -> asyncio.Task[Tried] | None:
            if self._hedger is None or not self._hedger.withdraw(self._clock.monotonic()):
                return None
            other = await self._sender.lease([*tried, lease.endpoint], terms.key)
            if other.endpoint in (lease.endpoint, *tried):
                other.release(Outcome.CANCELLED)
                return None
            self.hedges += 1
            return self._start(other, terms, number + 1, deadline)

        *others, last = await race(self._start(lease, terms, number, deadline), delay, second, self._clock)
        self.hedges_won += last.endpoint is not lease.endpoint and last.outcome is Outcome.OK
        for each in others:
            tried.append(each.endpoint)
            failures.append(Attempt(each.endpoint.name, each.reason, each.seconds * 1000))
        return last

    def _start(self, lease: Lease, terms: Terms, number: int, deadline: float) -> asyncio.Task[Tried]:
        remaining = deadline - self._clock.monotonic()
        task = asyncio.create_task(self._sender.send(lease, terms, number=number, remaining=remaining))
        # A task that is cancelled before its first step never enters the lease's block.
        task.add_done_callback(lambda ended: lease.release(Outcome.CANCELLED) if ended.cancelled() else None)
        return task

    def _elsewhere(self, terms: Terms, last: Tried, tried: list[Endpoint]) -> bool:
        """Whether the node lacks what another one, not asked yet, may have."""
        lacking = terms.elsewhere and last.answer is not None and last.answer.status == 404
        return lacking and self._balancer.pushback([*tried, last.endpoint]) is None

    def _judge(self, outcome: Outcome, tried: list[Endpoint], remaining: float, terms: Terms, now: float) -> Verdict:
        failure = Failure(
            outcome=outcome,
            made=len(tried),
            remaining=remaining,
            idempotent=terms.resend,
            pushback=self._balancer.pushback(tried),
        )
        verdict = self._rule.judge(failure, self._rng)
        if verdict.delay is None or free_of_charge(outcome) or self._budget.withdraw(now, self.in_flight):
            return verdict
        return Verdict(None, "the budget for retries is spent")

    def _error(self, request: Request, failures: list[Attempt], verdict: Verdict, spent: float | None) -> CallFailed:
        what = f"{request.method} {request.target} of {self._service!r}"
        if spent is not None:
            return DeadlineExceeded(f"{what} got no answer within its {spent:.3g} s", failures)
        return CallFailed(f"{what} failed: {verdict.why}", failures)

    def _throttled(self, request: Request, now: float) -> str:
        chance = self._throttle.chance(now) if self._throttle is not None else 0.0
        return (
            f"{request.method} {request.target} of {self._service!r} was not sent: its nodes refused most of the calls"
            f" of the last 10 s, so {chance:.0%} of new ones end here; see `twostep lookup {self._service} --all`"
        )

    def snapshot(self) -> dict[str, Any]:
        """Return the tallies, quantiles of what good calls took (ms), and what the budgets refused and have left."""
        now = self._clock.monotonic()
        return {
            "calls": self.calls,
            "failed": self.failed,
            "in_flight": self.in_flight,
            "retries": self.retries,
            "retries_refused": self._budget.refused,
            "retries_left": round(self._budget.left(now, self.in_flight), 1),
            "hedges": self.hedges,
            "hedges_won": self.hedges_won,
            "hedges_refused": self._hedger.refused if self._hedger else 0,
            "throttled": self._throttle.rejected if self._throttle else 0,
            "probes": self._sender.prober.sent,
            **{f"p{share}_ms": _milliseconds(self.latencies.quantile(share / 100)) for share in (50, 95, 99)},
        }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
