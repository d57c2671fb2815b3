"""The fleets that policies are compared on, by name: those that a real one may turn into any day.

Service times are lognormal with a mean of 50 ms and sigma 0.5, as of a small vision model, unless a scenario says
otherwise. Nodes answer from memory how busy they are, 0.5 ms away.
"""

from collections.abc import Iterator

from smartclient.simulation.scenario import Away, Clients, Dead, Hung, Nodes, Scenario, Slow
from smartclient.simulation.service import Pareto


def _all() -> Iterator[Scenario]:
    six = (Nodes(count=6),)
    yield Scenario(
        name="equal",
        about="6 equal nodes, 1 client, load 70 %",
        nodes=six,
        clients=Clients(load=0.7),
    )
    yield Scenario(
        name="many-clients",
        about="6 equal nodes, 20 clients, load 70 %",
        nodes=six,
        clients=Clients(count=20, load=0.7),
    )
    yield Scenario(
        name="light-load",
        about="6 equal nodes, 200 clients, load 30 %",
        nodes=six,
        clients=Clients(count=200, load=0.3),
    )
    yield Scenario(
        name="low-traffic",
        about="6 equal nodes, 1 client, 1 request per second",
        nodes=six,
        clients=Clients(rps=1.0),
        requests=20_000,
    )
    yield Scenario(
        name="heavy-tail",
        about="6 equal nodes, 20 clients, load 60 %; service from 18 ms to 3.6 s, a bounded Pareto of shape 1.5",
        nodes=six,
        clients=Clients(count=20, load=0.6),
        service=Pareto(),
    )
    yield Scenario(
        name="weights",
        about="6 nodes of speeds 1, 2 and 4 whose weights say so, 20 clients, load 70 %",
        nodes=tuple(Nodes(count=2, speed=speed, weight=speed) for speed in (1, 2, 4)),
        clients=Clients(count=20, load=0.7),
    )
    yield Scenario(
        name="mixed-speeds",
        about="16 nodes of speeds 1 to 2 that nobody has told of, 20 clients, load 75 %",
        nodes=tuple(Nodes(speed=1.0 + number / 15) for number in range(16)),
        clients=Clients(count=20, load=0.75),
    )
    yield Scenario(
        name="one-slow",
        about="6 nodes, one of them 10 x slower, 20 clients, load 60 %",
        nodes=(Nodes(count=5), Nodes(speed=0.1)),
        clients=Clients(count=20, load=0.6),
    )
    yield Scenario(
        name="two-of-16-slow",
        about="16 nodes, two of them 16 x slower, 20 clients, load 70 %",
        nodes=(Nodes(count=14), Nodes(count=2, speed=1 / 16)),
        clients=Clients(count=20, load=0.7),
    )
    yield Scenario(
        name="one-hung",
        about="6 nodes, one of them hangs for 20 s out of 60, 20 clients with a deadline of 10 s, load 60 %",
        nodes=(Nodes(count=5), Nodes(faults=(Hung(begin=10.0, end=30.0, every=60.0),))),
        clients=Clients(count=20, load=0.6, deadline=10.0),
    )
    yield Scenario(
        name="flapping",
        about="6 nodes, one dead for 5 s out of 20, one off the list for 5 s out of 15, 20 clients, load 50 %",
        nodes=(
            Nodes(count=4),
            Nodes(faults=(Dead(begin=5.0, end=10.0, every=20.0),)),
            Nodes(faults=(Away(begin=8.0, end=13.0, every=15.0),)),
        ),
        clients=Clients(count=20, load=0.5),
    )
    yield Scenario(
        name="rolling-deploy",
        about="8 nodes replaced in turn: each leaves the list, returns after 10 s and is 3 x slower for 5 s; load 60 %",
        nodes=tuple(_replaced(number) for number in range(8)),
        clients=Clients(count=20, load=0.6),
    )


def _replaced(number: int) -> Nodes:
    begin, every = 10.0 + 20.0 * number, 200.0
    return Nodes(
        faults=(
            Away(begin=begin, end=begin + 10.0, every=every),
            Slow(begin=begin + 10.0, end=begin + 15.0, every=every, factor=3.0),
        )
    )


SCENARIOS = {scenario.name: scenario for scenario in _all()}
