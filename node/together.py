"""Several tasks at work for one request."""

import asyncio
from typing import Any


async def end_all(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel those that still run, wait for their end and empty the list.

    An error holds the frames it came through. If such a frame held a task that ended with it, both would stay, and all
    that the request brought with them, until the collector comes by: hundreds of megabytes, if large requests fail.
    """
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()
