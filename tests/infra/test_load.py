"""Choosing images and counting answers."""

from pathlib import Path

import pytest

from infra.fleet import FleetError
from infra.load import Tally, choose


def test_images_are_chosen_the_same_way_every_time_and_repeat_when_there_are_too_few(tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / str(number % 2)
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.png").touch()
    chosen = choose(tmp_path, 14)
    assert chosen == choose(tmp_path, 14)
    assert chosen[:6] == chosen[6:12]
    assert len(set(chosen)) == 6
    assert chosen[:6] != sorted(chosen[:6])


def test_no_images_says_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="twostep train digits"):
        choose(tmp_path, 1)


def test_a_tally_reports_ranks_over_the_answered_and_keeps_the_reasons() -> None:
    tally = Tally(
        requests=102, right=99, milliseconds=[float(each) for each in range(1, 101)], failures=["a: b", "c: d"]
    )
    tally.by_node.update({"n-2": 40, "n-1": 60})
    report = tally.report("embedded")
    assert report["accuracy"] == 0.99
    assert report["p50_ms"] == pytest.approx(50.5)
    assert report["p99_ms"] == pytest.approx(99.99)
    assert list(report["by_node"]) == ["n-1", "n-2"]
    assert (report["requests"], report["failed"], report["failures"]) == (102, 2, ["a: b", "c: d"])


def test_a_tally_of_failures_only_has_no_numbers() -> None:
    report = Tally(requests=1, failures=["x"]).report("embedded")
    assert (report["accuracy"], report["p50_ms"], report["p99_ms"]) == (None, None, None)
    assert Tally(requests=1, milliseconds=[3.0]).report("embedded")["p99_ms"] == 3.0
