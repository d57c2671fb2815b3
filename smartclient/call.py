"""One call: its deadline, its attempts, and the facts it is judged by.

The hot path is a pick, a send and a release in the caller's own task; nothing is started beside it. The deadline is
one for the call, spent across attempts, and each node is told what is left of it (``x-envoy-expected-rq-timeout-ms``)
and which attempt this is (``x-envoy-attempt-count``). Making a connection gets at most ``CONNECT_TIMEOUT``, or an even
share of what is left, so that a host that swallows packets cannot eat the deadline.
"""

import random
from typing import Any

import msgspec

from registry.timing import Clock
from smartclient.balancer import Balancer
from smartclient.endpoint import Endpoint
from smartclient.errors import Attempt, CallFailed, DeadlineExceeded
from smartclient.policy import ANY, PickInfo
from smartclient.retry import IDEMPOTENT_METHODS, Failure, RetryBudget, RetryRule, Verdict, free_of_charge
from smartclient.stats import Outcome
from smartclient.transport import Answer, Request, Transport, TransportFailure, outcome_of, retry_after

CONNECT_TIMEOUT = 1.5  # seconds; a lost first packet is repeated after 1 s (RFC 6298) and still gets through


class Done(msgspec.Struct, frozen=True):
    """An answer, good or bad, and how it was come by.

    ``milliseconds``: the whole call; ``last_milliseconds``: its last attempt; ``failures``: the attempts before that.
    """

    answer: Answer
    endpoint: Endpoint
    milliseconds: float
    last_milliseconds: float
    failures: tuple[Attempt, ...] = ()

    @property
    def attempts(self) -> int:
        """Attempts made in all."""
        return len(self.failures) + 1


class Caller:
    """Makes calls to one service. Owns the retry budget; everything else is handed in."""

    def __init__(
        self,
        balancer: Balancer,
        transport: Transport,
        *,
        service: str,
        clock: Clock,
        rng: random.Random,
        rule: RetryRule,
    ) -> None:
        self.in_flight = 0
        self.calls = 0
        self.retries = 0
        self._balancer = balancer
        self._transport = transport
        self._service = service
        self._clock = clock
        self._rng = rng
        self._rule = rule
        self._budget = RetryBudget()

    async def call(self, request: Request, *, within: float, idempotent: bool | None = None) -> Done:
        """Send ``request`` to one node, or more if need be, within that many seconds.

        Returns the last answer whatever its status. ``idempotent`` None: by the method. Raises ``NoEndpoints``,
        ``CallFailed`` when no node gave an answer, ``DeadlineExceeded``.
        """
        started = self._clock.monotonic()
        self.calls += 1
        self.in_flight += 1
        self._budget.called(started)
        if idempotent is None:
            idempotent = request.method in IDEMPOTENT_METHODS
        try:
            return await self._attempts(request, started, started + within, idempotent)
        finally:
            self.in_flight -= 1

    async def _attempts(self, request: Request, started: float, deadline: float, idempotent: bool) -> Done:
        tried: list[Endpoint] = []
        failures: list[Attempt] = []
        now, fresh = started, False
        while True:
            endpoint, outcome, answer, failure = await self._attempt(request, tried, deadline - now, fresh)
            before, now = now, self._clock.monotonic()
            if answer is not None and outcome is Outcome.OK:
                break
            tried.append(endpoint)
            fresh = fresh or outcome is Outcome.STALE  # where one kept-alive connection was dead, others may be
            verdict = self._judge(outcome, tried, deadline - now, idempotent, now)
            if verdict.delay is None and answer is not None:
                break
            reason = str(failure) if answer is None else f"HTTP {answer.status}"
            failures.append(Attempt(endpoint.name, reason, (now - before) * 1000))
            if verdict.delay is None:
                out_of_time = outcome is Outcome.TIMEOUT or now >= deadline
                raise self._error(request, failures, verdict, deadline - started if out_of_time else None) from failure
            self.retries += 1
            if verdict.delay > 0:
                await self._clock.sleep(verdict.delay)
                now = self._clock.monotonic()
                if now >= deadline:  # slept for longer than asked
                    raise self._error(request, failures, verdict, deadline - started)
        return Done(answer, endpoint, (now - started) * 1000, (now - before) * 1000, tuple(failures))

    async def _attempt(
        self, request: Request, tried: list[Endpoint], remaining: float, fresh: bool
    ) -> tuple[Endpoint, Outcome, Answer | None, TransportFailure | None]:
        with self._balancer.pick(PickInfo(exclude=tried) if tried else ANY) as lease:
            headers = {
                "x-envoy-expected-rq-timeout-ms": str(max(1, int(remaining * 1000))),
                "x-envoy-attempt-count": str(len(tried) + 1),
            }
            share = remaining / (self._rule.attempts - len(tried))
            try:
                answer = await self._transport.send(
                    lease.endpoint.url,
                    request,
                    headers,
                    within=remaining,
                    connect_within=min(CONNECT_TIMEOUT, share),
                    fresh=fresh,
                )
            except TransportFailure as failure:
                lease.release(failure.outcome)
                return lease.endpoint, failure.outcome, None, failure
            outcome = outcome_of(answer.status, answer.headers)
            lease.release(outcome, retry_after(answer.headers) if outcome is Outcome.OVERLOADED else None)
            return lease.endpoint, outcome, answer, None

    def _judge(
        self, outcome: Outcome, tried: list[Endpoint], remaining: float, idempotent: bool, now: float
    ) -> Verdict:
        pushback = self._balancer.pushback(tried)
        failure = Failure(
            outcome=outcome, made=len(tried), remaining=remaining, idempotent=idempotent, pushback=pushback
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

    def snapshot(self) -> dict[str, Any]:
        """Return calls, retries and what the retry budget refused."""
        return {
            "calls": self.calls,
            "in_flight": self.in_flight,
            "retries": self.retries,
            "retries_refused": self._budget.refused,
        }
