"""The yardstick of ``bench node``: what a machine can do with a model when nothing has to go over HTTP.

One process decodes in as many threads as there are cores and runs batches of whatever is decoded: with the frozen
function (``bare_tensorflow``) or with the runtime that ``auto`` chose. ``python -m infra.bench.bare ARM FOLDER`` prints
what it runs once it can start; each line on standard input is a ``closed.Turn`` in JSON, answered with an ``Outcome``.
The clients of a turn are images under way: each is followed by another as soon as it has been classified. With one
client there is nothing to do side by side: decode, run, again, in one thread.
"""

import itertools
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from infra.bench.closed import Outcome, Tally, Turn
from infra.bench.pressure import images
from infra.bench.rivals.frozen import SIDE, load
from node.images import decode
from node.machine import cores
from node.models import locate
from node.preprocessing import Preprocessing
from node.runtimes.select import Choice, open_runtime
from node.runtimes.select.opening import Selected
from node.runtimes.tensorflow import tensorflow
from node.tensors import Array

MOST = 32
WANTED = Preprocessing(height=SIDE, width=SIDE)

# The arms, and what ``auto`` is asked for; the frozen function is not asked for anything.
QUANTIZE = {"bare_fastest": "", "bare_int8": "int8"}


class Engine(NamedTuple):
    """A warm model: from a batch of pixels, in its dtype, to scores; and what it is, for people."""

    run: Callable[[Array], Array]
    dtype: "np.dtype[Any]"
    about: dict[str, str]


class Item(NamedTuple):
    """An image under way: which, when it was given, whether it is its client's first, its pixels once it has them."""

    number: int
    given: float
    first: bool
    pixels: Array | None = None


class Pipeline:
    """Decoding threads, a queue, a runner."""

    def __init__(self, engine: Engine, files: Sequence[bytes], *, threads: int) -> None:
        self._run = engine.run
        self._files = files
        self._threads = threads
        self._batch = np.empty((MOST, *WANTED.shape), engine.dtype)

    def take(self, turn: Turn) -> Outcome:
        """Take one turn."""
        cpu, now = time.process_time(), time.monotonic()
        tally = Tally(turn, now)
        if turn.clients == 1:
            self._one_by_one(tally, now)
        else:
            self._side_by_side(turn.clients, tally, now)
        return tally.outcome(time.process_time() - cpu)

    def _one_by_one(self, tally: Tally, now: float) -> None:
        for number in itertools.count():
            if now >= tally.end:
                return
            given = now
            image = number % len(self._files)
            self._batch[0] = decode(self._files[image], WANTED)
            found = self._run(self._batch[:1]).argmax(axis=1)
            now = time.monotonic()
            tally.answered(now, given, first=number == 0, own=found[0] == image)

    def _side_by_side(self, clients: int, tally: Tally, now: float) -> None:
        given: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        decoded: queue.SimpleQueue[Item] = queue.SimpleQueue()
        threads = [threading.Thread(target=self._decode, args=(given, decoded)) for _ in range(self._threads)]
        for thread in threads:
            thread.start()
        for number in range(clients):
            given.put(Item(number, now, True))
        under_way = clients
        while under_way:
            items = [decoded.get()]
            while len(items) < MOST and not decoded.empty():
                items.append(decoded.get())
            for place, item in enumerate(items):
                self._batch[place] = item.pixels
            found = self._run(self._batch[: len(items)]).argmax(axis=1)
            now = time.monotonic()
            for item, index in zip(items, found, strict=True):
                tally.answered(now, item.given, first=item.first, own=index == item.number % len(self._files))
                if now < tally.end:
                    given.put(Item(item.number + 1, now, False))
                else:
                    under_way -= 1
        for _ in threads:
            given.put(None)
        for thread in threads:
            thread.join()

    def _decode(self, given: "queue.SimpleQueue[Item | None]", decoded: "queue.SimpleQueue[Item]") -> None:
        while (item := given.get()) is not None:
            pixels = decode(self._files[item.number % len(self._files)], WANTED)
            decoded.put(item._replace(pixels=pixels))


def frozen(folder: Path) -> Engine:
    """The function that the rivals run, too."""
    tensorflow()  # quietly
    return Engine(load(folder / "frozen.pb"), np.dtype(np.uint8), {"runtime": "tensorflow"})


def chosen(folder: Path, quantize: str) -> Engine:
    """What a node runs with ``--runtime auto``: it reads the choice that a node has left beside the model."""
    runtime = open_runtime(locate(folder / "model.keras"), Choice(runtime="auto", quantize=quantize))
    signature = runtime.signature
    if signature.picture is None or signature.scores is None:
        raise SystemExit("error: the model takes no picture, or gives no scores")
    given, wanted = signature.picture, signature.scores.name
    trials = "; ".join(str(each) for each in runtime.report.trials) if isinstance(runtime, Selected) else ""
    engine = Engine(
        lambda batch: runtime.run({given.name: batch})[wanted],
        given.dtype,
        {"runtime": f"{runtime.name} {quantize}".rstrip(), "trials": trials},
    )
    for size in (MOST, *range(1, MOST)):
        engine.run(np.zeros((size, *WANTED.shape), given.dtype))
    return engine


def main(arm: str, folder: Path) -> None:
    """Take turns until standard input ends."""
    engine = chosen(folder, QUANTIZE[arm]) if arm in QUANTIZE else frozen(folder)
    pipeline = Pipeline(engine, [path.read_bytes() for path in images(folder)], threads=cores())
    print(json.dumps(engine.about), flush=True)
    for line in sys.stdin:
        outcome = pipeline.take(msgspec.json.decode(line, type=Turn))
        print(msgspec.json.encode(outcome).decode(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
