import math
import random
import statistics

import pytest

from smartclient.stats import LatencyHistogram, PeakEwma, RollingQuantile, bucket_of, upper_edge


def test_a_peak_is_believed_at_once_and_forgotten_slowly() -> None:
    ewma = PeakEwma()
    ewma.observe(0.1, 0.0)
    ewma.observe(1.0, 1.0)
    assert ewma.value == 1.0
    ewma.observe(0.1, 11.0)  # one tau later
    assert ewma.value == pytest.approx(math.exp(-1) * 1.0 + (1 - math.exp(-1)) * 0.1)


def test_silence_decays_what_is_read_but_not_what_is_known() -> None:
    ewma = PeakEwma()
    ewma.observe(0.5, 0.0)
    assert ewma.read(0.0) == 0.5
    assert ewma.read(10.0) == pytest.approx(0.5 * math.exp(-1))
    assert ewma.value == 0.5


def test_what_is_typical_is_hardly_moved_by_a_peak_and_unknown_before_the_third() -> None:
    ewma = PeakEwma()
    for seconds in (0.05, 0.001):
        ewma.observe(seconds, 0.0)
        assert ewma.typical == 0.0
    for _ in range(20):
        ewma.observe(0.001, 0.0)
    assert ewma.typical == pytest.approx(0.001, rel=0.5)
    ewma.observe(0.03, 0.0)
    assert ewma.typical < 0.002
    for _ in range(40):
        ewma.observe(0.1, 0.0)
    assert ewma.typical == pytest.approx(0.1, rel=0.1)
    assert ewma.silence(5.0) == 5.0


def test_slow_services_remember_longer_than_ten_seconds() -> None:
    ewma = PeakEwma()
    ewma.observe(20.0, 0.0)
    assert ewma.read(100.0) == pytest.approx(20.0 * math.exp(-1))


def test_unknown_is_zero() -> None:
    assert PeakEwma().read(123.0) == 0.0


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_quantile_is_at_most_a_tenth_above_the_true_one(share: float) -> None:
    rng = random.Random(3)
    samples = [rng.lognormvariate(-3, 1) for _ in range(20_000)]
    histogram = LatencyHistogram()
    for sample in samples:
        histogram.observe(sample)
    true = statistics.quantiles(samples, n=1000)[round(share * 1000) - 1]
    assert true * 0.99 <= histogram.quantile(share) <= true * 1.11
    assert histogram.count == 20_000
    assert histogram.total == pytest.approx(sum(samples))


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e-4, 0.00011, 0.05, 1.0, 900.0])
def test_every_latency_lies_in_its_bucket(seconds: float) -> None:
    bucket = bucket_of(seconds)
    assert seconds <= upper_edge(bucket) * (1 + 1e-9)
    assert bucket == 0 or upper_edge(bucket - 1) < seconds * (1 + 1e-9)


def test_the_last_bucket_takes_all_that_is_longer() -> None:
    histogram = LatencyHistogram()
    histogram.observe(1e9)
    assert 800 < histogram.quantile(0.5) < 1000


def test_no_sample_is_no_quantile() -> None:
    assert LatencyHistogram().quantile(0.5) is None
    assert RollingQuantile().quantile(0.5, 10.0) is None


def test_a_rolling_quantile_rests_on_the_window_before_as_well() -> None:
    rolling = RollingQuantile(window=30.0)
    for _ in range(100):
        rolling.observe(1.0, 1000.0)
    assert rolling.count(1029.0) == 100
    rolling.observe(0.1, 1031.0)
    assert rolling.count(1031.0) == 101
    assert rolling.quantile(0.5, 1031.0) == pytest.approx(1.0, rel=0.1)
    assert rolling.count(1062.0) == 1
    assert rolling.quantile(0.5, 1062.0) == pytest.approx(0.1, rel=0.1)
    assert rolling.count(2000.0) == 0
