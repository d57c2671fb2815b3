"""A client's counts in Prometheus' terms, read when somebody scrapes: a call costs nothing for it.

``collect(client)`` is all there is. The clients of one registry share its metric families, told apart by ``service``;
those of one service add up. A client is held weakly: closed or forgotten, it is gone from the next scrape on. Any
thread may scrape, for reading changes nothing in a client. There are as many series for a large fleet as for a small
one, unless ``per_endpoint`` asks for more. prometheus_client's multiprocess mode knows no collectors: there, scrape
each process by itself.
"""

import operator
import threading
import weakref
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from smartclient.client import AsyncSmartClient, Parts
from smartclient.stats import LatencyHistogram, upper_edge
from smartclient.sync import SmartClient

Client = AsyncSmartClient | SmartClient
Sample = tuple[str, str, dict[str, str], float]
"""Family, the suffix of the sample's name, labels besides ``service``, value."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds of the durations' buckets. A client's own are finer; who lies within 10 % below a bound counts as above it."""
STATES = ("passing", "warning", "critical", "draining", "cooling", "ejected", "probation")
"""What a node counts as: its health by the registry, unless this client has something to say against it."""

_PLACES = [bisect_left(SECONDS, upper_edge(number)) for number in range(len(LatencyHistogram().buckets))]
_BOUNDS = (*map(str, SECONDS), "+Inf")


class _Family(NamedTuple):
    kind: str
    text: str
    together: Callable[[float, float], float] = operator.add
    """What two clients of one service make."""


FAMILIES = {
    "calls": _Family("counter", "Calls ended, by how."),
    "call_duration_seconds": _Family("histogram", "What calls took that a node answered, retries included."),
    "attempts": _Family("counter", "Attempts at nodes ended, by how."),
    "retries": _Family("counter", "Attempts made because one before failed."),
    "retries_refused": _Family("counter", "Retries that the budget did not allow."),
    "retry_budget_left": _Family("gauge", "Retries that the budget would allow now."),
    "hedges": _Family("counter", "Second attempts begun because the first was slow."),
    "hedges_won": _Family("counter", "Hedges that were answered first."),
    "probes": _Family("counter", "Times that a node was asked how busy it is."),
    "throttled": _Family("counter", "Calls not sent because nearly everything is refused."),
    "inflight_requests": _Family("gauge", "Calls under way."),
    "panics": _Family("counter", "Attempts that any node was good enough for, because too few are well."),
    "ejections": _Family("counter", "Times that a node was left out for failing."),
    "endpoints": _Family("gauge", "Nodes in the list, by state."),
    "list_age_seconds": _Family("gauge", "Since the registry last confirmed the list.", max),
    "endpoint_attempts": _Family("counter", "Attempts at one node ended, by how."),
    "endpoint_inflight_requests": _Family("gauge", "Attempts at one node under way."),
    "endpoint_latency_seconds": _Family("gauge", "Average that jumps to every peak; 0 is unknown.", max),
}


class Collected:
    """That a client's counts are shown, until ``close``."""

    def __init__(self, client: Client, collector: "_Clients") -> None:
        self._client = weakref.ref(client)
        self._collector = collector

    def close(self) -> None:
        """Show them no longer; closing twice is fine."""
        if (client := self._client()) is not None:
            self._collector.drop(client)


def collect(client: Client, registry: CollectorRegistry = REGISTRY, *, per_endpoint: bool = False) -> Collected:
    """Show the counts of ``client`` in ``registry``: ``smartclient_calls_total{service,outcome}`` and the like.

    ``per_endpoint``: also some series for each node (``smartclient_endpoint_…{service,node,endpoint}``).
    """
    with _making:
        collector = _collectors.get(registry)
        if collector is None:
            collector = _Clients()
            registry.register(collector)
            _collectors[registry] = collector
    collector.add(client, per_endpoint=per_endpoint)
    return Collected(client, collector)


class _Clients(Collector):
    """The clients of one registry."""

    def __init__(self) -> None:
        self._clients: weakref.WeakKeyDictionary[Client, bool] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def add(self, client: Client, *, per_endpoint: bool) -> None:
        with self._lock:
            self._clients[client] = per_endpoint

    def drop(self, client: Client) -> None:
        with self._lock:
            self._clients.pop(client, None)

    def describe(self) -> list[Metric]:
        return list(_empty().values())

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            clients = list(self._clients.items())
        sums: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
        for client, per_endpoint in clients:
            if client.closed:
                continue
            for family, suffix, labels, value in _samples(client.parts, per_endpoint=per_endpoint):
                key = family, suffix, (("service", client.service), *labels.items())
                sums[key] = FAMILIES[family].together(sums[key], value) if key in sums else value
        metrics = _empty()
        for (family, suffix, items), value in sums.items():
            metrics[family].add_sample(f"smartclient_{family}{suffix}", dict(items), value)
        return (metric for metric in metrics.values() if metric.samples)


_collectors: weakref.WeakKeyDictionary[CollectorRegistry, _Clients] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def _empty() -> dict[str, Metric]:
    return {name: Metric(f"smartclient_{name}", family.text, family.kind) for name, family in FAMILIES.items()}


def _samples(parts: Parts, *, per_endpoint: bool) -> Iterator[Sample]:
    caller, balancer, shown = parts.caller, parts.balancer, parts.caller.snapshot()
    for end, calls in caller.ends.items():
        yield "calls", "_total", {"outcome": end}, calls
    for outcome, attempts in parts.sender.outcomes.items():
        yield "attempts", "_total", {"outcome": outcome}, attempts
    for name in ("retries", "retries_refused", "hedges", "hedges_won", "probes", "throttled"):
        yield name, "_total", {}, shown[name]
    yield "panics", "_total", {}, balancer.panics
    yield "ejections", "_total", {}, balancer.ejections
    yield "inflight_requests", "", {}, caller.in_flight
    yield "retry_budget_left", "", {}, shown["retries_left"]
    yield from _durations(caller.latencies)
    if (age := parts.cache.snapshot()["age_s"]) is not None:
        yield "list_age_seconds", "", {}, age
    for state, nodes in _states(parts).items():
        yield "endpoints", "", {"state": state}, nodes
    if per_endpoint:
        yield from _of_each(parts)


def _durations(latencies: LatencyHistogram) -> Iterator[Sample]:
    counts = [0] * len(_BOUNDS)
    for place, count in zip(_PLACES, tuple(latencies.buckets), strict=True):
        counts[place] += count
    for bound, up_to in zip(_BOUNDS, accumulate(counts), strict=True):
        yield "call_duration_seconds", "_bucket", {"le": bound}, up_to
    yield "call_duration_seconds", "_sum", {}, latencies.total
    yield "call_duration_seconds", "_count", {}, sum(counts)


def _states(parts: Parts) -> Counter[str]:
    now, endpoints = parts.clock.monotonic(), parts.balancer.endpoints
    states = Counter(dict.fromkeys(STATES, 0))
    for endpoint in endpoints:
        state = endpoint.breaker.state(now)
        states[endpoint.instance.health if state == "closed" else state] += 1
    used = {endpoint.instance.health for endpoint in endpoints}
    listed = parts.cache.current.instances if parts.cache.current else ()
    states.update(each.health for each in listed if each.health not in used)
    return states


def _of_each(parts: Parts) -> Iterator[Sample]:
    for endpoint in parts.balancer.endpoints:
        labels = {"node": endpoint.name, "endpoint": endpoint.instance.endpoint}
        for outcome, attempts in (
            ("ok", endpoint.ok),
            ("failed", endpoint.failed),
            ("overloaded", endpoint.overloaded),
        ):
            yield "endpoint_attempts", "_total", {**labels, "outcome": outcome}, attempts
        yield "endpoint_inflight_requests", "", labels, endpoint.in_flight
        yield "endpoint_latency_seconds", "", labels, endpoint.latency.value
