"""What is kept of the clients' reports: sums for each client, each instance, and each pair of them.

Counts are of the last half to whole of a window, in two parts that take turns when the client reports. A rate is counts
over the seconds that the reports were about, so it is right from the first report on and a lost one does not lower it.
Sums over the clients of an instance are kept up to date by difference, because a page asks for a hundred at once.
"""

from msgspec import Struct
from msgspec.structs import replace

from registry.dashboard.latencies import HALF, Recent, quantiles
from registry.dashboard.model import Caller
from registry.dashboard.wire import Report

LEFT_OUT = frozenset({"ejected", "probation"})
"""States in which a client sends an instance nothing, but for a single trial."""


class PairTraffic(Struct, frozen=True, kw_only=True):
    """One client's attempts at one instance over the last minute or so; ``state`` as in ``wire.NodeReport``.

    ``p50``, ``p99``: milliseconds, None where none were measured.
    """

    client: str
    instance: str
    rps: float
    success: float | None = None
    p50: float | None = None
    p99: float | None = None
    in_flight: int = 0
    state: str = ""


class Pair:
    """One client's attempts at one instance. ``rate``, ``good``: all, and those that went well, a second."""

    __slots__ = ("ended", "ended_before", "good", "in_flight", "instance", "ok", "ok_before", "rate", "state", "times")

    def __init__(self, instance: "Target", times: Recent | None) -> None:
        self.instance = instance
        self.ended = self.ended_before = self.ok = self.ok_before = 0
        self.rate = self.good = 0.0
        self.in_flight = 0
        self.state = ""
        self.times = times

    def turn(self) -> None:
        """Begin the next half of the window."""
        self.ended_before, self.ok_before = self.ended, self.ok
        self.ended = self.ok = 0

    @property
    def idle(self) -> bool:
        """Whether nothing of it is worth keeping."""
        return not (self.ended or self.ended_before or self.in_flight or self.state)

    def stand(self, covered: float, in_flight: int, state: str) -> None:
        """Take over how it stands, in the instance's sums as well.

        ``covered``: seconds that the counts are about; 0 when they are no longer to count.
        """
        rate = (self.ended + self.ended_before) / covered if covered else 0.0
        good = (self.ok + self.ok_before) / covered if covered else 0.0
        to = self.instance
        to.rate += rate - self.rate
        to.good += good - self.good
        to.in_flight += in_flight - self.in_flight
        to.left_out_by += (state in LEFT_OUT) - (self.state in LEFT_OUT)
        self.rate, self.good, self.in_flight, self.state = rate, good, in_flight, state

    def traffic(self, client: str, now: float) -> PairTraffic:
        """Return it as others see it; ``client``: what that is called."""
        p50, p99 = (None, None) if self.times is None else quantiles(self.times.read(now), (0.5, 0.99))
        return PairTraffic(
            client=client,
            instance=self.instance.id,
            rps=self.rate,
            success=self.good / self.rate if self.rate else None,
            p50=p50,
            p99=p99,
            in_flight=self.in_flight,
            state=self.state,
        )


class Target:
    """One instance, all its clients together. ``pairs``: how many there are; ``mentioned``: last, monotonic seconds."""

    __slots__ = ("good", "id", "in_flight", "left_out_by", "mentioned", "pairs", "rate", "service", "times")

    def __init__(self, service: str, instance: str, now: float) -> None:
        self.service = service
        self.id = instance
        self.rate = self.good = 0.0
        self.in_flight = self.left_out_by = self.pairs = 0
        self.mentioned = now
        self.times = Recent(now)


class Client:
    """One client of one service. ``heard``: its newest report, in monotonic seconds; ``heard_at``: since the epoch."""

    __slots__ = (
        "_before",
        "_covered",
        "_covered_before",
        "_made",
        "_sums",
        "_turned",
        "heard",
        "heard_at",
        "leaves_out",
        "name",
        "pairs",
        "report",
        "times",
    )

    def __init__(self, name: str, report: Report, now: float) -> None:
        self.name = name
        self.report = report
        self.heard = self.heard_at = 0.0
        self.pairs: dict[str, Pair] = {}
        self.leaves_out: tuple[str, ...] = ()
        self.times = Recent(now)
        self._turned = now
        self._covered = self._covered_before = 0.0
        self._sums = self._before = (0, 0, 0, 0, 0)
        self._made: Caller | None = None

    @property
    def covered(self) -> float:
        """Seconds that its counts are about."""
        return self._covered + self._covered_before

    def hear(self, report: Report, now: float, at: float) -> bool:
        """Add a report's own counts; whether a new half of the window has begun."""
        turned = now - self._turned >= HALF
        if turned:
            self._covered_before, self._before = self._covered, self._sums
            self._covered, self._sums = 0.0, (0, 0, 0, 0, 0)
            self._turned = now
        calls, failed, retries, hedges, throttled = self._sums
        self._sums = (
            calls + report.calls,
            failed + report.failed,
            retries + report.retries,
            hedges + report.hedges,
            throttled + report.throttled,
        )
        self._covered += report.period
        self.leaves_out = tuple(sorted({each.instance for each in report.nodes if each.state in LEFT_OUT}))
        # Kept without what is long: all of that is counted elsewhere.
        self.report, self.heard, self.heard_at = replace(report, nodes=[], latencies=[]), now, at
        self._made = None
        return turned

    def rates(self) -> tuple[float, ...]:
        """Calls, failed calls, retries, hedges and throttled calls a second."""
        covered = self.covered
        return tuple((new + old) / covered for new, old in zip(self._sums, self._before, strict=True))

    def caller(self, now: float) -> Caller:
        """Return it as others see it; as it was at its newest report."""
        if self._made is None:
            report = self.report
            calls, failed, retries, hedges, throttled = self.rates()
            self._made = Caller(
                client=self.name,
                service=report.service,
                policy=report.policy,
                heard_at=self.heard_at,
                rps=calls,
                success=max(0.0, 1.0 - failed / calls) if calls else None,
                latency=self.times.quantiles(now),
                in_flight=report.in_flight,
                retries_per_s=retries,
                hedges_per_s=hedges,
                throttled_per_s=throttled,
                budget_left=report.budget_left,
                ejected=self.leaves_out,
                instances=len(self.pairs),
            )
        return self._made
