"""Rings of points: what is kept, where gaps are, and that nothing grows without end."""

from registry.dashboard import series
from registry.dashboard.series import Series


def test_points_come_oldest_first_and_the_oldest_goes():
    ring = Series(keep=3, every=10.0)
    for number in range(5):
        ring.add("a", 100.0 + 10 * number, float(number))
    assert ring.points("a") == [(120.0, 2.0), (130.0, 3.0), (140.0, 4.0)]
    assert ring.points("never added to") == []


def test_added_to_more_often_the_newest_point_has_the_newest_value():
    ring = Series(every=10.0)
    for at, value in ((100.0, 1.0), (104.0, 2.0), (110.0, 3.0), (109.0, None)):
        ring.add("a", at, value)
    assert ring.points("a") == [(100.0, 2.0), (110.0, None)]


def test_what_was_missed_is_a_gap_and_a_little_late_is_not():
    ring = Series(every=10.0)
    for at in (100.0, 110.6, 119.7, 150.0):
        ring.add("a", at, 1.0)
    assert ring.points("a") == [(100.0, 1.0), (110.6, 1.0), (119.7, 1.0), (130.0, None), (140.0, None), (150.0, 1.0)]


def test_a_long_silence_costs_no_more_than_the_ring():
    ring = Series(keep=4, every=10.0)
    ring.add("a", 0.0, 1.0)
    ring.add("a", 1e12, 2.0)
    assert ring.points("a") == [(1e12 - 30, None), (1e12 - 20, None), (1e12 - 10, None), (1e12, 2.0)]


def test_the_key_not_added_to_for_longest_goes(monkeypatch):
    monkeypatch.setattr(series, "MOST_KEYS", 3)
    ring = Series()
    for at, key in enumerate(("a", "b", "c", "a", "d")):
        ring.add(key, 10.0 * at, 1.0)
    assert [len(ring.points(key)) > 0 for key in "abcd"] == [True, False, True, True]
