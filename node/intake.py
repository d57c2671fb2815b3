"""Letting a request in: who may, whether the node still takes work, its deadline, its place among the others.

Everything here happens before a byte of the body is read. A protocol's handler does its work inside ``admit``; the
``Visit`` it gets is left on the request, where the surface finds whose traffic it was and where its time went.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web

from node.access import Access
from node.admission import Admission
from node.body import Body
from node.errors import BadRequest, DeadlineExceeded, Draining, Overloaded
from node.lifecycle import Lifecycle
from node.repository import Repository
from node.served import Served
from node.ticket import Ticket
from registry.timing import Clock

# A request that names no deadline gets the smart client's default, seconds.
DEFAULT_DEADLINE = 30.0
DEADLINE_HEADER = "x-envoy-expected-rq-timeout-ms"


@dataclass(slots=True)
class Visit:
    """One request for work; ``model`` and ``version`` are what it turned out to ask."""

    ticket: Ticket
    body: Body
    model: str = ""
    version: str = ""


VISIT: web.RequestKey[Visit] = web.RequestKey("visit", Visit)


class Intake:
    """The door of one node. ``refusing`` is set late in draining, ``open`` once the first model is warm.

    ``body_timeout``: seconds within which a whole body must have arrived; ``max_body`` bytes.
    """

    def __init__(
        self,
        node: str,
        repository: Repository,
        lifecycle: Lifecycle,
        admission: Admission,
        access: Access,
        *,
        clock: Clock,
        max_body: int,
        body_timeout: float,
    ) -> None:
        self.refusing = False
        self.open = False
        self.repository = repository
        self.max_body = max_body
        self._node = node
        self._lifecycle = lifecycle
        self._admission = admission
        self._access = access
        self._clock = clock
        self._body_timeout = body_timeout

    def check_serving(self) -> None:
        """Raise ``Draining`` or ``Overloaded`` unless work is taken now."""
        if self.refusing:
            raise Draining(f"{self._node} is draining; ask another node")
        if not self.open:
            raise Overloaded(f"{self._node} is still {self._lifecycle.state}; ask another node or come back")

    def check_admin(self, request: web.Request) -> None:
        """Raise unless the request may steer this node."""
        self._access.check(request.headers.get("Authorization"), "admin")

    def check_reader(self, request: web.Request) -> None:
        """Raise unless the request may use this node."""
        self._access.check(request.headers.get("Authorization"), "inference")

    @contextmanager
    def admit(self, request: web.Request) -> Iterator[Visit]:
        """Let one request in for as long as it is worked at. Raises ``RequestError``."""
        body = Body(request, self._admission, most=self.max_body, seconds=self._body_timeout)
        visit = request[VISIT] = Visit(Ticket(math.inf, _gone(request)), body)
        try:
            self.check_reader(request)
            self.check_serving()
            visit.ticket.deadline = self._clock.monotonic() + _remaining(request)
            self._admission.enter()
            try:
                body.announce()
                yield visit
            finally:
                self._admission.leave()
        finally:
            body.release()

    @contextmanager
    def model(self, visit: Visit, name: str = "", *, version: str = "", label: str = "") -> Iterator[Served]:
        """Hold the model a visit asks for, after a look at how long it would wait. Raises ``RequestError``.

        An empty name is the node's first model; neither version nor label: the newest.
        """
        with self.repository.use(name, version=version, label=label) as served:
            visit.model, visit.version = served.name, served.version
            self._admission.check_wait(served.predicted_wait(), visit.ticket.deadline - self._clock.monotonic())
            yield served

    def shorten(self, visit: Visit, seconds: float) -> None:
        """Bring a visit's deadline forward to ``seconds`` from now, as a protocol of its own asks for."""
        visit.ticket.deadline = min(visit.ticket.deadline, self._clock.monotonic() + seconds)


def _remaining(request: web.Request) -> float:
    """Seconds the request's own deadline leaves it."""
    text = request.headers.get(DEADLINE_HEADER)
    if text is None:
        return DEFAULT_DEADLINE
    try:
        seconds = float(text) / 1e3
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise BadRequest(f"{DEADLINE_HEADER} is not a number of milliseconds: {text[:40]}")
    if seconds <= 0:
        raise DeadlineExceeded("the deadline had passed when the request came in")
    return seconds


def _gone(request: web.Request) -> Callable[[], bool]:
    """Return a check whether the client's connection is still there: aiohttp lets a handler run on without it."""
    protocol = request.protocol

    def gone() -> bool:
        transport = protocol.transport
        return transport is None or transport.is_closing()

    return gone
