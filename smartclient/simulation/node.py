"""A simulated node: a queue in front of ``slots`` places, what befalls it, and what it says of its load.

It answers as ``twostep node`` does: first come, first served; 503 with ``Retry-After`` to what would wait too long;
what its client has given up is dropped before it takes a place; every answer tells the load. Where it differs: it
serves one request at a time in each place instead of batches, it predicts from an exponential mean of its times instead
of a line through the last 50 runs, and what it has begun it ends at the speed it began with.

What it says comes from what it can know (how many wait, how long its requests take on average); only ``finishes`` knows
the true times, and only the oracle asks for it.
"""

import math
from collections import deque

from registry.model import Instance
from smartclient.load import LoadReport
from smartclient.simulation.attempt import Attempt
from smartclient.simulation.scenario import Nodes
from smartclient.simulation.timeline import Timeline
from smartclient.stats import Outcome

LEARNS = 1.0 / 50.0  # share of a new service time in the mean
MEMORY = 5.0  # seconds in which busy share and rate fade to 1/e, as in the real node


class Node:
    """One node. ``instance``: what the registry says of it while it is listed."""

    __slots__ = (
        "_busy",
        "_busy_at",
        "_delay",
        "_hung_since",
        "_mean",
        "_queue",
        "_rate",
        "_rate_at",
        "_running",
        "_timeline",
        "ahead",
        "away",
        "dead",
        "instance",
        "missed",
        "sent",
        "spec",
        "speed",
    )

    def __init__(self, instance: Instance, spec: Nodes, timeline: Timeline, *, mean: float, delay: float) -> None:
        self.instance = instance
        self.spec = spec
        self.speed = spec.speed
        self.dead = False
        self.away = False
        self.missed = False  # the registry has noticed that it is hung or dead
        self.sent = 0
        self.ahead = 0.0  # seconds of work at speed 1 that was sent here and is not begun
        self._timeline = timeline
        self._delay = delay
        self._mean = mean / spec.speed  # warmed, as a node is before it is ready
        self._queue: deque[Attempt] = deque()
        self._running: list[Attempt] = []
        self._hung_since: float | None = None
        self._busy = self._rate = 0.0
        self._busy_at = self._rate_at = timeline.now

    @property
    def hung(self) -> bool:
        """Whether it stands still."""
        return self._hung_since is not None

    @property
    def ill(self) -> bool:
        """Whether it reports to the registry no longer."""
        return self.dead or self.hung

    def finishes(self, service: float) -> float:
        """When a request of so much work would be finished if it were sent now; only an oracle can know."""
        now, running = self._timeline.now, self._running
        if self.ill:
            return math.inf
        work = self.ahead / self.speed
        if len(running) < self.spec.slots:
            return now + work + service / self.speed
        work += sum(attempt.ends - now for attempt in running)
        return now + work / self.spec.slots + service / self.speed

    def arrive(self, attempt: Attempt) -> None:
        """Take a request in, or refuse it."""
        now = self._timeline.now
        if self.dead:
            self.ahead -= attempt.call.service
            self._answer(attempt, Outcome.CONNECT_ERROR)
        elif self._hung_since is not None:
            self._queue.append(attempt)
        elif len(self._running) < self.spec.slots:
            self._start(attempt, now)
        elif (wait := self.wait(now)) > min(self.spec.queue_limit, attempt.call.deadline - now):
            self.ahead -= attempt.call.service
            attempt.retry_after = max(1.0, math.ceil(wait - self.spec.queue_limit))
            attempt.report = self.report(now)
            self._answer(attempt, Outcome.OVERLOADED)
        else:
            self._queue.append(attempt)

    def wait(self, now: float) -> float:
        """Seconds until a request that came now would be begun, as far as the node can tell."""
        running, slots = self._running, self.spec.slots
        if len(running) < slots:
            return 0.0
        # A run that has overstayed by x is expected to need x more, so that a stuck one does not look idle.
        mean = self._mean
        rest = abs(mean - now + running[0].began)
        for attempt in running[1:]:
            rest = min(rest, abs(mean - now + attempt.began))
        return rest + len(self._queue) * mean / slots

    def asked(self) -> LoadReport:
        """What ``GET /load`` tells, as the client reads it one delay later."""
        return self._load(self._timeline.now)

    def report(self, now: float) -> LoadReport | None:
        """What an answer's header tells, if anything, as the client reads it one delay later."""
        return None if self.spec.tells == "nothing" else self._load(now)

    def _load(self, now: float) -> LoadReport:
        busy = len(self._running) / self.spec.slots
        return LoadReport(
            at=now + self._delay,
            wait=self.wait(now),
            in_flight=len(self._queue) + len(self._running),
            utilization=busy + (self._busy - busy) * math.exp((self._busy_at - now) / MEMORY),
            rps=self._rate * math.exp((self._rate_at - now) / MEMORY),
        )

    def hang(self) -> None:
        """Stand still."""
        self._hung_since = self._timeline.now

    def resume(self) -> None:
        """Go on where it stood."""
        now = self._timeline.now
        stood, self._hung_since = now - (self._hung_since or now), None
        for attempt in self._running:
            due, attempt.ends = attempt.ends <= now, attempt.ends + stood
            if due:  # the event of its end has passed while it stood still
                self._timeline.at(attempt.ends, self._finish, attempt)
        self._fill(now)

    def die(self) -> None:
        """Lose everything that it holds."""
        self._turn(self._timeline.now)
        self.ahead -= sum(attempt.call.service for attempt in self._queue)
        lost, self._running = [*self._running, *self._queue], []
        self._queue.clear()
        self.dead = True
        for attempt in lost:
            self._answer(attempt, Outcome.RESET)

    def begin_anew(self) -> None:
        """Take requests again."""
        self.dead = False

    def _answer(self, attempt: Attempt, outcome: Outcome) -> None:
        attempt.outcome = outcome
        self._timeline.at(self._timeline.now + self._delay, attempt.answered, attempt)

    def _start(self, attempt: Attempt, now: float) -> None:
        self._turn(now)
        service = attempt.call.service
        self.ahead -= service
        attempt.began = now
        attempt.ends = now + service / self.speed
        self._running.append(attempt)
        self._timeline.at(attempt.ends, self._finish, attempt)

    def _finish(self, attempt: Attempt) -> None:
        now = self._timeline.now
        if attempt not in self._running or self._hung_since is not None:
            return  # lost when it died; or it waits until the node goes on
        if attempt.ends > now:  # it stood still for a while
            self._timeline.at(attempt.ends, self._finish, attempt)
            return
        self._turn(now)
        self._running.remove(attempt)
        self._mean += (now - attempt.began - self._mean) * LEARNS
        self._rate = self._rate * math.exp((self._rate_at - now) / MEMORY) + 1.0 / MEMORY
        self._rate_at = now
        self._fill(now)
        attempt.report = self.report(now)
        self._answer(attempt, Outcome.OK)

    def _fill(self, now: float) -> None:
        queue = self._queue
        while queue and len(self._running) < self.spec.slots:
            attempt = queue.popleft()
            if attempt.lease.open:
                self._start(attempt, now)
            else:  # its client has left
                self.ahead -= attempt.call.service

    def _turn(self, now: float) -> None:
        """Note how busy it has been until now, before that changes."""
        busy = len(self._running) / self.spec.slots
        self._busy = busy + (self._busy - busy) * math.exp((self._busy_at - now) / MEMORY)
        self._busy_at = now
