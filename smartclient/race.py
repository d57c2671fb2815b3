"""The first good answer of two attempts, the second begun only when the first takes long. No task is left behind."""

import asyncio
from collections.abc import Awaitable, Callable

from registry.timing import Clock
from smartclient.attempt import Tried
from smartclient.stats import Outcome

Racer = asyncio.Task[Tried]


async def race(first: Racer, delay: float, second: Callable[[], Awaitable[Racer | None]], clock: Clock) -> list[Tried]:
    """Return how attempts ended, in the order they did: the last is the good one, or the last to fail.

    After ``delay`` seconds without an end of ``first``, ``second`` may start another. What is still running when a good
    answer has come is cancelled, as both are when the caller is.
    """
    running: set[Racer] = {first}
    ended: list[Tried] = []
    try:
        await _either(first, delay, clock)
        if not first.done() and (another := await second()) is not None:
            running.add(another)
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            results = sorted((task.result() for task in done), key=_is_good)
            ended += results
            if _is_good(ended[-1]):
                break
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    for tried in ended[:-1]:
        if tried.answer is not None and tried.answer.stream is not None:
            await tried.answer.stream.close()
    return ended


def _is_good(tried: Tried) -> bool:
    return tried.outcome is Outcome.OK


async def _either(task: Racer, seconds: float, clock: Clock) -> None:
    """Wait for ``task``, so long at most."""
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        await asyncio.gather(timer, return_exceptions=True)
