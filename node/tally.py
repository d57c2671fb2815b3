"""What one model has done since it was loaded, in the terms of Triton's statistics extension.

Counts of requests and rows, and their sums of time in nanoseconds, for ``/v2/models/NAME/stats``; Prometheus' metrics
are kept elsewhere. Pure: time comes as seconds.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Duration:
    """How often, and how long in all (nanoseconds)."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self.ns += round(seconds * 1e9)


@dataclass(slots=True)
class Tally:
    """Counts of one loaded version; ``last`` is when it last answered, milliseconds since the epoch."""

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    rows: int = 0
    runs: int = 0
    last: int = 0
    batches: dict[int, Duration] = field(default_factory=dict)

    def answered(self, rows: int, queued: float, ran: float, now: float) -> None:
        """Count an item of ``rows`` rows; ``now`` in seconds since the epoch."""
        self.success.add(queued + ran)
        self.queue.add(queued)
        self.infer.add(ran)
        self.rows += rows
        self.last = round(now * 1e3)

    def failed(self) -> None:
        """Count an item that came to nothing."""
        self.fail.add(0.0)

    def ran(self, size: int, seconds: float) -> None:
        """Count one batch of ``size`` rows."""
        self.runs += 1
        self.batches.setdefault(size, Duration()).add(seconds)
