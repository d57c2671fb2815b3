"""The simulator against queueing theory, which knows what a node and a Poisson stream must come to."""

import math
import random

import pytest

from smartclient.policies.select import named
from smartclient.simulation.scenario import Clients, Nodes, Scenario
from smartclient.simulation.service import Constant, Exponential, Service
from smartclient.simulation.workload import Workload
from smartclient.simulation.world import World

MEAN = 0.05


def one_node(service: Service, load: float, *, slots: int = 1, delay: float = 0.0, requests: int = 40_000) -> World:
    scenario = Scenario(
        nodes=(Nodes(slots=slots, queue_limit=1e9),),
        clients=Clients(load=load, deadline=1e9),
        service=service,
        delay=delay,
        requests=requests,
    )
    world = World(scenario, "rotation", named, Workload(scenario, random.Random(11)), seed=1)
    world.run()
    return world


def mean_wait(world: World) -> float:
    """Seconds that a request spent in the queue."""
    seconds = world.tally.seconds
    return sum(seconds) / len(seconds) - MEAN


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_mm1_waits_as_long_as_theory_says(load: float) -> None:
    expected = MEAN * load / (1 - load)
    assert mean_wait(one_node(Exponential(mean=MEAN), load)) == pytest.approx(expected, rel=0.08)


def test_the_tail_of_mm1_is_exponential() -> None:
    load = 0.6
    result = one_node(Exponential(mean=MEAN), load).result()
    sojourn = 1000 * MEAN / (1 - load)
    assert result.p50_ms == pytest.approx(sojourn * math.log(2), rel=0.05)
    assert result.p99_ms == pytest.approx(sojourn * math.log(100), rel=0.08)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_md1_waits_half_as_long(load: float) -> None:
    expected = MEAN * load / (2 * (1 - load))
    assert mean_wait(one_node(Constant(mean=MEAN), load)) == pytest.approx(expected, rel=0.08)


def test_mmc_waits_as_erlang_says() -> None:
    slots, load = 4, 0.8
    offered = slots * load
    rest = offered**slots / math.factorial(slots) / (1 - load)
    queued = rest / (sum(offered**number / math.factorial(number) for number in range(slots)) + rest)
    expected = queued * MEAN / (slots * (1 - load))
    assert mean_wait(one_node(Exponential(mean=MEAN), load, slots=slots)) == pytest.approx(expected, rel=0.1)


def test_the_network_adds_its_delay_both_ways() -> None:
    near = one_node(Constant(mean=MEAN), 0.5, requests=2000)
    far = one_node(Constant(mean=MEAN), 0.5, requests=2000, delay=0.004)
    assert far.result().p50_ms - near.result().p50_ms == pytest.approx(8.0)
