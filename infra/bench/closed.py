"""A closed loop: so many clients, each of which asks again as soon as it has its answer.

What a turn is and what came of it, for the load generator and for the bare pipelines alike. Answers come in bursts, a
batch at a time, so a rate is taken from burst to burst: over a fixed window it would jump by a batch. Times are
seconds of one monotonic clock.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

import msgspec

# So many failures end a turn: something is wrong that more of them will not mend.
MOST_FAILURES = 64
# A server that has not answered every client by then, in seconds, is not measured.
LONGEST_WARM_UP = 60.0


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """At least ``warm`` seconds that do not count, and until every client has had an answer; then ``seconds`` that do.

    What is under way at the end is waited for. ``port`` and ``form`` are the server's, see ``infra.bench.pressure``; a
    bare pipeline has none.
    """

    clients: int
    warm: float
    seconds: float
    port: int = 0
    form: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a turn.

    ``rate``: answers a second; ``milliseconds``: how long those that count took; ``answered``: all of them, those of
    the warm-up too; ``other``: those that name another class than the image's own; ``cpu``: seconds of processor time
    of whoever took the turn.
    """

    rate: float
    milliseconds: list[float]
    answered: int
    other: int = 0
    cpu: float
    failed: int = 0
    first_failure: str = ""


class Tally:
    """Notes the answers of one turn, which begins at ``begin``."""

    def __init__(self, turn: Turn, begin: float) -> None:
        self.end = begin + LONGEST_WARM_UP
        self.failed = 0
        self._turn = turn
        self._warm = begin + turn.warm
        self._counts_from = math.inf
        self._without = turn.clients
        self._first_failure = ""
        self._other = 0
        self._times: list[float] = []
        self._milliseconds: list[float] = []

    def answered(self, now: float, sent: float, *, first: bool, own: bool = True) -> None:
        """Note an answer to what was sent at ``sent``; ``own``: it names the image's own class.

        The ``first`` of a client does not count: nobody was before it in the queue.
        """
        self._times.append(now)
        self._other += not own
        self._without -= first
        if self._counts_from == math.inf and self._without <= 0 and now >= self._warm:
            self._counts_from, self.end = now, now + self._turn.seconds
        elif self._counts_from < now <= self.end:
            self._milliseconds.append(round((now - sent) * 1e3, 2))

    def failure(self, what: str) -> None:
        """Note that no answer came, or none that can be."""
        self.failed += 1
        self._first_failure = self._first_failure or what

    def outcome(self, cpu: float) -> Outcome:
        """What came of it."""
        return Outcome(
            rate=round(rate(self._times, self._counts_from, self.end), 2),
            milliseconds=self._milliseconds,
            answered=len(self._times),
            other=self._other,
            cpu=cpu,
            failed=self.failed,
            first_failure=self._first_failure,
        )


def rate(times: Sequence[float], begin: float, end: float) -> float:
    """Answers a second, from the last one before ``begin`` to the last one before ``end``; ``times`` are in order."""
    first, last = bisect_right(times, begin), bisect_right(times, end)
    if last == first:
        return 0.0
    since = times[first - 1] if first else begin
    return (last - first) / (times[last - 1] - since)
