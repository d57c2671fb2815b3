"""Doing one thing to very many items, so many at a time, with memory for only those.

Results come as they are done, not in order: one slow item holds nothing up. The items may come slowly too (a pipe
that somebody types into): what is finished is given out while the next item is awaited.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from enum import Enum, auto
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def in_parallel(
    items: Iterable[Item] | AsyncIterable[Item],
    work: Callable[[Item], Awaitable[Result]],
    concurrency: int,
) -> AsyncGenerator[Result, None]:
    """Yield ``work(item)`` for every item as each is done, ``concurrency`` (at least 1) under way at a time.

    An exception of ``work`` or of ``items`` ends it; leaving early cancels what is under way.
    """
    source = aiter(items) if isinstance(items, AsyncIterable) else _each(items)
    taking = asyncio.Lock()  # an async generator cannot be asked twice at once
    results: asyncio.Queue[Result | _End] = asyncio.Queue(maxsize=max(1, concurrency))

    async def worker() -> None:
        while True:
            async with taking:
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    return
            await results.put(await work(item))

    async def supervise() -> None:
        try:
            await asyncio.gather(*workers)
        finally:
            await results.put(_End.END)

    workers = [asyncio.create_task(worker()) for _ in range(max(1, concurrency))]
    supervisor = asyncio.create_task(supervise())
    try:
        while (result := await results.get()) is not _End.END:
            yield result
        await supervisor
    finally:
        for task in (supervisor, *workers):
            task.cancel()
        await asyncio.gather(supervisor, *workers, return_exceptions=True)


class _End(Enum):
    END = auto()


async def _each(items: Iterable[Item]) -> AsyncIterator[Item]:
    for item in items:
        yield item


async def from_blocking(items: Iterable[Item], *, ahead: int = 64) -> AsyncGenerator[Item, None]:
    """Yield from an iterable whose ``next`` may block (a pipe, a slow disk), reading at most ``ahead`` items ahead.

    It is read in a daemon thread: one that blocks for ever keeps neither the loop nor the interpreter from ending.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Item | Exception | _End] = asyncio.Queue()
    room = threading.Semaphore(ahead)
    left = threading.Event()

    def feed() -> None:
        last: Exception | _End = _End.END
        try:
            for item in items:
                room.acquire()
                if left.is_set():
                    return
                loop.call_soon_threadsafe(arrived.put_nowait, item)
        except Exception as error:  # noqa: BLE001 - raised again by the generator, in the caller's task
            last = error
        try:
            loop.call_soon_threadsafe(arrived.put_nowait, last)
        except RuntimeError:
            pass  # the loop has ended meanwhile, and the reader with it

    threading.Thread(target=feed, name="from_blocking", daemon=True).start()
    try:
        while (item := await arrived.get()) is not _End.END:
            if isinstance(item, Exception):
                raise item
            room.release()
            yield item
    finally:
        left.set()
        room.release()
