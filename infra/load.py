"""A bounded load on a service through the smart client, and a count of what came of it.

The demo and the benchmarks ask the same way and count the same way: so many images, so many at a time, every answer
with its node and its milliseconds, every failure with its reason.
"""

import asyncio
import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.fleet import FleetError
from smartclient import AsyncSmartClient
from smartclient.errors import ClientError


@dataclass
class Tally:
    """What came of the requests."""

    requests: int = 0
    right: int = 0
    retried: int = 0
    by_node: Counter[str] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def finished(self) -> int:
        """Answered and failed ones."""
        return len(self.milliseconds) + len(self.failures)

    def report(self, registry: str) -> dict[str, Any]:
        """The numbers as one JSON-ready object; times in milliseconds, ``accuracy`` over the answered images."""
        answered = len(self.milliseconds)
        ranks = statistics.quantiles(self.milliseconds, n=100) if answered > 1 else [*self.milliseconds * 99]
        return {
            "registry": registry,
            "requests": self.requests,
            "failed": len(self.failures),
            "retried": self.retried,
            "by_node": dict(sorted(self.by_node.items())),
            "accuracy": round(self.right / answered, 4) if answered else None,
            "p50_ms": round(ranks[49], 2) if answered else None,
            "p99_ms": round(ranks[98], 2) if answered else None,
            "failures": self.failures[:5],
        }


def choose(samples: Path, count: int) -> list[Path]:
    """``count`` held-out images in a fixed shuffled order, each class among them; more than there are: again."""
    images = sorted(samples.glob("*/*.png"))
    if not images:
        raise FleetError(f"no images under {samples}; make some: twostep train digits --out {samples.parent}")
    random.Random(0).shuffle(images)
    return [images[number % len(images)] for number in range(count)]


async def classify_all(
    client: AsyncSmartClient,
    images: Sequence[Path],
    *,
    concurrency: int,
    on_answer: Callable[[Tally], None] = lambda _: None,
    half_way: Callable[[], None] = lambda: None,
) -> Tally:
    """Classify every image, ``concurrency`` at a time; the true class is the name of the image's folder.

    ``half_way`` is called once, when half are done and others are under way.
    """
    tally = Tally(requests=len(images))
    waiting = iter(images)
    half = len(images) // 2
    half_way_passed = False

    async def work() -> None:
        nonlocal half_way_passed
        for image in waiting:
            try:
                answer = await client.classify(image)
            except ClientError as error:
                tally.failures.append(f"{image.name}: {error}")
            else:
                tally.by_node[answer.node] += 1
                tally.right += answer.label == image.parent.name
                tally.retried += answer.attempts > 1
                tally.milliseconds.append(answer.milliseconds)
            on_answer(tally)
            if not half_way_passed and tally.finished >= half:
                half_way_passed = True
                half_way()

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return tally
