"""The benchmark runs to its end and reports every arm; how fast anything is, is not a test's business."""

from collections.abc import Callable

import pytest

from infra.bench.cli import as_text
from infra.bench.start import Effort, run

pytestmark = [pytest.mark.e2e, pytest.mark.tensorflow]


async def test_every_arm_is_measured_in_one_run_and_nothing_is_left(leftovers: Callable[[], list[str]]) -> None:
    said: list[str] = []
    result = await run(Effort(rounds=1, reload=1, once=2, node=8, client=40), said.append)
    rates = result["images_per_s"]
    assert set(rates) == {"reload_per_image", "loaded_once", "node"}
    assert all(rate > 0 for rate in rates.values())
    for arm in ("nodes", "echo"):
        measured = result["client"][arm]
        assert measured["ratio"] == pytest.approx(measured["smart_per_s"] / measured["bare_aiohttp_per_s"], rel=0.05)
    assert "serving, round 1 of 1" in said
    shown = as_text(result)
    assert f"{rates['node']:.2f} images/s" in shown
    assert shown.count("smart client / bare aiohttp") == 2
