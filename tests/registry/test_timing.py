import random

from registry.timing import Backoff, SystemClock, TokenBucket


class Highest(random.Random):
    """Draws the top of every range."""

    def random(self):
        return 1.0


def test_backoff_ceilings_double_from_the_base_to_the_cap():
    backoff = Backoff(base=0.25, cap=30.0)
    assert [backoff.delay(attempt, Highest()) for attempt in (0, 1, 2, 6, 7, 10_000)] == [
        0.25,
        0.5,
        1.0,
        16.0,
        30.0,
        30.0,
    ]


def test_backoff_draws_below_its_ceiling():
    rng = random.Random(7)
    delays = [Backoff().delay(3, rng) for _ in range(100)]
    assert 0 <= min(delays) < 0.2
    assert 1.8 < max(delays) < 2.0


def test_bucket_lets_the_burst_through_and_then_one_per_interval():
    bucket = TokenBucket(burst=2, interval=10.0)
    assert [bucket.take(0.0) for _ in range(4)] == [0.0, 0.0, 10.0, 20.0]


def test_bucket_fills_again_and_no_further_than_its_burst():
    bucket = TokenBucket(burst=2, interval=10.0)
    for _ in range(2):
        bucket.take(0.0)
    assert bucket.take(10.0) == 0.0
    assert [bucket.take(1000.0) for _ in range(3)] == [0.0, 0.0, 10.0]


def test_bucket_takes_a_new_interval():
    bucket = TokenBucket(burst=1, interval=10.0)
    bucket.take(0.0)
    assert bucket.take(0.0, interval=3.0) == 3.0


async def test_system_clock_moves_on():
    clock = SystemClock()
    before = clock.monotonic(), clock.time()
    await clock.sleep(0.001)
    assert clock.monotonic() > before[0]
    assert clock.time() > before[1]
