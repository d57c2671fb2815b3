"""Fakes for your own tests: a network you script, and endpoints without a registry.

``ScriptedTransport`` takes the place of the network in ``AsyncSmartClient(…, transport=…)``. With a ``ManualClock`` and
a ``ScriptedDirectory`` (``registry.testing``) a whole client runs without a socket and without waiting;
``tests/smartclient/test_call.py`` shows it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from multidict import CIMultiDict

from registry.testing import instance
from registry.timing import Clock
from registry.waiting import done_within
from smartclient.breaker import EjectionRule
from smartclient.endpoint import Endpoint
from smartclient.stats import Outcome
from smartclient.transport import Answer, Request, TransportFailure


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A node answers after ``after`` seconds; a streamed body comes in pieces of ``piece`` bytes."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b"ok"
    after: float = 0.0
    piece: int = 4096


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A node fails after ``after`` seconds, as ``outcome`` says."""

    outcome: Outcome = Outcome.CONNECT_ERROR
    after: float = 0.0


Step = Reply | Fault
DEAD = Fault()
HUNG = Reply(after=1e9)


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt as the node at ``endpoint`` (``address:port``) saw it; ``headers`` are all of them."""

    endpoint: str
    request: Request
    headers: Mapping[str, str]
    within: float
    connect_within: float
    fresh: bool
    stream: bool


class ScriptedStream:
    """The body of a scripted answer, still to be read; ``closed`` tells whether somebody is done with it."""

    def __init__(self, body: bytes, piece: int) -> None:
        self.closed = False
        self._pieces = [body[at : at + piece] for at in range(0, len(body), piece)]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._pieces and not self.closed:
            yield self._pieces.pop(0)
        await self.close()

    async def close(self) -> None:
        """See ``Stream``."""
        self.closed = True


class ScriptedTransport:
    """A ``Transport`` that answers what the test told it to; ``sent`` lists every attempt in order.

    Each node goes through its steps, the last of which stands for ever; a node without a script gives ``otherwise``.
    """

    def __init__(self, clock: Clock, *, otherwise: Step | None = None) -> None:
        self.sent: list[Sent] = []
        self.closed = False
        self._clock = clock
        self._otherwise: Step = otherwise or Reply()
        self._steps: dict[str, list[Step]] = {}

    def script(self, endpoint: str, *steps: Step) -> None:
        """Say what the node at ``address:port`` does from now on; no steps: what every node does."""
        self._steps[endpoint] = list(steps)

    def count(self, endpoint: str) -> int:
        """Attempts that the node at ``address:port`` has had."""
        return sum(each.endpoint == endpoint for each in self.sent)

    async def send(
        self,
        url: str,
        request: Request,
        headers: Mapping[str, str],
        *,
        within: float,
        connect_within: float,
        fresh: bool = False,
        stream: bool = False,
        waits: Callable[[Callable[[], None]], None] | None = None,
    ) -> Answer:
        """See ``Transport``; time passes on the clock it was given."""
        endpoint = url.partition("://")[2]
        merged = {**request.headers, **headers}
        sent = Sent(
            endpoint=endpoint,
            request=request,
            headers=merged,
            within=within,
            connect_within=connect_within,
            fresh=fresh,
            stream=stream,
        )
        self.sent.append(sent)
        step = self._next(endpoint)
        given_up = asyncio.get_running_loop().create_future()
        if waits is not None:
            waits(lambda: None if given_up.done() else given_up.set_result(None))
        if step.after and await done_within(min(step.after, within), given_up, self._clock):
            raise TransportFailure(Outcome.TIMEOUT, "given up while it was waited for")
        if step.after >= within:
            raise TransportFailure(Outcome.TIMEOUT, f"no answer within {within:.3g} s")
        if isinstance(step, Fault):
            raise TransportFailure(step.outcome, f"scripted {step.outcome}")
        headers = CIMultiDict(step.headers)
        if stream:
            return Answer(step.status, headers, b"", ScriptedStream(step.body, step.piece))
        return Answer(step.status, headers, step.body)

    def snapshot(self) -> dict[str, Any]:
        """See ``Transport``."""
        return {"kind": "scripted", "open": not self.closed, "sent": len(self.sent)}

    async def close(self) -> None:
        """See ``Transport``."""
        self.closed = True

    def _next(self, endpoint: str) -> Step:
        steps = self._steps.get(endpoint)
        if not steps:
            return self._otherwise
        return steps.pop(0) if len(steps) > 1 else steps[0]


def classified(label: str = "7", *, score: float = 0.9, node: str = "digits-1", **changes: Any) -> Reply:
    """Return a node's answer to ``POST /classify`` for one image."""
    result = {"name": "", "predictions": [{"label": label, "index": 0, "score": score}]}
    reply = {"model": "digits", "version": "1", "node": node, "results": [result]}
    return Reply(body=json.dumps(reply | changes).encode(), headers={"Content-Type": "application/json"})


def endpoints(weights: Iterable[int] | int, rule: EjectionRule | None = None) -> Sequence[Endpoint]:
    """Return healthy endpoints: one for each weight, or so many of weight 1."""
    each = [1] * weights if isinstance(weights, int) else list(weights)
    return [Endpoint(instance(n + 1, weight=weight), rule or EjectionRule()) for n, weight in enumerate(each)]
