"""Which waiting images run next, and the one thread that runs them.

The rule (``plan``) is pure: an idle runner takes at once whatever is there, the earliest deadline first, so a lone
request never waits and batches form only while the runner is busy. What its client has left, or what cannot be ready
in time, is dropped before it takes a place. A batch is capped by its predicted time, not by a constant alone: it may
last ``share`` seconds, and no longer than its most urgent image allows. A batch that fails is run again in halves, down
to the image that makes it fail: one poison input cannot fail its neighbours. No timers and no polling: submissions and
finished runs move it on.
"""

import asyncio
import itertools
import logging
from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from node.errors import ClientGone, DeadlineExceeded, Draining, InternalError, RequestError
from node.images import Pixels
from node.latency import LatencyModel
from node.load import BusyShare
from node.runtimes.base import Scores
from registry.timing import Clock

log = logging.getLogger(__name__)

Run = Callable[[Pixels], Scores]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the model said of one image, and where its time went (seconds)."""

    scores: Scores
    queued: float
    ran: float


@dataclass(slots=True, order=True)
class Waiting:
    """One image in the queue, ordered by deadline and then by arrival; ``gone`` says whether its client has left."""

    deadline: float
    number: int
    image: Pixels = field(compare=False)
    gone: Callable[[], bool] = field(compare=False)
    submitted: float = field(compare=False)
    future: asyncio.Future[Outcome] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with the first ``taken`` of the queue: run these, answer those 504, forget the rest."""

    run: list[Waiting]
    late: list[Waiting]
    gone: list[Waiting]

    @property
    def taken(self) -> int:
        """How many leave the queue."""
        return len(self.run) + len(self.late) + len(self.gone)


def plan(queue: Iterable[Waiting], now: float, latency: LatencyModel, *, max_batch: int, share: float) -> Plan:
    """Choose the next batch from a queue ordered by deadline; ``now`` and ``share`` in seconds."""
    chosen = Plan([], [], [])
    alone = latency.predict(1)
    size = latency.largest(share, max_batch)
    for item in queue:
        if len(chosen.run) >= size:
            break
        if item.future.done() or item.gone():
            chosen.gone.append(item)
        elif now + alone > item.deadline:
            chosen.late.append(item)
        else:
            if not chosen.run:  # the most urgent one; a larger batch must not make it late
                size = min(size, latency.largest(item.deadline - now, max_batch))
            chosen.run.append(item)
    return chosen


def run_isolated(run: Run, batch: Pixels) -> list[Scores | Exception]:
    """Run a batch; if it fails run its halves, and theirs, until only those images fail that fail alone."""
    try:
        scores = run(batch)
        if len(scores) != len(batch):
            raise InternalError(f"the model gave {len(scores)} answers for {len(batch)} images")
        whole = [bool(np.isfinite(row).all()) for row in scores]
    except Exception as error:  # noqa: BLE001 - whatever a model raises is the answer to its image
        if len(batch) == 1:
            return [error]
        middle = len(batch) // 2
        return run_isolated(run, batch[:middle]) + run_isolated(run, batch[middle:])
    return [
        row if fine else InternalError("the model answered with something that is not a number")
        for row, fine in zip(scores, whole, strict=True)
    ]


class Batcher:
    """The queue and its runner. Belongs to one event loop; ``run`` is called in the runner's thread only.

    ``on_batch(size, seconds)`` is told of every run, for metrics.
    """

    def __init__(
        self,
        run: Run,
        shape: tuple[int, int, int],
        *,
        clock: Clock,
        max_batch: int = 32,
        share: float = 0.25,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self.latency = LatencyModel()
        self.busy = BusyShare()
        self.max_batch = max_batch
        self._run = run
        self._share = share
        self._clock = clock
        self._on_batch = on_batch
        self._buffer: Pixels = np.zeros((max_batch, *shape), np.uint8)
        self._queue: list[Waiting] = []
        self._numbers = itertools.count()
        self._runner = ThreadPoolExecutor(1, thread_name_prefix="runner")
        self._running = 0
        self._started = 0.0
        self._scheduled = False
        self._closed = False

    async def warm(self, sizes: Sequence[int], rounds: int = 4) -> Scores:
        """Run empty images in each batch size, so that T(n) is known before the first request.

        It stops growing at a size that lasts longer than ``share``: such a batch will not be formed. Returns the
        model's answer to the last one. Whatever the model raises passes through.
        """
        loop = asyncio.get_running_loop()
        scores: Scores = np.zeros((0, 0), np.float32)
        for size in sizes:
            seconds = 0.0
            for _ in range(rounds):
                started = self._clock.monotonic()
                scores = await loop.run_in_executor(self._runner, self._run, self._buffer[:size])
                seconds = self._clock.monotonic() - started
                self.latency.observe(size, seconds)
            if seconds > self._share:
                break
        return scores

    def submit(self, image: Pixels, *, deadline: float, gone: Callable[[], bool]) -> asyncio.Future[Outcome]:
        """Queue one decoded image; the future ends with its ``Outcome`` or a ``RequestError``.

        ``deadline`` is in the clock's seconds. Cancelling the future takes the image out.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(Draining("this node is stopping; ask another"))
            return future
        insort(self._queue, Waiting(deadline, next(self._numbers), image, gone, self._clock.monotonic(), future))
        if not self._running and not self._scheduled:
            # One turn later, so that images decoded in this same turn of the loop share the batch.
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)
        return future

    def predicted_wait(self) -> float:
        """Seconds until an image submitted now would start to run."""
        cap = self.cap
        wait = (len(self._queue) // cap) * self.latency.predict(cap)
        if self._running:
            # A run that has overstayed by x is expected to need x more, so a hung model does not look idle.
            wait += abs(self.latency.predict(self._running) - (self._clock.monotonic() - self._started))
        return wait

    @property
    def cap(self) -> int:
        """The most images a batch may hold at the speed learned so far."""
        return self.latency.largest(self._share, self.max_batch)

    @property
    def depth(self) -> int:
        """How many images wait, the running ones not counted."""
        return len(self._queue)

    async def close(self) -> None:
        """Answer what still waits with ``Draining`` and end the runner when its present batch is through."""
        self._closed = True
        waiting, self._queue = self._queue, []
        for item in waiting:
            _fail(item, Draining("this node is stopping; ask another"))
        await asyncio.get_running_loop().run_in_executor(None, self._runner.shutdown)

    def snapshot(self) -> dict[str, object]:
        """Queue, runner and learned line as they stand."""
        return {
            "queue": len(self._queue),
            "running": self._running,
            "wait_ms": round(self.predicted_wait() * 1e3, 3),
            "latency": self.latency.snapshot(),
        }

    def _pump(self) -> None:
        self._scheduled = False
        if self._running or self._closed:
            return
        now = self._clock.monotonic()
        chosen = plan(self._queue, now, self.latency, max_batch=self.max_batch, share=self._share)
        del self._queue[: chosen.taken]
        for item in chosen.late:
            _fail(item, DeadlineExceeded("the deadline passes before this image can be answered"))
        for item in chosen.gone:
            _fail(item, ClientGone("the client has left"))
        if chosen.run:
            self._running, self._started = len(chosen.run), now
            self.busy.turn(True, now)
            loop = asyncio.get_running_loop()
            job = loop.run_in_executor(self._runner, self._execute, chosen.run)
            job.add_done_callback(lambda done: self._finished(chosen.run, now, done.result()))

    def _execute(self, items: list[Waiting]) -> tuple[list[Scores | Exception], float]:
        """Run in the runner's thread: gather the images, run, and say how long the running took."""
        batch = self._buffer[: len(items)]
        np.stack([item.image for item in items], out=batch)
        started = self._clock.monotonic()
        answers = run_isolated(self._run, batch)
        return answers, self._clock.monotonic() - started

    def _finished(self, items: list[Waiting], started: float, done: tuple[list[Scores | Exception], float]) -> None:
        answers, seconds = done
        self._running = 0
        self.busy.turn(False, self._clock.monotonic())
        if not any(isinstance(answer, Exception) for answer in answers):  # a failed run was several runs
            self.latency.observe(len(items), seconds)
        if self._on_batch is not None:
            self._on_batch(len(items), seconds)
        self._pump()  # the runner first: the answers below may take the loop a while
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, RequestError):
                _fail(item, answer)
            elif isinstance(answer, Exception):
                log.error("the model failed on an image", exc_info=answer)
                failure = InternalError("the model failed on this image; the node's log says why")
                _fail(item, failure)
            elif not item.future.done():
                item.future.set_result(Outcome(answer, started - item.submitted, seconds))


def _fail(item: Waiting, error: RequestError) -> None:
    if not item.future.done():
        item.future.set_exception(error)
