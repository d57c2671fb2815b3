"""From the bytes of one image to the model's answer, whatever protocol they came by.

Decoding runs in as many threads as there are cores, then the batcher takes over. A ``Ticket`` is what a request carries
through: its deadline, whether its client is still there, where its time went. Admission by predicted time happens once
for a request: an image of a request that is in already is never refused for the queue its own sisters make.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec
import numpy as np

from node.admission import Admission
from node.batcher import Batcher, Outcome
from node.errors import BadImage, EmptyBody, ModelError
from node.images import Picture, Pixels, Preprocessing, encode_png
from node.load import Load, report, slowest
from node.machine import cores
from node.metrics import Metrics
from node.models import ModelSource, labels, preprocessing
from node.runtimes.base import Runtime, Scores
from registry.timing import Clock

# Up to this size decoding takes less than handing over to a thread does, so it is done in place (measured: a third
# more digits a second). The bound on bytes is for the header: nothing hidden in 4 KiB takes long to parse.
_TINY_BYTES = 4096
_TINY_PIXELS = 64 * 64
# Weight of the newest decode in the running mean that predicts the wait for decoding.
_NEWEST = 0.1


@dataclass(slots=True)
class Ticket:
    """One request on its way: ``deadline`` in the clock's seconds, ``gone`` says whether its client has left.

    ``queued``, ``decoding`` and ``inference`` are the longest of its images, in seconds.
    """

    deadline: float
    gone: Callable[[], bool]
    admitted: bool = False
    queued: float = 0.0
    decoding: float = 0.0
    inference: float = 0.0


class Prediction(msgspec.Struct, frozen=True):
    """One label with its score, as the model gave it."""

    label: str
    index: int
    score: float


@dataclass(slots=True)
class _DecodeLoad:
    """How many decodes are under way and how long one takes."""

    pending: int = 0
    mean: float = 0.0
    threads: int = field(default_factory=cores)

    def observe(self, seconds: float) -> None:
        self.mean = seconds if self.mean == 0 else self.mean + _NEWEST * (seconds - self.mean)

    @property
    def wait(self) -> float:
        return max(0, self.pending - self.threads) * self.mean / self.threads


class Pipeline:
    """A warm model and everything an image passes through on its way to it. Belongs to one event loop."""

    def __init__(
        self,
        source: ModelSource,
        runtime: Runtime,
        *,
        admission: Admission,
        metrics: Metrics,
        clock: Clock,
        max_batch: int,
    ) -> None:
        self.source = source
        self.labels: tuple[str, ...] = ()
        self.preprocessing: Preprocessing = preprocessing(source, runtime.signature)
        self.batcher = Batcher(
            runtime.run, self.preprocessing.shape, clock=clock, max_batch=max_batch, on_batch=metrics.ran
        )
        self._runtime = runtime
        self._admission = admission
        self._metrics = metrics
        self._clock = clock
        self._decoding = _DecodeLoad()
        self._decoders = ThreadPoolExecutor(self._decoding.threads, thread_name_prefix="decode")

    async def warm(self) -> None:
        """Decode an image and run every power of two up to the largest batch. Raises ``ModelError``."""
        picture = encode_png(np.zeros(self.preprocessing.shape, np.uint8))
        for _ in range(self._decoding.threads):
            await self._decode_in_thread(lambda: Picture(picture))
        with contextlib.suppress(BadImage):  # Pillow loads its rarer readers when it meets something unknown
            await self._decode(b"unknown")
        sizes = [1 << power for power in range(self.batcher.max_batch.bit_length())]
        try:
            scores = await self.batcher.warm(sorted({*sizes, self.batcher.max_batch}))
        except Exception as error:
            raise ModelError(f"{self.source.path} fails on an empty image: {error}") from error
        self.labels = labels(self.source, scores.shape[1])

    async def infer(self, data: bytes | bytearray, ticket: Ticket) -> Outcome:
        """Decode and classify one image. Raises ``RequestError``."""
        if not data:
            raise EmptyBody("there is no image: the body is empty")
        image, seconds = await self._decode(data)
        self._metrics.decode_seconds.observe(seconds)
        ticket.decoding = max(ticket.decoding, seconds)
        if not ticket.admitted:
            wait = self.batcher.predicted_wait()
            self._admission.check_wait(wait, ticket.deadline - self._clock.monotonic())
            ticket.admitted = True
        outcome = await self.batcher.submit(image, deadline=ticket.deadline, gone=ticket.gone)
        self._metrics.queue_seconds.observe(outcome.queued)
        ticket.queued = max(ticket.queued, outcome.queued)
        ticket.inference = max(ticket.inference, outcome.ran)
        return outcome

    def top(self, scores: Scores, count: int) -> list[Prediction]:
        """Return the ``count`` best labels, best first; equal scores in the model's own order."""
        best = (-scores).argsort(kind="stable")[:count]
        return [Prediction(self.labels[index], index, round(float(scores[index]), 6)) for index in best.tolist()]

    def predicted_wait(self) -> float:
        """Seconds until an image that came now would start to run, decoding of earlier ones included."""
        return self._decoding.wait + self.batcher.predicted_wait()

    def load(self, rps: float) -> Load:
        """How busy it is now; ``rps``: requests answered per second, which whoever speaks HTTP counts."""
        cap = self.batcher.cap
        return report(
            wait=self.predicted_wait(),
            inflight=self._admission.requests,
            queue=self.batcher.depth,
            capacity=slowest((cap, self.batcher.latency.predict(cap)), (self._decoding.threads, self._decoding.mean)),
            utilization=self.batcher.busy.at(self._clock.monotonic()),
            rps=rps,
        )

    async def close(self) -> None:
        """Fail what waits, let the present batch end, and free the model."""
        await self.batcher.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._runtime.close()

    def snapshot(self) -> dict[str, object]:
        """Model, runtime, decoders and batcher as they stand."""
        return {
            "model": self.source.name,
            "version": self.source.version,
            "decoding": self._decoding.pending,
            "decode_ms": round(self._decoding.mean * 1e3, 3),
            "wait_ms": round(self.predicted_wait() * 1e3, 3),
            **self._runtime.snapshot(),
            **self.batcher.snapshot(),
        }

    async def _decode(self, data: bytes | bytearray) -> tuple[Pixels, float]:
        """Return the pixels and the seconds decoding took."""
        if len(data) > _TINY_BYTES:
            return await self._decode_in_thread(lambda: Picture(data))
        started = self._clock.monotonic()
        picture = Picture(data)
        if picture.pixels > _TINY_PIXELS:  # a small file can be a large picture
            return await self._decode_in_thread(lambda: picture)
        return picture.decode(self.preprocessing), self._clock.monotonic() - started

    async def _decode_in_thread(self, parse: Callable[[], Picture]) -> tuple[Pixels, float]:
        def work() -> tuple[Pixels, float]:
            started = self._clock.monotonic()
            image = parse().decode(self.preprocessing)
            return image, self._clock.monotonic() - started

        self._decoding.pending += 1
        try:
            image, seconds = await asyncio.get_running_loop().run_in_executor(self._decoders, work)
        finally:
            self._decoding.pending -= 1
        self._decoding.observe(seconds)
        return image, seconds
