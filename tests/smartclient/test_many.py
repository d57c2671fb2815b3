import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from smartclient.many import from_blocking, in_parallel


async def test_everything_is_done_once() -> None:
    async def double(item: int) -> int:
        await asyncio.sleep(0)
        return 2 * item

    results = [each async for each in in_parallel(range(1000), double, 7)]
    assert sorted(results) == [2 * item for item in range(1000)]


async def test_no_more_than_so_many_at_a_time_and_no_further_ahead() -> None:
    busy = most = taken = done = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(500):
            taken += 1
            yield item

    async def work(item: int) -> int:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        busy -= 1
        return item

    async for _ in in_parallel(items(), work, 5):
        done += 1
        assert taken - done <= 2 * 5 + 1, "unbounded reading ahead"
    assert most == 5


async def test_a_slow_item_holds_no_other_up() -> None:
    slow = asyncio.Event()

    async def work(item: int) -> int:
        if item == 0:
            await slow.wait()
        return item

    results = []
    async for each in in_parallel(range(20), work, 3):
        results.append(each)
        if len(results) == 19:
            slow.set()
    assert results[-1] == 0


async def test_what_is_done_is_given_out_while_the_next_item_is_awaited() -> None:
    more = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        yield 1
        await more.wait()
        yield 2

    async def same(item: int) -> int:
        return item

    async with aclosing(in_parallel(items(), same, 4)) as results:
        assert await anext(results) == 1
        more.set()
        assert await anext(results) == 2


async def test_an_error_of_the_work_or_of_the_items_ends_it() -> None:
    async def work(item: int) -> float:
        return 1 / item

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    with pytest.raises(ZeroDivisionError):
        _ = [each async for each in in_parallel([1, 0, 2], work, 2)]
    with pytest.raises(OSError, match="disk"):
        _ = [each async for each in in_parallel(broken(), work, 2)]


async def test_leaving_early_cancels_what_is_under_way() -> None:
    cancelled = 0

    async def work(item: int) -> int:
        nonlocal cancelled
        if item:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise
        return item

    async with aclosing(in_parallel(range(10), work, 4)) as results:
        assert await anext(results) == 0
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert cancelled == 4
    assert len(asyncio.all_tasks()) == 1


async def test_a_blocking_iterable_is_read_in_a_thread_a_little_ahead() -> None:
    taken: list[str] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(threading.current_thread().name)
            yield item

    results = [each async for each in from_blocking(items(), ahead=8)]
    assert results == list(range(100))
    assert set(taken) == {"from_blocking"}


async def test_reading_ahead_is_bounded() -> None:
    taken = 0
    full = threading.Event()

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            if taken > 8:
                full.set()
            yield taken

    async with aclosing(from_blocking(items(), ahead=8)) as reading:
        await anext(reading)
        await asyncio.to_thread(full.wait, 10)
        assert taken <= 11


async def test_a_blocking_iterables_error_arrives() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("pipe")

    with pytest.raises(OSError, match="pipe"):
        _ = [each async for each in from_blocking(items())]
