"""A simulated client: the real balancer, retry rule, budget and throttle, with events in the place of awaits.

It does what ``smartclient.call``, ``attempt`` and ``probe`` do, step for step, but for this: calls may always be made
again (inference is idempotent), nothing is hedged, connections are there already, and a refused probe counts as the
last to come back. When a node that hangs is ejected, the calls that wait for it try another one.
"""

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from smartclient.balancer import Balancer
from smartclient.call import UNREACHED
from smartclient.endpoint import Endpoint, Lease
from smartclient.errors import NoEndpoints
from smartclient.load import LoadReport
from smartclient.policy import PickInfo
from smartclient.probe import limit
from smartclient.retry import Failure, RetryBudget, RetryRule, free_of_charge
from smartclient.simulation.attempt import Attempt, Call
from smartclient.simulation.node import Node
from smartclient.simulation.timeline import Timeline
from smartclient.stats import Outcome
from smartclient.throttle import Throttle

Ended = Callable[[Call, bool], None]


class Client:
    """One client. ``nodes``: by instance id. ``ended(call, ok)`` is told of every call's end."""

    def __init__(
        self,
        timeline: Timeline,
        balancer: Balancer,
        nodes: Mapping[str, Node],
        *,
        rng: random.Random,
        delay: float,
        ended: Ended,
    ) -> None:
        self.balancer = balancer
        self._timeline = timeline
        self._nodes = nodes
        self._rng = rng
        self._delay = delay
        self._ended = ended
        self._rule = RetryRule()
        self._budget = RetryBudget()
        self._throttle = Throttle()
        self._in_flight = 0
        self._deadlines: deque[Call] = deque()  # of calls in the order they began, some of them ended by now

    def begin(self, call: Call) -> None:
        """Make a call."""
        now = self._timeline.now
        self._in_flight += 1
        if self._throttle.rejects(now, self._rng):
            self._end(call, ok=False)
            return
        self._budget.called(now)
        if not self._deadlines:
            self._timeline.at(call.deadline, self._expire)
        self._deadlines.append(call)
        self._attempt(call)

    def answered(self, attempt: Attempt) -> None:
        """Take the answer to an attempt, or the news that there is none."""
        lease, outcome = attempt.lease, attempt.outcome
        if not lease.open:
            return
        if attempt.report is not None:
            lease.endpoint.heard(attempt.report)
        _release(lease, outcome, attempt.retry_after)
        if outcome not in UNREACHED:
            self._throttle.ended(self._timeline.now, accepted=outcome is Outcome.OK)
        if outcome is Outcome.OK:
            self._end(attempt.call, ok=True)
        else:
            self._again(attempt.call, lease.endpoint, outcome)

    def _attempt(self, call: Call) -> None:
        if not call.open:
            return
        candidates = self.balancer.candidates(call.info)
        if candidates:
            question = _Question(call, candidates, self._timeline.now)
            self._timeline.at(self._timeline.now + self._delay, self._reach, question)
        else:
            self._send(call, call.info)

    def _send(self, call: Call, info: PickInfo) -> None:
        try:
            lease = self.balancer.pick(info)
        except NoEndpoints:
            self._end(call, ok=False)
            return
        attempt = call.attempt = Attempt(call, lease, self.answered)
        lease.give_up = lambda: self._timeline.at(self._timeline.now, self._given_up, attempt)
        node = self._nodes[lease.endpoint.instance.id]
        node.sent += 1
        node.ahead += call.service
        self._timeline.at(self._timeline.now + self._delay, node.arrive, attempt)

    def _given_up(self, attempt: Attempt) -> None:
        if attempt.lease.open:
            attempt.outcome = Outcome.TIMEOUT
            self.answered(attempt)

    def _expire(self, _: None) -> None:
        """End the calls whose deadline has come."""
        deadlines, now = self._deadlines, self._timeline.now
        while deadlines and (deadlines[0].deadline <= now or not deadlines[0].open):
            call = deadlines.popleft()
            if call.open:
                if call.attempt is not None and call.attempt.lease.open:
                    _release(call.attempt.lease, Outcome.TIMEOUT)
                    self._throttle.ended(now, accepted=False)
                self._end(call, ok=False)
        if deadlines:
            self._timeline.at(deadlines[0].deadline, self._expire)

    def _again(self, call: Call, failed: Endpoint, outcome: Outcome) -> None:
        now = self._timeline.now
        call.tried += (failed,)
        failure = Failure(
            outcome=outcome,
            made=len(call.tried),
            remaining=call.deadline - now,
            idempotent=True,
            pushback=self.balancer.pushback(call.tried),
        )
        delay = self._rule.judge(failure, self._rng).delay
        if delay is None or not (free_of_charge(outcome) or self._budget.withdraw(now, self._in_flight)):
            self._end(call, ok=False)
            return
        call.info = PickInfo(exclude=call.tried, key=call.info.key)
        self._timeline.at(now + delay, self._attempt, call)

    def _end(self, call: Call, *, ok: bool) -> None:
        self._in_flight -= 1
        call.open = False
        call.attempt = None
        self._ended(call, ok)

    def _reach(self, question: "_Question") -> None:
        """The question is with the nodes: what they say now is heard one delay later."""
        for endpoint in question.candidates:
            node = self._nodes[endpoint.instance.id]
            if not node.hung:
                question.answers[endpoint] = None if node.dead else node.asked()
        self._timeline.at(self._timeline.now + self._delay, self._hear, question)

    def _hear(self, question: "_Question") -> None:
        now = self._timeline.now
        idle = False
        for endpoint, report in question.answers.items():
            if report is not None:
                endpoint.probe_latency.observe(now - question.began, now)
                endpoint.unanswered_probes = 0
                endpoint.heard(report)
                question.heard.append(endpoint)
                idle = idle or not (report.wait or report.in_flight)
        if question.heard:
            for endpoint, report in question.answers.items():
                if report is None:
                    self.balancer.unanswered(endpoint)
        silent = [endpoint for endpoint in question.candidates if endpoint not in question.answers]
        if idle or not silent:
            self._choose(question)
        if silent:
            question.silent = silent
            until = question.began + max(limit(endpoint, question.began) for endpoint in silent)
            self._timeline.at(until, self._miss, question)

    def _miss(self, question: "_Question") -> None:
        """Give those up that have not answered in time."""
        if question.heard:
            for endpoint in question.silent:
                self.balancer.unanswered(endpoint)
        self._choose(question)

    def _choose(self, question: "_Question") -> None:
        if question.call.open and not question.chosen:
            question.chosen = True
            info = question.call.info
            self._send(question.call, PickInfo(exclude=info.exclude, key=info.key, among=question.heard))


def _release(lease: Lease, outcome: Outcome, retry_after: float | None = None) -> None:
    lease.release(outcome, retry_after)
    lease.give_up = None  # else lease and attempt hold each other, and nothing collects cycles during a run


class _Question:
    """What one call asks some nodes before it picks. ``answers``: None from a node that refused."""

    __slots__ = ("answers", "began", "call", "candidates", "chosen", "heard", "silent")

    def __init__(self, call: Call, candidates: Sequence[Endpoint], began: float) -> None:
        self.call = call
        self.candidates = candidates
        self.began = began
        self.answers: dict[Endpoint, LoadReport | None] = {}
        self.heard: list[Endpoint] = []
        self.silent: Sequence[Endpoint] = ()
        self.chosen = False
