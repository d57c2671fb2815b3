"""A simulated call, and one attempt of it: what passes between client and node."""

from collections.abc import Callable

from smartclient.endpoint import Endpoint, Lease
from smartclient.load import LoadReport
from smartclient.policy import PickInfo
from smartclient.stats import Outcome


class Call:
    """One call. ``service``: seconds of work at speed 1, for whoever serves it; ``attempt``: the one under way."""

    __slots__ = ("attempt", "began", "deadline", "info", "open", "service", "tried")

    def __init__(self, info: PickInfo, began: float, deadline: float, service: float) -> None:
        self.info = info
        self.began = began
        self.deadline = deadline
        self.service = service
        self.tried: tuple[Endpoint, ...] = ()
        self.attempt: Attempt | None = None
        self.open = True


class Attempt:
    """One attempt. The node sets ``began`` and ``ends`` (of its service) and how it came out; ``answered`` takes it."""

    __slots__ = ("answered", "began", "call", "ends", "lease", "outcome", "report", "retry_after")

    def __init__(self, call: Call, lease: Lease, answered: Callable[["Attempt"], None]) -> None:
        self.call = call
        self.lease = lease
        self.answered = answered
        self.began = self.ends = 0.0
        self.outcome = Outcome.OK
        self.report: LoadReport | None = None
        self.retry_after: float | None = None
