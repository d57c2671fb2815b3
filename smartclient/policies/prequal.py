"""Prequal (Wydrowski et al., NSDI 2024): keep off the crowded nodes, and of the others take the quickest.

A node is hot when more requests are in flight there than at ``quantile`` of those seen of late. Among the cold the one
that would answer first is taken; when all are hot, the one with the fewest in flight. What nodes say comes free with
their answers; asked are only a few that have not been heard from lately, by what an answer takes. What was sent since a
report counts as in flight. Fewer than two reports that can be used: a random choice. ``pool`` says how they are kept.

Weights are not looked at: what nodes say of themselves replaces them. Numbers: quantile 0.84 and 3 asked for each pick
are the paper's.
"""

import math
import random
from collections.abc import Sequence

from smartclient.endpoint import Endpoint
from smartclient.errors import BadOption
from smartclient.load import LoadReport
from smartclient.policies.asking import tells, worth_asking
from smartclient.policies.draw import Draw
from smartclient.policies.pool import Pool, crowd_of
from smartclient.policies.service import ServiceTimes
from smartclient.policies.weights import share_of
from smartclient.policy import PickInfo

QUANTILE = 0.84
ASK = 3
LATELY = 0.5  # of what an answer takes


class Prequal:
    """The policy."""

    name = "prequal"

    def __init__(self, *, quantile: float = QUANTILE, ask: int = ASK) -> None:
        if not 0 <= quantile <= 1:
            raise BadOption(f"quantile={quantile}: a share from 0 to 1")
        if ask < 0:
            raise BadOption(f"ask={ask}: how many to ask, 0 for none")
        self._quantile = quantile
        self._ask = ask
        self._services = ServiceTimes()
        self._pool = Pool()

    def build(self, endpoints: Sequence[Endpoint], rng: random.Random) -> "PrequalPicker":
        """See ``Policy``."""
        self._services.keep(endpoints)
        self._pool.keep(endpoints)
        draw = Draw(endpoints, rng)
        return PrequalPicker(draw, self._pool, self._services, quantile=self._quantile, ask=self._ask)


class PrequalPicker:
    """The picker; an ``AskingPicker``."""

    __slots__ = ("_ask", "_draw", "_pool", "_quantile", "_services")

    def __init__(self, draw: Draw, pool: Pool, services: ServiceTimes, *, quantile: float, ask: int) -> None:
        self._draw = draw
        self._pool = pool
        self._services = services
        self._quantile = quantile
        self._ask = ask

    def candidates(self, info: PickInfo, now: float) -> Sequence[Endpoint]:
        """See ``AskingPicker``: of a few random ones those that have not been heard from lately."""
        asked: list[Endpoint] = []
        for _ in range(self._ask):
            endpoint = self._draw.other(None, info, now)
            if endpoint is None or not worth_asking(endpoint, now):
                break
            report = endpoint.report
            if report is None or now - report.at > LATELY * endpoint.latency.read(now):
                asked.append(endpoint)
        return tuple(dict.fromkeys(asked))

    def pick(self, info: PickInfo, now: float) -> Endpoint:
        """See ``Picker``."""
        pool = self._pool
        for endpoint in info.among:
            pool.add(endpoint)
        pool.look()
        usable = [endpoint for endpoint in pool.fresh(now) if info.admits(endpoint, now)]
        chosen = self._best(usable, now) if len(usable) >= 2 else self._draw.one(info, now)
        pool.awaited.append(chosen)
        return chosen

    def score(self, endpoint: Endpoint, now: float) -> float | None:
        """See ``Picker``: seconds until an answer; None where nothing has been reported."""
        report = endpoint.report
        return self._seconds(endpoint, report, now) if tells(report) else None

    def _best(self, usable: Sequence[Endpoint], now: float) -> Endpoint:
        limit = self._pool.seen.quantile(self._quantile)
        best, least = usable[0], (True, math.inf)
        for endpoint in usable:
            report = endpoint.report
            if report is not None:
                crowd = crowd_of(endpoint, report)
                rank = (True, crowd) if crowd > limit else (False, self._seconds(endpoint, report, now))
                if rank < least:
                    best, least = endpoint, rank
        return best

    def _seconds(self, endpoint: Endpoint, report: LoadReport, now: float) -> float:
        return self._services.until_answer(endpoint, report, now) / share_of(endpoint, now)
