"""The benchmarks run to their end and report every arm; how fast anything is, is not a test's business."""

from collections.abc import Callable

import pytest

from infra.bench import registry as registry_bench
from infra.bench.cli import as_text, registry_as_text
from infra.bench.registry import percentile
from infra.bench.start import Effort, run

pytestmark = pytest.mark.e2e


@pytest.mark.tensorflow
@pytest.mark.timeout(600)  # eight processes that import TensorFlow: minutes where the cores are shared
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


@pytest.mark.consul
async def test_a_change_costs_less_through_the_look_up_service_and_reaches_every_reader(
    consul_binary: str, leftovers: Callable[[], list[str]]
) -> None:
    effort = registry_bench.Effort(instances=400, rounds=1, changes=2, readers=20, reader_changes=2, outage=0)
    said: list[str] = []
    result = await registry_bench.run(effort, said.append)
    # The whole list again, against one row and the framing around it.
    assert result["bytes_per_change_consul"] > 400 * 500
    assert 50 < result["bytes_per_change_lookup"] < 1000
    assert result["readers"] == 20
    assert 0 < result["first_reader_p50_ms"] <= result["last_reader_p50_ms"] <= result["last_reader_p99_ms"]
    for way in ("consul", "lookup"):
        assert 0 < result[f"callback_p50_ms_{way}"] <= result[f"callback_p99_ms_{way}"]
        assert result[f"client_rss_mb_{way}"] > 10
    assert f"{result['bytes_per_change_consul']:,}" in registry_as_text(result)


def test_of_few_values_the_99th_percentile_is_the_largest() -> None:
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile(list(map(float, range(1, 1001))), 99) == 990.0
