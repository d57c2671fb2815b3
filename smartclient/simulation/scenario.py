"""A fleet and its clients, as described: frozen values, checked when they are made.

The field names are those of the TOML file (``docs/policies.md``); times are seconds, counted from the first arrival
on. The defaults are the product's own: a client's deadline, a node's bound on its queue, the time in which a registry
notices that a node no longer reports.
"""

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from registry.registration import LEAST_TTL
from smartclient.simulation.service import Lognormal, Positive, Service

Count = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[float, Meta(ge=0)]


class _Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Something that happens to a node from ``begin`` to ``end``, and again ``every`` so many seconds (0: once).

    In a description the first two are called ``from`` and ``to``.
    """

    begin: NotNegative = msgspec.field(default=0.0, name="from")
    end: Positive = msgspec.field(default=math.inf, name="to")
    every: NotNegative = 0.0

    def __post_init__(self) -> None:
        if self.end <= self.begin:
            raise ValueError(f"a fault from {self.begin:g} to {self.end:g} never happens")
        if self.every and self.every <= self.end - self.begin:
            raise ValueError(f"a fault of {self.end - self.begin:g} s cannot happen every {self.every:g} s")


class Hung(_Fault, frozen=True, kw_only=True, tag="hung"):
    """It takes connections and answers nothing, as after SIGSTOP; then it goes on where it stood."""


class Dead(_Fault, frozen=True, kw_only=True, tag="dead"):
    """The process is gone: what it held breaks, connections are refused; then it begins anew."""


class Away(_Fault, frozen=True, kw_only=True, tag="away"):
    """It has left the list in good order and finishes what it has; then it is listed again."""


class Slow(_Fault, frozen=True, kw_only=True, tag="slow"):
    """What it begins meanwhile takes ``factor`` times as long."""

    factor: Positive = 10.0


Fault = Hung | Dead | Away | Slow


class Nodes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``count`` nodes that are alike.

    ``speed``: 2 serves a request in half its time. ``slots``: requests served at once. ``queue_limit``: it answers 503
    to what would wait longer than that (``twostep node --queue-limit-ms``). ``tells``: how busy it is, when it is
    ``asked`` and with its answers, as ``twostep node`` does; with its ``answers`` only, as vLLM does; ``nothing``.
    """

    count: Count = 1
    speed: Positive = 1.0
    weight: Annotated[int, Meta(ge=0)] = 1
    slots: Count = 1
    zone: str = ""
    version: str = ""
    queue_limit: Positive = 2.0
    tells: Literal["asked", "answers", "nothing"] = "asked"
    faults: tuple[Fault, ...] = ()


class Clients(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who sends: ``count`` independent clients, each with a balancer of its own; together one Poisson process.

    ``load``: arrivals as a share of what the fleet can do, or ``rps``: arrivals per second. ``deadline``: of a call.
    ``keys``: how many users there are, for policies that keep a user on a node.
    """

    count: Count = 1
    load: Positive | None = None
    rps: Positive | None = None
    deadline: Positive = 30.0
    keys: Count = 1000

    def __post_init__(self) -> None:
        if (self.load is None) == (self.rps is None):
            raise ValueError("clients need either a load or an rps")


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fleet, its clients, and the network between.

    ``delay``: seconds on the network, one way. ``noticed``: seconds after which the registry takes a node that is hung
    or dead off the list.
    """

    nodes: Annotated[tuple[Nodes, ...], Meta(min_length=1)]
    clients: Clients
    name: str = ""
    about: str = ""
    service: Service = Lognormal()
    requests: Count = 60_000
    delay: NotNegative = 0.0005
    noticed: NotNegative = LEAST_TTL

    @property
    def capacity(self) -> float:
        """Requests per second that the fleet can serve, faults left out of account."""
        return sum(each.count * each.slots * each.speed for each in self.nodes) / self.service.mean

    @property
    def rate(self) -> float:
        """Arrivals per second."""
        return self.clients.rps or self.capacity * (self.clients.load or 0.0)
