"""One compute budget for all models of a node: one thread that runs batches, and whose turn it is.

A batch uses every core by itself, so two at once would only make both late. Models that have work waiting share the
time in equal parts: the one that has had the least goes next (start-time fair queueing: P. Goyal, H. Vin and H. Cheng,
SIGCOMM 1996). One that was idle does not save its share up. A busy model therefore cannot starve another, and a lone
one gets everything.
"""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

from node.load import BusyShare
from registry.timing import Clock

K = TypeVar("K")
T = TypeVar("T")


class FairShare(Generic[K]):
    """Seconds each has had, from a common start that moves on with whoever is served."""

    def __init__(self) -> None:
        self._used: dict[K, float] = {}
        self._start = 0.0

    def choose(self, waiting: Iterable[K]) -> K:
        """Return the one whose turn it is; of equals the first."""
        chosen = min(waiting, key=lambda each: max(self._used.get(each, 0.0), self._start))
        self._start = max(self._used.get(chosen, 0.0), self._start)
        return chosen

    def charge(self, served: K, seconds: float) -> None:
        """Note that the one just chosen took so long."""
        self._used[served] = max(self._used.get(served, 0.0), self._start) + seconds

    def forget(self, gone: K) -> None:
        """Drop one that will not come again."""
        self._used.pop(gone, None)


class Job(Protocol):
    """A batch that has left its queue; ``expected``: seconds it should take."""

    expected: float

    def execute(self) -> None:
        """Run it, in the runner's thread; never raises."""
        ...

    def finish(self) -> None:
        """Hand out the answers, in the loop."""
        ...

    def abandon(self) -> None:
        """Tell those who wait that no answer will come; ``execute`` may still be running."""
        ...


class Queue(Protocol):
    """What competes for the runner."""

    @property
    def depth(self) -> int:
        """How much waits; 0: nothing."""
        ...

    @property
    def backlog(self) -> float:
        """Predicted seconds to run all that waits."""
        ...

    def take(self, now: float) -> Job | None:
        """Return the next batch, None when nothing that waited can be run any more."""
        ...


class Compute:
    """The runner's thread and its turns. Belongs to one event loop."""

    def __init__(self, clock: Clock) -> None:
        self.busy = BusyShare()
        self._clock = clock
        self._queues: list[Queue] = []
        self._share: FairShare[Queue] = FairShare()
        self._runner = ThreadPoolExecutor(1, thread_name_prefix="runner")
        self._under_way: set[asyncio.Future[Any]] = set()
        self._running: Job | None = None
        self._started = 0.0
        self._scheduled = False
        self._closed = False

    def attach(self, queue: Queue) -> None:
        """Let a queue take part."""
        self._queues.append(queue)

    def detach(self, queue: Queue) -> None:
        """Let it go; what it has running ends in peace."""
        if queue in self._queues:
            self._queues.remove(queue)
        self._share.forget(queue)

    def wake(self) -> None:
        """Look for work at the end of this turn of the loop, so that what comes together runs together."""
        if self._running is None and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    async def call(self, work: Callable[[], T]) -> T:
        """Run something else in the runner's thread, between two batches; whatever it raises passes through."""
        return await self._in_runner(work)

    def wait(self, queue: Queue, own: float, one: float) -> float:
        """Seconds until work that stands behind ``own`` seconds of its queue's would start.

        ``one``: seconds of one of its batches. The others get no more than the same in between, and one turn.
        """
        remaining = 0.0
        if self._running is not None:
            # A run that has overstayed by x is expected to need x more, so a hung model does not look idle.
            remaining = abs(self._running.expected - (self._clock.monotonic() - self._started))
        others = sum(min(each.backlog, own + one) for each in self._queues if each is not queue)
        return remaining + own + others

    async def close(self) -> None:
        """Start nothing more; end when the runner is through with what it has, which with a model that hangs is never.

        Cancelling it leaves the runner's thread to itself.
        """
        self._closed = True
        self._runner.shutdown(wait=False)
        while self._under_way:
            await asyncio.wait(self._under_way)

    def abandon(self) -> None:
        """Tell those whose batch is running that no answer will come."""
        if self._running is not None:
            self._running.abandon()

    def _in_runner(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        future = asyncio.get_running_loop().run_in_executor(self._runner, work)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def _pump(self) -> None:
        self._scheduled = False
        if self._running is not None or self._closed:
            return
        now = self._clock.monotonic()
        waiting = [queue for queue in self._queues if queue.depth]
        while waiting:
            queue = self._share.choose(waiting)
            job = queue.take(now)
            if job is not None:
                self._start(queue, job, now)
                return
            waiting.remove(queue)

    def _start(self, queue: Queue, job: Job, now: float) -> None:
        self._running, self._started = job, now
        self.busy.turn(True, now)
        self._in_runner(job.execute).add_done_callback(lambda _: self._finished(queue, job))

    def _finished(self, queue: Queue, job: Job) -> None:
        now = self._clock.monotonic()
        self._running = None
        self.busy.turn(False, now)
        if queue in self._queues:  # else its model has gone, and must not be kept alive by its share
            self._share.charge(queue, now - self._started)
        self._pump()  # the runner first: the answers may take the loop a while
        job.finish()
