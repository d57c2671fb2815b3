"""One version of a model, loaded and warm, and everything a request passes through on its way to it.

Pictures are decoded by the node's ``Decoders``, arrays come as they are; then the batcher takes over. Admission by
predicted time happens once for a request: an item of a request that is in already is never refused for the queue its
own sisters make. Whoever uses it holds it (``Repository.use``), so that it is closed only when nobody does.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from node.admission import Admission
from node.batcher import Batcher, Outcome
from node.compute import Compute
from node.decoding import Decoders
from node.errors import BadImage, BadRequest, EmptyBody, InternalError, ModelError
from node.images import encode_png
from node.load import Load, report, slowest
from node.metrics import Metrics, ModelMetrics
from node.models import ModelSource, labels, preprocessing
from node.preprocessing import Preprocessing
from node.runtimes.base import Runtime, Signature
from node.tally import Tally
from node.tensors import Array, Tensors, rows
from node.ticket import Ticket
from node.together import end_all
from registry.timing import Clock

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all models of a node share."""

    compute: Compute
    decoders: Decoders
    admission: Admission
    metrics: Metrics
    clock: Clock
    max_batch: int


class Prediction(msgspec.Struct, frozen=True):
    """One label with its score, as the model gave it."""

    label: str
    index: int
    score: float


class Served:
    """A loaded version. Belongs to one event loop; ``warm`` comes first."""

    def __init__(self, source: ModelSource, runtime: Runtime, shared: Shared) -> None:
        """Raises ``ModelError`` when the manifest and the model do not go together."""
        self.name = source.name
        self.version = source.version
        self.source = source
        self.runtime = runtime
        self.labels: tuple[str, ...] = ()
        self.preprocessing: Preprocessing | None = preprocessing(source, runtime.signature)
        self.tally = Tally()
        self.users = 0
        self.unused = asyncio.Event()
        self.unused.set()
        self._shared = shared
        self._metrics: ModelMetrics = shared.metrics.model(self.name)
        self.batcher = Batcher(
            runtime, shared.compute, clock=shared.clock, max_batch=shared.max_batch, on_batch=self._ran
        )

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        return self.runtime.signature

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep it from being freed while a request is at work with it."""
        self.users += 1
        self.unused.clear()
        try:
            yield
        finally:
            self.users -= 1
            if not self.users:
                self.unused.set()

    async def warm(self) -> None:
        """Decode a picture and run every power of two up to the largest batch. Raises ``ModelError``."""
        if self.preprocessing is not None:
            await self._warm_decoding(self.preprocessing)
        try:
            outputs = await self.batcher.warm(self._empty)
        except Exception as error:
            if self.preprocessing is not None:
                raise ModelError(f"{self.source.path} fails on an empty image: {_first_line(error)}") from error
            log.warning("%s version %s fails on empty input and stays cold: %s", self.name, self.version, error)
            return
        if self.signature.scores is not None:
            self.labels = labels(self.source, outputs[self.signature.scores.name].shape[1])
        elif self.source.labels:
            raise ModelError(f"{self.source.path} has labels, but not one output that is a row of scores")

    async def decode(self, data: bytes | bytearray, ticket: Ticket) -> Array:
        """Turn an image file into one row of the model's input (1, …). Raises ``RequestError``."""
        if self.preprocessing is None:
            raise BadRequest(f"{self.name} takes no pictures; send it tensors: POST /v2/models/{self.name}/infer")
        if not data:
            raise EmptyBody("there is no image: the body is empty")
        self.batcher.arriving += 1
        try:
            array, seconds = await self._shared.decoders.decode(data, self.preprocessing, ticket)
        finally:
            self.batcher.arriving -= 1
        self._shared.metrics.decode_seconds.observe(seconds)
        ticket.decoding = max(ticket.decoding, seconds)
        return array[np.newaxis]

    async def infer(self, inputs: Tensors, ticket: Ticket) -> Tensors:
        """Run a request's arrays, any number of rows, in the signature's order and shapes. Raises ``RequestError``."""
        count, most = rows(inputs), self.batcher.max_batch
        self._admit(ticket)
        if count <= most:
            return await self._one(inputs, ticket)
        pieces = [
            asyncio.ensure_future(self._one({name: array[at : at + most] for name, array in inputs.items()}, ticket))
            for at in range(0, count, most)
        ]
        try:
            outputs = await asyncio.gather(*pieces)
        finally:
            await end_all(pieces)
        return {name: np.concatenate([each[name] for each in outputs]) for name in outputs[0]}

    async def classify(
        self, data: bytes | bytearray, ticket: Ticket, *, decoded: Callable[[], object] | None = None
    ) -> Array:
        """Decode one image file and return its scores (labels,). Raises ``RequestError``.

        ``decoded`` is called once the file itself is wanted no more.
        """
        wanted = self.signature.scores
        if wanted is None:
            raise BadRequest(f"{self.name} gives no scores; ask for its tensors: POST /v2/models/{self.name}/infer")
        image = await self.decode(data, ticket)
        del data  # it may be large, and the queue long
        if decoded is not None:
            decoded()
        scores: Array = (await self.infer({self.signature.inputs[0].name: image}, ticket))[wanted.name][0]
        if not np.isfinite(scores).all():
            raise InternalError("the model answered with something that is not a number")
        return scores

    def top(self, scores: Array, count: int) -> list[Prediction]:
        """Return the ``count`` best labels, best first; equal scores in the model's own order."""
        if count < len(scores):  # a thousand scores are not sorted for the sake of five
            least = np.partition(scores, -count)[-count]
            standing = np.flatnonzero(scores >= least)
        else:
            standing = np.arange(len(scores))
        best = standing[(-scores[standing]).argsort(kind="stable")[:count]]
        return [Prediction(self.labels[index], index, round(float(scores[index]), 6)) for index in best.tolist()]

    def predicted_wait(self) -> float:
        """Seconds until a request that came now would start to run, decoding of earlier ones included."""
        return self._shared.decoders.wait + self.batcher.predicted_wait()

    def load(self, rps: float) -> Load:
        """How busy it is now; ``rps``: requests answered per second, which whoever speaks HTTP counts."""
        shared, cap = self._shared, self.batcher.cap
        decoders = shared.decoders
        return report(
            wait=self.predicted_wait(),
            inflight=shared.admission.requests,
            queue=self.batcher.depth,
            capacity=slowest((cap, self.batcher.latency.predict(cap)), (decoders.threads, decoders.mean)),
            utilization=shared.compute.busy.at(shared.clock.monotonic()),
            rps=rps,
        )

    async def close(self) -> None:
        """Fail what waits, let the present batch end, free the model."""
        self.batcher.close()
        await self._shared.compute.call(self.runtime.close)

    def snapshot(self) -> dict[str, object]:
        """Model, runtime and batcher as they stand."""
        return {
            "model": self.name,
            "version": self.version,
            "users": self.users,
            **self.runtime.snapshot(),
            **self.batcher.snapshot(),
        }

    def _admit(self, ticket: Ticket) -> None:
        if not ticket.admitted:
            remaining = ticket.deadline - self._shared.clock.monotonic()
            self._shared.admission.check_wait(self.batcher.predicted_wait(), remaining)
            ticket.admitted = True

    async def _one(self, inputs: Tensors, ticket: Ticket) -> Tensors:
        try:
            outcome: Outcome = await self.batcher.submit(inputs, deadline=ticket.deadline, gone=ticket.gone)
        except BaseException:
            self.tally.failed()
            raise
        self._metrics.queue_seconds.observe(outcome.queued)
        self.tally.answered(rows(inputs), outcome.queued, outcome.ran, self._shared.clock.time())
        ticket.queued = max(ticket.queued, outcome.queued)
        ticket.inference = max(ticket.inference, outcome.ran)
        return outcome.outputs

    def _ran(self, size: int, seconds: float) -> None:
        self._metrics.ran(size, seconds)
        self.tally.ran(size, seconds)

    async def _warm_decoding(self, wanted: Preprocessing) -> None:
        blank = np.zeros((wanted.height, wanted.width, wanted.channels), np.uint8)
        await self._shared.decoders.warm(encode_png(blank), wanted)
        with contextlib.suppress(BadImage):  # Pillow loads its rarer readers when it meets something unknown
            await self._shared.decoders.decode(b"unknown", wanted)

    def _empty(self, count: int) -> Tensors:
        """A batch of nothing, for warming."""
        return {
            spec.name: np.zeros((count, *self._size(spec.shape)), spec.dtype)
            if spec.datatype != "BYTES"
            else np.full((count, *self._size(spec.shape)), b"", np.object_)
            for spec in self.signature.inputs
        }

    def _size(self, shape: tuple[int | None, ...]) -> tuple[int, ...]:
        if self.preprocessing is not None:
            return self.preprocessing.shape
        return tuple(1 if size is None else size for size in shape)


def _first_line(error: Exception) -> str:
    text = str(error).splitlines()
    return text[0][:200] if text else type(error).__name__
