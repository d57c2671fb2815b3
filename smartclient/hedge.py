"""Asking a second node when the first is slow for once: after how long, and how often at most.

Off unless asked for, because it costs the fleet work that is thrown away. The delay is a high quantile of this
client's own latencies of the last minute, so about one call in twenty is hedged at the 95th percentile, and never
before there are enough samples to know it (J. Dean and L. A. Barroso, "The Tail at Scale", CACM 2013). The budget
bounds the extra work when everything turns slow at once: a share of the calls of the last ten seconds, no reserve.
"""

import msgspec

from smartclient.stats import RollingQuantile
from smartclient.window import Window


class HedgeRule(msgspec.Struct, frozen=True, kw_only=True):
    """Hedge after the ``quantile`` of recent latencies, once there are ``least`` samples.

    ``budget``: hedges as a share of the calls of the last 10 s. ``shortest``: seconds below which no hedge is worth it.
    """

    quantile: float = 0.95
    budget: float = 0.05
    least: int = 100
    shortest: float = 0.001


class Hedger:
    """When to hedge, from what calls took; pure but for its own counts."""

    __slots__ = ("_calls", "_delay", "_hedges", "_latencies", "_read_at", "_rule", "refused")

    def __init__(self, rule: HedgeRule) -> None:
        self._rule = rule
        self._latencies = RollingQuantile()
        self._calls = Window()
        self._hedges = Window()
        self._delay: float | None = None
        self._read_at = float("-inf")
        self.refused = 0

    def called(self, now: float) -> None:
        """Note that a call begins."""
        self._calls.add(now)

    def observe(self, seconds: float, now: float) -> None:
        """Take in what a good answer took, from the attempt's beginning."""
        self._latencies.observe(seconds, now)

    def delay(self, now: float) -> float | None:
        """Seconds to wait for the first answer before asking another node; None: not at all. Renewed once a second."""
        if now - self._read_at >= 1.0:
            self._read_at = now
            enough = self._latencies.count(now) >= self._rule.least
            delay = self._latencies.quantile(self._rule.quantile, now) if enough else None
            self._delay = delay if delay is not None and delay >= self._rule.shortest else None
        return self._delay

    def withdraw(self, now: float) -> bool:
        """Take one hedge if the budget has it."""
        if self._hedges.total(now) + 1 > self._rule.budget * self._calls.total(now):
            self.refused += 1
            return False
        self._hedges.add(now)
        return True
