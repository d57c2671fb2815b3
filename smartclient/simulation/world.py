"""One run: nodes, clients and requests put on a timeline, what befalls the nodes, and what comes of it.

Every client has a balancer and a policy of its own and its own seeded randomness; none knows of another. The first
``WARM_UP`` of the requests are sent like all others but not counted. Lists reach all clients at the moment they change.
"""

import gc
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import msgspec

from registry.model import Health, Instance, Snapshot
from smartclient.balancer import Balancer
from smartclient.load import META
from smartclient.policy import PickInfo, Policy
from smartclient.simulation.attempt import Call
from smartclient.simulation.client import Client
from smartclient.simulation.described import told
from smartclient.simulation.node import Node
from smartclient.simulation.oracle import NAME as ORACLE
from smartclient.simulation.oracle import Oracle
from smartclient.simulation.result import Result, Tally
from smartclient.simulation.scenario import Away, Dead, Fault, Hung, Scenario, Slow
from smartclient.simulation.timeline import BEGIN, Timeline
from smartclient.simulation.workload import Workload

WARM_UP = 0.02  # share of the requests
SERVICE = "simulated"

Named = Callable[[str], Policy]


def simulate(scenario: Scenario, policy: str, named: Named, *, seed: int) -> Result:
    """Run all calls of ``scenario`` and return what came of them. ``named``: makes a policy, one for each client."""
    workload = Workload(scenario, random.Random(f"{seed}: requests"))
    with _uncollected():
        world = World(scenario, policy, named, workload, seed=seed)
        world.run()
        return world.result()


class World:
    """Nodes (by id), clients and the registry between them; ``tally`` counts calls as they end."""

    def __init__(self, scenario: Scenario, policy: str, named: Named, workload: Workload, *, seed: int) -> None:
        self._scenario = scenario
        self._workload = workload
        self._timeline = Timeline()
        self.tally = Tally()
        self._next = 0
        self._counts_from = BEGIN + workload.times[int(WARM_UP * len(workload.times))]
        self._infos = [PickInfo(key=f"user-{number}") for number in range(scenario.clients.keys)]
        self.nodes = _nodes(scenario, self._timeline)
        oracle = Oracle(self.nodes, scenario.service.mean)
        self.clients = []
        for number in range(scenario.clients.count):
            rng = random.Random(f"{seed}: client {number}")
            balancer = Balancer(
                oracle if policy == ORACLE else named(told(policy, scenario, number)),
                service=SERVICE,
                source=SERVICE,
                clock=self._timeline,
                rng=rng,
            )
            client = Client(self._timeline, balancer, self.nodes, rng=rng, delay=scenario.delay, ended=self._ended)
            self.clients.append(client)

    def run(self) -> None:
        """Let it all happen."""
        self._relist()
        for node in self.nodes.values():
            for fault in node.spec.faults:
                self._timeline.at(BEGIN + fault.begin, self._begin, (node, fault))
        self._timeline.at(BEGIN + self._workload.times[0], self._arrive)
        self._timeline.run()

    def result(self) -> Result:
        """What came of it."""
        nodes = self.nodes.values()
        return self.tally.result([node.sent for node in nodes], [node.spec.weight for node in nodes])

    def _arrive(self, _: None) -> None:
        workload, number, now = self._workload, self._next, self._timeline.now
        deadline = now + self._scenario.clients.deadline
        call = Call(self._infos[workload.keys[number]], now, deadline, workload.services[number])
        self._next = number = number + 1
        if number < len(workload.times):
            self._timeline.at(BEGIN + workload.times[number], self._arrive)
        self.clients[workload.clients[number - 1]].begin(call)

    def _ended(self, call: Call, ok: bool) -> None:
        if call.began >= self._counts_from:
            tally = self.tally
            tally.seconds.append((self._timeline.now if ok else call.deadline) - call.began)
            tally.errors += not ok

    def _begin(self, what: tuple[Node, Fault]) -> None:
        """A fault begins; its end and its next time are put down."""
        node, fault = what
        now = self._timeline.now
        match fault:
            case Hung():
                node.hang()
            case Dead():
                node.die()
            case Slow(factor=factor):
                node.speed = node.spec.speed / factor
            case Away():
                node.away = True
                self._relist()
        if isinstance(fault, Hung | Dead) and fault.end - fault.begin > self._scenario.noticed:
            self._timeline.at(now + self._scenario.noticed, self._notice, node)
        end = now + fault.end - fault.begin
        if end < math.inf:
            self._timeline.at(end, self._end, what)
        if fault.every and now + fault.every < BEGIN + self._workload.duration:
            self._timeline.at(now + fault.every, self._begin, what)

    def _end(self, what: tuple[Node, Fault]) -> None:
        node, fault = what
        match fault:
            case Hung():
                node.resume()
            case Dead():
                node.begin_anew()
            case Slow():
                node.speed = node.spec.speed
            case Away():
                node.away = False
        if isinstance(fault, Away) or node.missed:
            node.missed = False
            self._relist()

    def _notice(self, node: Node) -> None:
        """The registry has waited long enough for a node that reports no longer."""
        node.missed = True
        self._relist()

    def _relist(self) -> None:
        instances = tuple(
            msgspec.structs.replace(node.instance, health=Health.CRITICAL if node.missed else Health.PASSING)
            for node in self.nodes.values()
            if not node.away
        )
        snapshot = Snapshot(
            service=SERVICE, index=1, instances=instances, fetched_at=self._timeline.now, source=SERVICE
        )
        for client in self.clients:
            client.balancer.update(snapshot)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: a run leaves no cycles, and looking for them costs a third of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _nodes(scenario: Scenario, timeline: Timeline) -> Mapping[str, Node]:
    nodes: dict[str, Node] = {}
    for spec in scenario.nodes:
        for _ in range(spec.count):
            number = len(nodes) + 1
            instance = Instance(
                id=f"node-{number:04}",
                service=SERVICE,
                address=f"10.0.{number // 256}.{number % 256}",
                port=8080,
                zone=spec.zone,
                version=spec.version,
                weight=spec.weight,
                meta={META: "/load"} if spec.tells == "asked" else {},
            )
            nodes[instance.id] = Node(instance, spec, timeline, mean=scenario.service.mean, delay=scenario.delay)
    return nodes
