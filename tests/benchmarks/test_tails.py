"""``bench tails`` runs to its end at its smallest and reports every figure; how fast anything is, is not tested."""

import pytest

from infra.bench.arrivals import Outcome
from infra.bench.cli import tails_as_text
from infra.bench.tails import FAST_TURNS, Effort, run, summary
from infra.fleet import FleetError

pytestmark = pytest.mark.e2e
TWO_ROUNDS = Effort(rounds=2, fast_seconds=0.2, policy="default")


def outcomes(*requests: int, milliseconds: float = 50.0, **fields: int) -> list[Outcome]:
    return [Outcome(requests=count, milliseconds=[milliseconds] * count, **fields) for count in requests]


async def test_every_arm_has_its_turns_and_every_figure_its_key() -> None:
    said: list[str] = []
    effort = Effort(rounds=1, seconds=1.0, clients=2, warm=0.5, fast_seconds=0.5)
    result = await run(effort, said.append)
    for key in ("p50_ms", "p99_ms", "requests", "failed", "per_s_1ms"):
        assert set(result[key]) == set(effort.policies), key
    for policy in effort.policies:
        assert 0 < result["p50_ms"][policy] <= result["p99_ms"][policy]
        assert result["requests"][policy] > 0
        assert result["failed"][policy] == 0
    assert result["ratio"] > 0
    assert len(result["throughput_ratios_1ms"]) == FAST_TURNS
    assert (result["default"], result["clients"], result["nodes"], result["load"]) == (effort.policy, 2, 6, 0.7)
    assert {"probe_share", "probe_share_1ms", "throughput_ratio_1ms"} <= set(result)
    assert set(result["one_slow"]["p99_ms"]) == {"without", effort.policy, "rotation"}
    assert result["one_slow"]["failed"][effort.policy] == 0
    assert result["one_slow"]["ratio"] > 0
    assert "engines of 50 ms, round 1 of 1" in said
    assert f"{result['ratio']:.3f}" in tails_as_text(result)


def test_percentiles_are_over_the_requests_of_all_rounds_and_clients() -> None:
    slow = {"rotation": outcomes(98, 1) + outcomes(1, milliseconds=400.0), "default": outcomes(50, 50)}
    slow["rotation"] += outcomes(1, milliseconds=300.0)
    fast = {"rotation": outcomes(100, 100), "default": outcomes(90, 110)}
    result = summary(TWO_ROUNDS, slow, fast)
    assert result["p99_ms"] == {"rotation": 300.0, "default": 50.0}
    assert result["ratio"] == pytest.approx(50 / 300, abs=1e-3)
    assert result["throughput_ratios_1ms"] == [0.9, 1.1]
    assert result["throughput_ratio_1ms"] == 1.0
    assert result["per_s_1ms"]["rotation"] == 500


def test_probes_are_counted_for_each_request() -> None:
    slow = {"rotation": outcomes(10), "default": outcomes(10, 30, probes=20)}
    result = summary(TWO_ROUNDS, slow, {"rotation": outcomes(10), "default": outcomes(10)})
    assert (result["probe_share"], result["probe_share_1ms"]) == (1.0, 0.0)


def test_a_failure_is_no_throughput_and_an_arm_that_only_fails_says_why() -> None:
    slow = {"rotation": outcomes(10), "default": outcomes(10)}
    half = [Outcome(requests=10, failed=5)]
    assert summary(TWO_ROUNDS, slow, {"rotation": outcomes(10), "default": half})["throughput_ratio_1ms"] == 0.5
    none = [Outcome(requests=10, failed=10, first_failure="no node answered")]
    with pytest.raises(FleetError, match="nothing was answered with default: no node answered"):
        summary(TWO_ROUNDS, slow, {"rotation": outcomes(10), "default": none})
