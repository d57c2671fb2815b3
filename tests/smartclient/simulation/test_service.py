import random
import statistics

import pytest

from smartclient.simulation.service import Constant, Exponential, Lognormal, Pareto, Service


@pytest.mark.parametrize(
    "service",
    [Constant(mean=0.02), Exponential(mean=0.02), Lognormal(mean=0.02, sigma=0.5), Pareto(mean=0.02)],
    ids=str,
)
def test_every_distribution_has_the_mean_it_is_given(service: Service) -> None:
    rng = random.Random(5)
    assert statistics.fmean(service.draw(rng) for _ in range(100_000)) == pytest.approx(0.02, rel=0.03)


def test_a_lognormal_has_its_sigma() -> None:
    rng, service = random.Random(5), Lognormal(mean=0.05, sigma=0.5)
    times = [service.draw(rng) for _ in range(20_000)]
    assert statistics.quantiles(times, n=100)[98] / statistics.median(times) == pytest.approx(3.2, rel=0.05)


def test_a_pareto_stays_between_its_shortest_and_its_longest() -> None:
    rng, service = random.Random(5), Pareto(mean=0.05, shape=1.5, ratio=200)
    times = [service.draw(rng) for _ in range(50_000)]
    assert min(times) == pytest.approx(service.shortest, rel=0.01)
    assert service.shortest * 100 < max(times) <= service.shortest * 200
