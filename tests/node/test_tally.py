"""Counts in the terms of Triton's statistics extension."""

from node.tally import Duration, Tally


def test_a_duration_counts_and_adds_up_in_nanoseconds():
    duration = Duration()
    duration.add(0.25)
    duration.add(1e-9)
    assert (duration.count, duration.ns) == (2, 250_000_001)


def test_an_answered_item_counts_its_rows_its_wait_and_its_run():
    tally = Tally()
    tally.answered(3, queued=0.5, ran=0.25, now=1_700_000_000.5)
    tally.answered(1, queued=0.0, ran=0.25, now=1_700_000_001.0)
    assert (tally.success.count, tally.success.ns) == (2, 1_000_000_000)
    assert (tally.queue.count, tally.queue.ns) == (2, 500_000_000)
    assert (tally.infer.count, tally.infer.ns) == (2, 500_000_000)
    assert (tally.rows, tally.last, tally.fail.count) == (4, 1_700_000_001_000, 0)


def test_a_failed_item_is_no_success():
    tally = Tally()
    tally.failed()
    assert (tally.fail.count, tally.fail.ns, tally.success.count, tally.rows) == (1, 0, 0, 0)


def test_runs_are_kept_by_the_size_of_their_batch():
    tally = Tally()
    for size, seconds in ((4, 0.5), (1, 0.25), (4, 0.5)):
        tally.ran(size, seconds)
    assert tally.runs == 3
    assert tally.batches == {4: Duration(2, 1_000_000_000), 1: Duration(1, 250_000_000)}


def test_every_version_has_its_own_counts():
    one, other = Tally(), Tally()
    one.ran(1, 1.0)
    one.failed()
    assert other == Tally()
