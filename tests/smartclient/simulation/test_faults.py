"""What befalls a node does what it says: to what is there, to what comes, and to the list."""

import math
import random
from collections.abc import Iterable

import pytest

from smartclient.policies.select import named
from smartclient.simulation.attempt import Attempt, Call
from smartclient.simulation.scenario import Away, Clients, Dead, Fault, Hung, Nodes, Scenario, Slow
from smartclient.simulation.service import Constant
from smartclient.simulation.timeline import BEGIN
from smartclient.simulation.workload import Workload
from smartclient.simulation.world import World
from smartclient.stats import Outcome

SERVICE = Constant(mean=0.1)


def world(
    *nodes: Nodes,
    policy: str = "rotation",
    rps: float = 10.0,
    requests: int = 300,
    deadline: float = 5.0,
    noticed: float = math.inf,
    clients: int = 1,
) -> World:
    scenario = Scenario(
        nodes=nodes,
        clients=Clients(count=clients, rps=rps, deadline=deadline),
        service=SERVICE,
        requests=requests,
        noticed=noticed,
    )
    return World(scenario, policy, named, Workload(scenario, random.Random(3)), seed=1)


def with_fault(fault: Fault) -> list[Nodes]:
    return [Nodes(count=2), Nodes(faults=(fault,))]


class Lone:
    """One node without clients; ``send`` hands it requests, ``answers`` is what came of them, in milliseconds."""

    def __init__(self, spec: Nodes) -> None:
        self.world = world(spec, requests=1)
        [self.node] = self.world.nodes.values()
        [self.client] = self.world.clients
        self.timeline = self.world._timeline
        self.world._relist()
        self.answers: list[tuple[int, Outcome]] = []

    def at(self, milliseconds: float, act: object, what: object = None) -> None:
        self.timeline.at(BEGIN + milliseconds / 1000, act, what)

    def send(self, *milliseconds: float, deadline: float = 1e9) -> None:
        for when in milliseconds:
            self.at(when, self._send, deadline)

    def run(self) -> list[tuple[int, Outcome]]:
        self.timeline.run()
        return self.answers

    def _send(self, deadline: float) -> None:
        call = Call(self.world._infos[0], self.timeline.now, self.timeline.now + deadline, 0.1)
        attempt = Attempt(call, self.client.balancer.pick(), self._answered)
        self.node.ahead += 0.1
        self.node.arrive(attempt)

    def _answered(self, attempt: Attempt) -> None:
        self.answers.append((round((self.timeline.now - 0.0005 - BEGIN) * 1000), attempt.outcome))


OK = Outcome.OK


def test_a_node_serves_in_order_as_many_at_once_as_it_has_slots() -> None:
    one, two = Lone(Nodes()), Lone(Nodes(slots=2, speed=0.5))
    one.send(0, 10, 20)
    two.send(0, 10, 20)
    assert one.run() == [(100, OK), (200, OK), (300, OK)]
    assert two.run() == [(200, OK), (210, OK), (400, OK)]


def test_it_says_how_long_its_queue_is_and_not_how_long_it_will_take() -> None:
    lone = Lone(Nodes())
    said = []
    lone.send(0, 10, 20)
    for when in (-1, 30, 150):
        lone.at(when, lambda _: said.append(lone.node.asked()))
    lone.run()
    assert [(round(each.wait * 1000), each.in_flight) for each in said] == [(0, 0), (270, 3), (150, 2)]


def test_a_full_node_refuses_and_says_when_to_come_back() -> None:
    lone = Lone(Nodes(queue_limit=0.25))
    lone.send(0, 10, 20, 25, 240)
    answers = lone.run()
    assert answers[0] == (25, Outcome.OVERLOADED)
    assert [when for when, outcome in answers if outcome is OK] == [100, 200, 300, 400]


def test_a_node_refuses_what_would_come_too_late() -> None:
    lone = Lone(Nodes())
    lone.send(0)
    lone.send(10, deadline=0.08)
    assert lone.run() == [(10, Outcome.OVERLOADED), (100, OK)]


def test_a_hung_node_goes_on_where_it_stood() -> None:
    lone = Lone(Nodes())
    lone.send(0, 10, 200)
    lone.at(50, lambda _: lone.node.hang())
    lone.at(1050, lambda _: lone.node.resume())
    assert lone.run() == [(1100, OK), (1200, OK), (1300, OK)]


def test_a_dead_node_loses_what_it_has_and_refuses_what_comes() -> None:
    lone = Lone(Nodes())
    lone.send(0, 10, 60, 210)
    lone.at(50, lambda _: lone.node.die())
    lone.at(200, lambda _: lone.node.begin_anew())
    assert lone.run() == [(50, Outcome.RESET), (50, Outcome.RESET), (60, Outcome.CONNECT_ERROR), (310, OK)]
    assert lone.node.ahead == pytest.approx(0.0)


def test_a_slow_node_takes_its_factor_longer_for_what_it_begins_meanwhile() -> None:
    run = world(Nodes(faults=(Slow(begin=10.0, end=20.0, factor=4.0),)), rps=1.0, requests=40)
    run.run()
    assert {round(seconds * 1000) for seconds in run.tally.seconds} > {101, 401}


@pytest.mark.parametrize("fault", [Hung(begin=5.0, end=10.0), Dead(begin=5.0, end=10.0)])
def test_the_list_loses_an_ill_node_when_that_is_noticed_and_gets_it_back(fault: Fault) -> None:
    run = world(*with_fault(fault), noticed=2.0)
    assert list(listed(run, (1, 6, 8, 11))) == [3, 3, 2, 3]


def test_what_ends_before_it_is_noticed_never_shows() -> None:
    run = world(*with_fault(Dead(begin=5.0, end=6.0, every=4.0)), noticed=2.0)
    assert list(listed(run, (5.5, 6.5, 7.5, 9.5))) == [3, 3, 3, 3]


def test_a_node_that_is_away_leaves_the_list_at_once_and_loses_nothing() -> None:
    run = world(*with_fault(Away(begin=5.0, end=10.0)))
    assert list(listed(run, (1, 6, 11))) == [3, 2, 3]
    assert run.tally.errors == 0


def listed(run: World, seconds: Iterable[float]) -> Iterable[int]:
    """Run it, and say how many nodes the clients were offered at those times."""
    seen: list[int] = []
    for each in seconds:
        run._timeline.at(BEGIN + each, lambda _: seen.append(len(run.clients[0].balancer.endpoints)))
    run.run()
    return seen


def test_calls_that_meet_a_dead_node_are_tried_elsewhere() -> None:
    run = world(*with_fault(Dead(begin=5.0)))
    run.run()
    picks = list(run.clients[0].balancer.endpoints)
    assert run.tally.errors == 0
    assert picks[2].failed > 0
    assert sum(each.ok for each in picks) == 300


def test_calls_that_wait_for_a_hung_node_fail_at_their_deadline_or_move_when_it_is_left_out() -> None:
    run = world(*with_fault(Hung(begin=5.0)), requests=600)
    run.run()
    # Five in a row tell the client, and what else waits there tries another node; half a minute later one is the probe.
    assert run.tally.errors == 5 + 1
    assert max(run.tally.seconds) == pytest.approx(5.0)
    [*_, hung] = run.clients[0].balancer.endpoints
    assert hung.breaker.ejected
    assert hung.failed > 5


def test_a_fleet_that_hangs_fails_every_call_at_its_deadline() -> None:
    run = world(Nodes(count=2, faults=(Hung(),)), requests=50)
    run.run()
    assert run.tally.errors == 49
    assert set(map(round, run.tally.seconds)) == {5}


def test_a_hung_node_is_noticed_by_those_who_ask() -> None:
    asking, rotating = (
        world(*with_fault(Hung(begin=5.0)), policy=name, requests=600) for name in ("probed", "rotation")
    )
    asking.run()
    rotating.run()
    assert asking.tally.errors == 0
    assert max(asking.tally.seconds) < 1.0
    assert rotating.tally.errors > 0
