"""Waiting for something, but not for ever, by a ``Clock`` that a test moves by hand."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from registry.timing import Clock


async def within(seconds: float, something: Awaitable[Any], clock: Clock) -> None:
    """Return when ``something`` has come, or after so many seconds; it is then cancelled. Nothing of it is raised."""
    event = asyncio.ensure_future(something)
    try:
        await done_within(seconds, event, clock)
    finally:
        event.cancel()


async def done_within(seconds: float, task: "asyncio.Future[Any]", clock: Clock) -> bool:
    """Wait for a task, but not for long; whether it is done. It goes on either way."""
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
    return task.done()


async def cancel(task: "asyncio.Future[Any]") -> None:
    """End a task and what it waits for; its own errors are of no interest any more."""
    task.cancel()
    if not task.done():
        await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
