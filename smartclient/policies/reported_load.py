"""Shares by what nodes report: ``weight = rps / (utilization + errors * penalty)`` (gRPC's A58 and A114).

A node that answers more for the same busy share of its time gets more. ``errors`` is the share of this client's own
attempts there that failed since the weights were last renewed (a node's ``eps / rps``, which ours do not report). A
node's figures count from ``blackout`` seconds after its first report on and as long as none is older than ``expiry``;
until then it gets the mean of the others, and with fewer than two known weights the rotation goes by the registry's.
Weights are renewed when a pick finds them older than ``period``. Turns are given by gRPC's static stride scheduler: no
heap, a few steps whatever the length of the list. The registry's weights play no part beside reported ones.
"""

import random
from collections.abc import Sequence
from statistics import fmean

import msgspec

from smartclient.endpoint import Endpoint
from smartclient.errors import BadOption
from smartclient.policies.rotation import Rotation, RotationPicker
from smartclient.policies.stride import Stride
from smartclient.policies.weights import share_of, weights_of
from smartclient.policy import PickInfo

PENALTY = 1.0
BLACKOUT = 10.0  # seconds
EXPIRY = 180.0  # seconds
PERIOD = 1.0  # seconds


class Figures(msgspec.Struct):
    """What is kept of one endpoint: since when it reports, when it last did, and its attempts at the last renewal."""

    since: float
    at: float
    failed: int = 0
    ended: int = 0


class ReportedLoad:
    """The policy. ``penalty``: how much a failed attempt counts against a second of work."""

    name = "reported_load"

    def __init__(self, *, penalty: float = PENALTY) -> None:
        if penalty < 0:
            raise BadOption(f"penalty={penalty}: 0 or more")
        self._penalty = penalty
        self._rotation = Rotation()
        self._figures: dict[Endpoint, Figures] = {}

    def build(self, endpoints: Sequence[Endpoint], rng: random.Random) -> "ReportedLoadPicker":
        """See ``Policy``."""
        self._figures = {endpoint: self._figures[endpoint] for endpoint in endpoints if endpoint in self._figures}
        rotation = self._rotation.build(endpoints, rng)
        return ReportedLoadPicker(tuple(weights_of(endpoints)), self._figures, rotation, rng, self._penalty)


class ReportedLoadPicker:
    """The picker."""

    __slots__ = ("_endpoints", "_figures", "_penalty", "_renewed", "_rng", "_rotation", "_stride")

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        figures: dict[Endpoint, Figures],
        rotation: RotationPicker,
        rng: random.Random,
        penalty: float,
    ) -> None:
        self._endpoints = endpoints
        self._figures = figures
        self._rotation = rotation
        self._rng = rng
        self._penalty = penalty
        self._renewed = float("-inf")
        self._stride: Stride | None = None

    def pick(self, info: PickInfo, now: float) -> Endpoint:
        """See ``Picker``."""
        if now - self._renewed >= PERIOD:
            self._renew(now)
        if self._stride is not None:
            for _ in range(2 * len(self._endpoints)):
                endpoint = self._endpoints[self._stride.next()]
                if info.admits(endpoint, now):
                    return endpoint
        return self._rotation.pick(info, now)

    def score(self, endpoint: Endpoint, now: float) -> None:
        """See ``Picker``: turns are taken, not compared."""

    def _renew(self, now: float) -> None:
        self._renewed = now
        weights = [self._weight(endpoint, now) for endpoint in self._endpoints]
        known = [weight for weight in weights if weight]
        if len(known) < 2:
            self._stride = None
            return
        mean = fmean(known)
        shares = [
            (weight or mean) * share_of(endpoint, now)
            for endpoint, weight in zip(self._endpoints, weights, strict=True)
        ]
        if self._stride is None:
            self._stride = Stride(shares, self._rng)
        else:
            self._stride.weights(shares)

    def _weight(self, endpoint: Endpoint, now: float) -> float:
        """What its reports make its weight; 0 when they do not."""
        report = endpoint.report
        if report is None or not report.rps or not report.utilization or now - report.at > EXPIRY:
            self._figures.pop(endpoint, None)
            return 0.0
        figures = self._figures.get(endpoint)
        if figures is None or report.at - figures.at > EXPIRY:
            figures = self._figures[endpoint] = Figures(report.at, report.at)
        ended = endpoint.ok + endpoint.failed
        made, failed = ended - figures.ended, endpoint.failed - figures.failed
        figures.at, figures.ended, figures.failed = report.at, ended, endpoint.failed
        errors = failed / made if made else 0.0
        if now - figures.since < BLACKOUT:
            return 0.0
        return report.rps / (report.utilization + errors * self._penalty)
