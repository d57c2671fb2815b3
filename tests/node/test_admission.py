"""Who may come in: bounds in count, bytes and predicted time."""

import asyncio

import pytest

from node.admission import Admission, retry_after
from node.errors import Overloaded

MEBI = 1024 * 1024


def test_a_wait_above_the_limit_is_refused_with_its_length():
    admission = Admission(limit=2.0)
    admission.check_wait(1.9, remaining=30)
    with pytest.raises(Overloaded, match=r"2\.5 s") as refusal:
        admission.check_wait(2.5, remaining=30)
    assert refusal.value.wait == 2.5
    assert refusal.value.headers == {"Retry-After": "1"}
    assert refusal.value.details == {"wait_ms": 2500}


def test_a_wait_beyond_the_requests_own_deadline_is_refused():
    with pytest.raises(Overloaded):
        Admission(limit=2.0).check_wait(0.5, remaining=0.4)


@pytest.mark.parametrize(("wait", "seconds"), [(2.1, 1), (3.0, 1), (3.1, 2), (9.5, 8)])
def test_retry_after_is_whole_seconds_until_the_queue_is_short_enough(wait, seconds):
    assert retry_after(wait, 2.0) == seconds


def test_requests_and_bytes_are_bounded_and_given_back():
    admission = Admission(limit=1, max_requests=2, max_bytes=100 * MEBI)
    admission.enter()
    admission.enter()
    with pytest.raises(Overloaded, match="2 requests"):
        admission.enter()
    admission.hold(100 * MEBI, of=100 * MEBI)
    with pytest.raises(Overloaded, match="100 MiB"):
        admission.hold(1, of=MEBI)
    admission.release(100 * MEBI)
    admission.leave()
    admission.enter()
    admission.hold(100 * MEBI, of=100 * MEBI)
    assert admission.snapshot() == {"requests": 2, "bytes": 100 * MEBI, "queue_limit_ms": 1000}


def test_small_bodies_find_room_beside_large_ones_that_fill_the_node_but_not_without_end():
    admission = Admission(limit=1, max_bytes=100 * MEBI)
    admission.hold(100 * MEBI, of=100 * MEBI)
    small = MEBI // 4
    for _ in range(32):
        admission.hold(small, of=small)
    with pytest.raises(Overloaded):
        admission.hold(small, of=small)


def test_what_a_body_announces_is_looked_at_and_not_counted():
    admission = Admission(limit=1, max_bytes=100)
    admission.check_bytes(100, of=100 * MEBI)
    assert admission.bytes == 0
    with pytest.raises(Overloaded):
        admission.check_bytes(101, of=100 * MEBI)


async def test_idle_is_when_the_last_request_has_left():
    admission = Admission(limit=1)
    await admission.idle()
    admission.enter()
    admission.enter()
    idle = asyncio.ensure_future(admission.idle())
    admission.leave()
    await asyncio.sleep(0)
    assert not idle.done()
    admission.leave()
    await idle
