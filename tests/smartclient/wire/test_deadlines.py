import asyncio
from collections.abc import Callable

import pytest

from smartclient.wire.deadlines import Deadlines
from smartclient.wire.progress import Progress


class Loop(asyncio.AbstractEventLoop):
    """A clock moved by hand, and whatever is set on it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, asyncio.TimerHandle, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def call_at(self, when: float, callback: Callable[[], None], *, context: object = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, (), self)
        self.timers.append((when, handle, callback))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    @property
    def standing(self) -> list[float]:
        return [when for when, handle, _ in self.timers if not handle.cancelled()]

    def pass_to(self, now: float) -> None:
        while due := [timer for timer in self.timers if timer[0] <= now and not timer[1].cancelled()]:
            timer = min(due, key=lambda each: each[0])
            self.timers.remove(timer)
            self.now = timer[0]
            timer[2]()
        self.now = now


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def deadlines(loop: Loop) -> Deadlines:
    return Deadlines(loop)


def waiting(deadlines: Deadlines, until: float, ended: list[float]) -> Progress:
    progress = Progress()
    progress.stop = lambda: ended.append(until)
    deadlines.add(progress, until)
    return progress


def test_each_wait_ends_at_its_time_in_whatever_order_they_began(loop: Loop, deadlines: Deadlines) -> None:
    ended: list[float] = []
    for until in (130.0, 110.0, 120.0, 110.0):
        waiting(deadlines, until, ended)
    loop.pass_to(109.9)
    assert ended == []
    loop.pass_to(110.0)
    assert ended == [110.0, 110.0]
    loop.pass_to(200.0)
    assert ended[2:] == [120.0, 130.0]
    assert loop.standing == []


def test_one_timer_stands_for_all_of_them(loop: Loop, deadlines: Deadlines) -> None:
    for number in range(1000):
        deadlines.remove(waiting(deadlines, 130.0 + number / 1000, []))
    ended: list[float] = []
    waiting(deadlines, 135.0, ended)
    assert loop.standing == [130.0]
    loop.pass_to(134.0)
    assert loop.standing == [135.0]
    loop.pass_to(135.0)
    assert ended == [135.0]


def test_what_came_to_its_end_is_not_ended(loop: Loop, deadlines: Deadlines) -> None:
    ended: list[float] = []
    deadlines.remove(waiting(deadlines, 110.0, ended))
    loop.pass_to(200.0)
    assert ended == []


def test_a_closed_one_leaves_no_timer(loop: Loop, deadlines: Deadlines) -> None:
    waiting(deadlines, 110.0, [])
    deadlines.close()
    assert loop.standing == []
