"""Which waiting items of one model run next.

The rule (``plan``) is pure: an idle runner takes at once whatever is there, the earliest deadline first, so a lone
request never waits and batches form only while the runner is busy. What its client has left, or what cannot be ready
in time, is dropped before it takes a place. A batch is capped by its predicted time, not by a constant alone: it may
last ``share`` seconds, and no longer than its most urgent item allows. A batch that fails is run again in halves, down
to the item that makes it fail: one poison input cannot fail its neighbours. No timers and no polling: submissions and
finished runs move it on. When it runs, and beside which other models, is for ``compute`` to say.
"""

import asyncio
import itertools
import logging
from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from node.compute import Compute
from node.errors import ClientGone, DeadlineExceeded, Draining, InternalError, RequestError
from node.latency import LatencyModel
from node.runtimes.base import Runtime
from node.tensors import Array, Tensors, rows
from registry.timing import Clock

log = logging.getLogger(__name__)

# Items that can share a batch have equal shapes, input by input.
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the model said of one item, and where its time went (seconds)."""

    outputs: Tensors
    queued: float
    ran: float


@dataclass(slots=True, order=True)
class Waiting:
    """One item of the queue, ordered by deadline and then by arrival; ``gone`` says whether its client has left."""

    deadline: float
    number: int
    inputs: Tensors = field(compare=False)
    rows: int = field(compare=False)
    shapes: Shapes = field(compare=False)
    gone: Callable[[], bool] = field(compare=False)
    submitted: float = field(compare=False)
    future: asyncio.Future[Outcome] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with some of the queue: run these, answer those 504, forget the rest."""

    run: list[Waiting]
    late: list[Waiting]
    gone: list[Waiting]


def plan(queue: Iterable[Waiting], now: float, latency: LatencyModel, *, max_batch: int, share: float) -> Plan:
    """Choose the next batch from a queue ordered by deadline; ``now`` and ``share`` in seconds.

    Sizes count rows; an item of more rows than a batch may have runs alone.
    """
    chosen = Plan([], [], [])
    alone = latency.predict(1)
    size = latency.largest(share, max_batch)
    taken = 0
    for item in queue:
        if taken >= size:
            break
        if item.future.done() or item.gone():
            chosen.gone.append(item)
        elif now + alone > item.deadline:
            chosen.late.append(item)
        elif not chosen.run:  # the most urgent one; a larger batch must not make it late
            size = min(size, latency.largest(item.deadline - now, max_batch))
            chosen.run.append(item)
            taken = item.rows
        elif item.shapes == chosen.run[0].shapes and taken + item.rows <= size:
            chosen.run.append(item)
            taken += item.rows
    return chosen


class Assembly:
    """Puts items together as one batch, in arrays that are made once: the runner is one thread."""

    def __init__(self, runtime: Runtime, max_batch: int) -> None:
        self._specs = runtime.signature.inputs
        self._max_batch = max_batch
        self._buffers: dict[tuple[str, tuple[int, ...]], Array] = {}

    def batch(self, items: Sequence[Waiting]) -> Tensors:
        """Return the inputs of all items, row after row, in the model's own dtypes."""
        total = sum(item.rows for item in items)
        return {spec.name: self._joined(spec.name, spec.dtype, items, total) for spec in self._specs}

    def _joined(self, name: str, dtype: "np.dtype[np.generic]", items: Sequence[Waiting], total: int) -> Array:
        first: Array = items[0].inputs[name]
        if len(items) == 1:
            return np.ascontiguousarray(first, dtype)
        joined = self._buffer(name, first.shape[1:], dtype)[:total]
        at = 0
        for item in items:
            joined[at : at + item.rows] = item.inputs[name]
            at += item.rows
        return joined

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> Array:
        if (name, shape) not in self._buffers:
            if len(self._buffers) > len(self._specs):  # a model of any size must not collect one for each
                self._buffers.clear()
            self._buffers[name, shape] = np.zeros((self._max_batch, *shape), dtype)
        return self._buffers[name, shape]


def run_isolated(run: Callable[[Sequence[Waiting]], Tensors], items: Sequence[Waiting]) -> list[Tensors | Exception]:
    """Run a batch; if it fails run its halves, and theirs, until only those items fail that fail alone."""
    try:
        outputs = run(items)
        total = sum(item.rows for item in items)
        for name, array in outputs.items():
            if len(array) != total:
                raise InternalError(f"the model gave {len(array)} rows of {name} for {total}")
    except Exception as error:  # noqa: BLE001 - whatever a model raises is the answer to its item
        if len(items) == 1:
            return [error]
        middle = len(items) // 2
        return run_isolated(run, items[:middle]) + run_isolated(run, items[middle:])
    ends = list(itertools.accumulate(item.rows for item in items))
    return [
        {name: array[end - item.rows : end] for name, array in outputs.items()}
        for item, end in zip(items, ends, strict=True)
    ]


class Batcher:
    """The queue of one model. Belongs to one event loop.

    ``on_batch(rows, seconds)`` is told of every run, for metrics.
    """

    def __init__(
        self,
        runtime: Runtime,
        compute: Compute,
        *,
        clock: Clock,
        max_batch: int = 32,
        share: float = 0.25,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self.latency = LatencyModel()
        self.max_batch = max_batch
        self.arriving = 0
        self._runtime = runtime
        self._compute = compute
        self._assembly = Assembly(runtime, max_batch)
        self._share = share
        self._clock = clock
        self._on_batch = on_batch
        self._queue: list[Waiting] = []
        self._rows = 0
        self._numbers = itertools.count()
        self._closed = False
        compute.attach(self)

    async def warm(self, inputs: Callable[[int], Tensors], rounds: int = 4) -> Tensors:
        """Run ``inputs(n)`` for each power of two, so that T(n) is known before the first request.

        It stops growing at a size that lasts longer than ``share``: such a batch will not be formed. Returns the
        model's answer to the last one. Whatever the model raises passes through.
        """
        sizes = sorted({*(1 << power for power in range(self.max_batch.bit_length())), self.max_batch})
        outputs: Tensors = {}
        for size in sizes:
            batch, seconds = inputs(size), 0.0
            for _ in range(rounds):
                outputs, seconds = await self._compute.call(lambda batch=batch: self._timed(batch))  # type: ignore[misc]
                self.latency.observe(size, seconds)
            if seconds > self._share:
                break
        return outputs

    def submit(self, inputs: Tensors, *, deadline: float, gone: Callable[[], bool]) -> asyncio.Future[Outcome]:
        """Queue one item, an array of one or more rows for each input; the future ends with its ``Outcome``.

        Or with a ``RequestError``. ``deadline`` is in the clock's seconds. Cancelling the future takes the item out.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(Draining("this node is stopping; ask another"))
            return future
        shapes = tuple(array.shape[1:] for array in inputs.values())
        now = self._clock.monotonic()
        item = Waiting(deadline, next(self._numbers), inputs, rows(inputs), shapes, gone, now, future)
        insort(self._queue, item)
        self._rows += item.rows
        self._compute.wake()
        return future

    def predicted_wait(self) -> float:
        """Seconds until an item submitted now would start to run; ``arriving`` ones are before it."""
        cap = self.cap
        one = self.latency.predict(cap)
        return self._compute.wait(self, (self._rows + self.arriving) // cap * one, one)

    @property
    def cap(self) -> int:
        """The most rows a batch may hold at the speed learned so far."""
        return self.latency.largest(self._share, self.max_batch)

    @property
    def depth(self) -> int:
        """How many items wait, the running ones not counted."""
        return len(self._queue)

    @property
    def backlog(self) -> float:
        """Predicted seconds to run all that waits."""
        cap = self.cap
        whole, rest = divmod(self._rows, cap)
        return whole * self.latency.predict(cap) + (self.latency.predict(rest) if rest else 0.0)

    def take(self, now: float) -> "Batch | None":
        """Take the next batch out of the queue, and answer those that are dropped."""
        chosen = plan(self._queue, now, self.latency, max_batch=self.max_batch, share=self._share)
        leaving = {item.number for group in (chosen.run, chosen.late, chosen.gone) for item in group}
        if leaving:
            self._queue = [item for item in self._queue if item.number not in leaving]
            self._rows = sum(item.rows for item in self._queue)
        for item in chosen.late:
            _fail(item, DeadlineExceeded("the deadline passes before this can be answered"))
        for item in chosen.gone:
            _fail(item, ClientGone("the client has left"))
        if not chosen.run:
            return None
        return Batch(self, chosen.run, now, self.latency.predict(sum(item.rows for item in chosen.run)))

    def close(self) -> None:
        """Answer what still waits with ``Draining`` and take no more."""
        self._closed = True
        self._compute.detach(self)
        waiting, self._queue, self._rows = self._queue, [], 0
        for item in waiting:
            _fail(item, Draining("this node is stopping; ask another"))

    def snapshot(self) -> dict[str, object]:
        """Queue and learned line as they stand."""
        return {
            "queue": len(self._queue),
            "wait_ms": round(self.predicted_wait() * 1e3, 3),
            "latency": self.latency.snapshot(),
        }

    def execute(self, items: Sequence[Waiting]) -> tuple[list[Tensors | Exception], float]:
        """Run a batch in the runner's thread, and say how long the running took."""
        seconds = 0.0

        def run(some: Sequence[Waiting]) -> Tensors:
            nonlocal seconds
            outputs, took = self._timed(self._assembly.batch(some))
            seconds += took
            return outputs

        return run_isolated(run, items), seconds

    def finished(self, batch: "Batch") -> None:
        """Learn from a batch that has run, and hand out its answers."""
        size = sum(item.rows for item in batch.items)
        failed = any(isinstance(answer, Exception) for answer in batch.answers)
        if not failed:  # a failed run was several runs
            self.latency.observe(size, batch.seconds)
        if self._on_batch is not None:
            self._on_batch(size, batch.seconds)
        for item, answer in zip(batch.items, batch.answers, strict=True):
            if isinstance(answer, RequestError):
                _fail(item, answer)
            elif isinstance(answer, Exception):
                log.error("the model failed on an input", exc_info=answer)
                _fail(item, InternalError("the model failed on this input; the node's log says why"))
            elif not item.future.done():
                item.future.set_result(Outcome(answer, batch.started - item.submitted, batch.seconds))

    def _timed(self, batch: Tensors) -> tuple[Tensors, float]:
        started = self._clock.monotonic()
        try:
            outputs = self._runtime.run(batch)
        except SystemExit as error:  # it would end the runner, and nobody would be answered
            raise RuntimeError("the model called sys.exit") from error
        return outputs, self._clock.monotonic() - started


class Batch:
    """Items that run together; a ``Job`` of ``compute``."""

    def __init__(self, batcher: Batcher, items: list[Waiting], started: float, expected: float) -> None:
        self.items = items
        self.started = started
        self.expected = expected
        self.answers: list[Tensors | Exception] = []
        self.seconds = 0.0
        self._batcher = batcher

    def execute(self) -> None:
        """See ``Job``."""
        self.answers, self.seconds = self._batcher.execute(self.items)

    def finish(self) -> None:
        """See ``Job``."""
        self._batcher.finished(self)

    def abandon(self) -> None:
        """See ``Job``."""
        for item in self.items:
            _fail(item, Draining("this node is stopping; ask another"))


def _fail(item: Waiting, error: RequestError) -> None:
    if not item.future.done():
        item.future.set_exception(error)
