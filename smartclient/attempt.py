"""One attempt: ask if need be, pick, send, classify, release.

The deadline is the call's; each node is told what is left of it (``x-envoy-expected-rq-timeout-ms``) and which attempt
this is (``x-envoy-attempt-count``). Making a connection gets at most ``CONNECT_TIMEOUT``, or an even share of what is
left, so that a host that swallows packets cannot eat the deadline. Nothing is started beside the caller's own task,
unless the policy asks nodes for their load. Whatever ends it, cancellation included, the lease is released; where the
body of an answer is still to come, that is when its stream ends.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Self

import msgspec
from multidict import istr

from registry.timing import Clock
from smartclient.balancer import Balancer
from smartclient.bearer import Bearer
from smartclient.endpoint import Endpoint, Lease
from smartclient.load import HEADER
from smartclient.policy import ANY, PickInfo
from smartclient.probe import Prober
from smartclient.stats import Outcome
from smartclient.transport import Answer, Request, Stream, Transport, TransportFailure, outcome_of, retry_after

CONNECT_TIMEOUT = 1.5  # seconds; a lost first packet is repeated after 1 s (RFC 6298) and still gets through
_LOAD = istr(HEADER)


class Terms(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What every attempt of a call goes by.

    ``resend``: it may be made again, at another node, if this one hangs; ``elsewhere``: another node may have what one
    knows nothing of (404).
    """

    request: Request
    attempts: int
    resend: bool
    elsewhere: bool = False
    key: str = ""
    stream: bool = False


class Tried(msgspec.Struct, frozen=True):
    """How an attempt ended: with an answer, good or bad, or with a failure. ``seconds``: how long it took."""

    endpoint: Endpoint
    outcome: Outcome
    answer: Answer | None
    failure: TransportFailure | None
    seconds: float

    @property
    def reason(self) -> str:
        """Why it is no good, in words."""
        return str(self.failure) if self.answer is None else f"HTTP {self.answer.status}"


class Sender:
    """Makes attempts at the nodes of one service. Owns their tally; what it uses is handed in.

    ``outcomes``: attempts sent, by how they ended. ``pick``: the balancer's, unless somebody looks on (``explain``).
    ``hide`` takes the token of ``bearer`` out of a message.
    """

    def __init__(self, balancer: Balancer, transport: Transport, *, clock: Clock, bearer: Bearer | None = None) -> None:
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.pick: Callable[[PickInfo], Lease] = balancer.pick
        self.prober = Prober(transport, balancer, clock=clock)
        self._balancer = balancer
        self._transport = transport
        self._clock = clock
        self._bearer = bearer
        self.hide: Callable[[str], str] = str if bearer is None else bearer.hide

    async def lease(self, exclude: Sequence[Endpoint] = (), key: str = "") -> Lease:
        """Pick the endpoint of an attempt; the policy may want some nodes asked first. Raises ``NoEndpoints``."""
        info = PickInfo(exclude=exclude, key=key) if exclude or key else ANY
        candidates = self._balancer.candidates(info)
        if candidates:
            answered = await self.prober.ask(candidates)
            info = PickInfo(exclude=exclude, key=key, among=answered)
        return self.pick(info)

    async def send(self, lease: Lease, terms: Terms, *, number: int, remaining: float, fresh: bool = False) -> Tried:
        """Make attempt ``number`` (from 1) at the node of ``lease``, within ``remaining`` seconds.

        ``fresh``: on a new connection. Raises nothing but cancellation, and ``BadInput`` for what cannot be sent.
        """
        endpoint = lease.endpoint
        with lease:
            began = lease.began
            headers = {
                "x-envoy-expected-rq-timeout-ms": str(max(1, int(remaining * 1000))),
                "x-envoy-attempt-count": str(number),
            }
            if self._bearer is not None:
                headers.update(self._bearer.header(terms.request.headers))
            share = remaining / max(1, terms.attempts - number + 1)
            try:
                answer = await self._transport.send(
                    endpoint.url,
                    terms.request,
                    headers,
                    within=remaining,
                    connect_within=min(CONNECT_TIMEOUT, share),
                    fresh=fresh,
                    stream=terms.stream,
                    waits=lease.waits if terms.resend else None,
                )
            except asyncio.CancelledError:
                self.outcomes[Outcome.CANCELLED] += 1
                raise
            except TransportFailure as failure:
                if self._bearer is not None:
                    self._bearer.strike(failure)
                self.outcomes[failure.outcome] += 1
                lease.release(failure.outcome)
                return Tried(endpoint, failure.outcome, None, failure, self._clock.monotonic() - began)
            now = self._clock.monotonic()
            if (load := answer.headers.get(_LOAD)) is not None:
                endpoint.said(load, now)
            outcome = outcome_of(answer.status, answer.headers)
            if answer.stream is not None and outcome is Outcome.OK:
                held = HeldStream(answer.stream, lease.keep(), now - began, self.outcomes, self._bearer)
                answer = Answer(answer.status, answer.headers, answer.body, held)
            else:
                self.outcomes[outcome] += 1
                lease.release(outcome, retry_after(answer.headers) if outcome is Outcome.OVERLOADED else None)
            return Tried(endpoint, outcome, answer, None, now - began)


class HeldStream:
    """A body still to be read, and the lease of its attempt, which stays open until the body ends.

    The node's latency is the time to the head of the answer: how long a body takes is as much its reader's doing.
    """

    def __init__(
        self,
        stream: Stream,
        lease: Lease,
        seconds: float,
        outcomes: dict[Outcome, int],
        bearer: Bearer | None = None,
    ) -> None:
        self._stream = stream
        self._pieces = aiter(stream)
        self._lease = lease
        self._seconds = seconds
        self._outcomes = outcomes
        self._bearer = bearer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except TransportFailure as failure:
            if self._bearer is not None:
                self._bearer.strike(failure)
            self._end(failure.outcome)
            await self.close()
            raise
        except StopAsyncIteration:
            await self.close()
            raise

    async def close(self) -> None:
        """See ``Stream``."""
        self._end(Outcome.OK)
        await self._stream.close()

    def _end(self, outcome: Outcome) -> None:
        if self._lease.open:
            self._outcomes[outcome] += 1
            self._lease.release(outcome, took=self._seconds)
