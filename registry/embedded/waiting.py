"""Waiting for something, but not for ever."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from registry.timing import Clock


async def within(clock: Clock, seconds: float, something: Awaitable[Any]) -> None:
    """Return when ``something`` has come, or after so many seconds; it is then cancelled."""
    event = asyncio.ensure_future(something)
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({event, timer}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        event.cancel()
        timer.cancel()
