"""Three times what a node can do, whatever becomes of it: what it can do it goes on doing, the rest is refused.

The node is a real process; its model takes a known time (20 ms a batch and 2 ms a row, slept, not burnt). All figures
are held against the capacity measured a moment before in the same run, so that a slow machine is slow in both.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from infra.bench.child import percentile
from node.images import encode_png
from tests.hostile.victim import MEBI, Victim, victim
from tests.plain import DEADLINE, Answer, Plain, poisson, post

pytestmark = pytest.mark.e2e

SECONDS = float(os.environ.get("TWOSTEP_OVERLOAD_SECONDS", "8"))
ATTEMPTS = 3
QUEUE_LIMIT = 0.5
# Of refusals, 99 in 100: client and node share this machine's cores, and a few meet a busy moment of it.
REFUSED_WITHIN = 0.050
DEADLINE_SECONDS = 1.0
MODEL = """
    import time

    import numpy as np

    inputs = [("pixels", "UINT8", (8, 8, 1))]
    outputs = [("scores", "FP32", (10,))]

    def load(folder):
        def run(batch):
            time.sleep(0.020 + 0.002 * len(batch["pixels"]))
            return np.full((len(batch["pixels"]), 10), 0.1, np.float32)

        return run
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    options = ("--max-batch", "8", "--queue-limit-ms", str(round(QUEUE_LIMIT * 1e3)))
    with victim(tmp_path_factory.mktemp("overload"), *options, slow=MODEL) as running:
        yield running


def image(level: int) -> bytes:
    return encode_png(np.full((8, 8, 1), level, np.uint8))


REQUEST = post("/classify", image(7), **{DEADLINE: str(round(DEADLINE_SECONDS * 1e3))})


async def capacity(client: Plain, *, at_once: int = 32, seconds: float = 2.0) -> float:
    """Answers a second while there is always enough to do, and never too much."""
    finished: list[float] = []
    end = time.monotonic() + seconds + 0.5

    async def again() -> None:
        while time.monotonic() < end:
            answer = await client.ask(REQUEST)
            assert answer.status == 200, answer
            finished.append(time.monotonic())

    await asyncio.gather(*(again() for _ in range(at_once)))
    counted = [moment for moment in finished if end - seconds <= moment < end]
    return len(counted) / seconds


class Seen:
    """What became of the requests of an overload, by the moment each arrived, and what the node said of itself."""

    def __init__(self) -> None:
        self.answers: list[tuple[float, Answer]] = []
        self.queues: list[int] = []
        self.waits: list[float] = []

    def of(self, status: int, since: float) -> list[Answer]:
        return [answer for at, answer in self.answers if answer.status == status and at >= since]


async def overload(client: Plain, rate: float, seconds: float) -> Seen:
    seen, over = Seen(), asyncio.Event()

    async def ask(at: float) -> None:
        seen.answers.append((at, await client.ask(REQUEST)))

    async def look() -> None:
        while not over.is_set():
            said = json.loads((await client.ask(b"GET /load HTTP/1.1\r\nHost: node\r\n\r\n")).body)
            seen.queues.append(said["queue"])
            seen.waits.append(said["wait_ms"])
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as both:
        both.create_task(look())
        await poisson(ask, rate=rate, seconds=seconds, rng=random.Random(5))
        over.set()
    return seen


class Figures:
    """What came of one overload of a node that was measured just before; times are seconds."""

    def __init__(self, able: float, seen: Seen, *, grown: float, after: float) -> None:
        settled = 1.0  # the queue fills
        good = [each for each in seen.of(200, settled) if each.seconds <= DEADLINE_SECONDS]
        self.statuses = Counter(answer.status for _, answer in seen.answers)
        self.able = able
        self.goodput = len(good) / (SECONDS - settled)
        self.refused = seen.of(503, 0.0)
        self.accepted = seen.of(200, 0.0) + seen.of(504, 0.0)
        self.queue = max(seen.queues)
        self.wait = max(seen.waits)
        self.grown = grown
        self.after = after

    def __repr__(self) -> str:
        return (
            f"capacity {self.able:.0f}/s, then {3 * self.able:.0f}/s for {SECONDS:g} s: "
            f"goodput {self.goodput:.0f}/s ({self.goodput / self.able:.2f}), {dict(self.statuses)}, "
            f"accepted {spread(self.accepted)}, refused {spread(self.refused)}, queue at most {self.queue}, "
            f"wait at most {self.wait:.0f} ms, memory +{self.grown:.0f} MiB, afterwards {self.after:.0f}/s"
        )

    @property
    def in_time(self) -> bool:
        """Whether all that depends on the clock is as it should be."""
        return (
            self.goodput >= 0.9 * self.able
            and percentile([each.seconds for each in self.refused], 99) <= REFUSED_WITHIN
            and percentile([each.seconds for each in self.accepted], 99) <= DEADLINE_SECONDS
            and self.after >= 0.9 * self.able
        )


async def test_three_times_its_capacity_costs_a_node_little_of_it(node: Victim) -> None:
    """What has to do with time may be spoilt by what else this machine does: one undisturbed run of several will do."""
    tries: list[Figures] = []
    for _ in range(ATTEMPTS):
        async with Plain(node.port) as client:
            able = await capacity(client)
            before = node.resident()
            node.forget_peak()
            seen = await overload(client, 3 * able, SECONDS)
            grown = (node.resident("VmHWM") - before) / MEBI
            figures = Figures(able, seen, grown=grown, after=await capacity(client))
        tries.append(figures)
        print(figures)  # noqa: T201 - shown with -rP
        assert set(figures.statuses) <= {200, 503, 504}
        assert len(figures.refused) > len(figures.accepted)  # it was an overload
        assert all(int(each.headers["retry-after"]) >= 1 for each in figures.refused)
        assert figures.queue <= 1.5 * QUEUE_LIMIT * able + 8
        assert grown < 64
        if figures.in_time:
            return
    pytest.fail(f"not once in time: {tries}")


def spread(answers: list[Answer]) -> str:
    p50, p99, most = (percentile([each.seconds for each in answers], percent) * 1e3 for percent in (50, 99, 100))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, at most {most:.1f} ms"
