"""Where a node is in its life, and in what order it leaves.

``Lifecycle`` is the one object that ``/healthz``, ``/readyz``, metrics and logs read. *Live* means that the loop
answers; *ready* means loaded, warm and not draining, and never depends on how much is queued. ``drain_order`` is the
order of leaving, as data; ``drain`` walks it. The order matters: clients are told first, through the registry, and
requests are refused only after they have had time to hear of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from registry.timing import Clock

log = logging.getLogger(__name__)


class State(StrEnum):
    """The stations of a node's life, in order."""

    STARTING = "starting"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


_ORDER = list(State)


class Lifecycle:
    """The present state and when each was entered (seconds since the epoch).

    It only moves forward, but for ``back``: an operator may call a drained node back while it has not stopped.
    """

    def __init__(self, clock: Clock, name: str = "") -> None:
        self._clock = clock
        self._name = name
        self.state = State.STARTING
        self.entered: dict[State, float] = {State.STARTING: clock.time()}
        self._since = clock.monotonic()

    def to(self, state: State) -> None:
        """Move on to ``state``, skipping what is skipped; going back or standing still changes nothing."""
        if _ORDER.index(state) <= _ORDER.index(self.state):
            return
        now = self._clock.monotonic()
        log.info("%s: %s -> %s after %.2f s", self._name, self.state, state, now - self._since)
        self.state, self._since = state, now
        self.entered[state] = self._clock.time()

    def back(self) -> None:
        """Be ready again after draining; in any other state nothing changes."""
        if self.state is State.DRAINING:
            log.info("%s: %s -> %s, called back", self._name, self.state, State.READY)
            self.state, self._since = State.READY, self._clock.monotonic()
            self.entered[State.READY] = self._clock.time()

    @property
    def ready(self) -> bool:
        """Whether new work should be sent here."""
        return self.state is State.READY

    @property
    def leaving(self) -> bool:
        """Whether it drains or has stopped: every answer now closes its connection."""
        return self.state in (State.DRAINING, State.STOPPED)

    def snapshot(self) -> dict[str, object]:
        """The state, and when each one was entered."""
        return {"state": str(self.state), "entered": {str(state): when for state, when in self.entered.items()}}


class Step(StrEnum):
    """One thing a leaving node does."""

    UNREADY = "say on /readyz that it drains"
    LEAVE_REGISTRY = "leave the registry and wait until look-ups no longer show it"
    GRACE = "go on serving while clients hear of it"
    REFUSE = "refuse new work"
    FINISH = "finish what is queued and running"
    CLOSE = "close connections, deregister"


@dataclass(frozen=True, slots=True)
class Bound:
    """A step of draining: the longest it may take in seconds, and whether a node in a hurry leaves it out."""

    step: Step
    seconds: float
    skipped_in_hurry: bool = False


def drain_order(*, grace: float, finish: float) -> tuple[Bound, ...]:
    """Return the steps of leaving, in order, each bounded in time: an outage of the registry never holds a node up.

    The registry has 2 s to forget the node and 1 s for the call itself; with the default grace and ``finish`` the sum
    stays inside the 30 s that orchestrators give before they kill.
    """
    return (
        Bound(Step.UNREADY, 1.0),
        Bound(Step.LEAVE_REGISTRY, 3.0),
        Bound(Step.GRACE, grace + 1.0, skipped_in_hurry=True),
        Bound(Step.REFUSE, 1.0),
        Bound(Step.FINISH, finish, skipped_in_hurry=True),
        Bound(Step.CLOSE, 5.0),
    )


async def drain(
    order: tuple[Bound, ...], actions: Mapping[Step, Callable[[], Awaitable[None]]], hurry: asyncio.Event
) -> None:
    """Take every step of ``order``; a step that overruns its bound or fails is logged and left behind.

    Setting ``hurry`` ends the present step, if it may be skipped, and leaves out the later ones that may.
    """
    for bound in order:
        if bound.skipped_in_hurry and hurry.is_set():
            continue
        log.info("drain: %s", bound.step)
        work = asyncio.ensure_future(actions[bound.step]())
        waiter = asyncio.ensure_future(hurry.wait()) if bound.skipped_in_hurry else None
        try:
            both = {work} if waiter is None else {work, waiter}
            await asyncio.wait(both, timeout=bound.seconds, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not hurry.is_set():
                log.warning("drain: gave up after %.1f s: %s", bound.seconds, bound.step)
            elif work.done() and (error := work.exception()) is not None:
                log.warning("drain: could not %s: %s", bound.step, error)
        finally:
            for task in (work, waiter):
                if task is not None and not task.done():
                    task.cancel()
            await asyncio.gather(*(task for task in (work, waiter) if task is not None), return_exceptions=True)
