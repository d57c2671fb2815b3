"""Who calls whom, by the clients' own reports: rates, success, latencies, attempts under way, who leaves whom out.

Everything is counted when a report comes in, so an answer costs a few microseconds however many clients there are. A
client that has been silent for ``SILENT`` seconds counts no more, and is remembered for ``REMEMBERED``. Clients,
instances, pairs of them and buckets are all bounded, and the oldest or the newest go without, whatever comes in. Two
senders that use one name are two clients. An instance that no report has mentioned was never heard of: None; one that
reports do not mention any more is idle: 0.
"""

import heapq
import math
from collections.abc import Callable

import msgspec

from registry.dashboard.intake import BadReport, TooMany, decode
from registry.dashboard.latencies import EDGES, HALF, Recent, numbered
from registry.dashboard.model import Caller, Traffic
from registry.dashboard.tally import LEFT_OUT, Client, Pair, PairTraffic, Target
from registry.dashboard.wire import NodeReport, Report
from registry.timing import Clock

__all__ = ["BadReport", "Calls", "PairTraffic", "TooMany"]

SILENT = 60.0  # seconds
REMEMBERED = 600.0
APART = 1.0  # seconds at least between two reports of a client
MOST_A_SECOND = 200
MOST_CLIENTS = 500
MOST_INSTANCES = 10_000
MOST_PAIRS = 200_000  # 250 bytes each
MOST_TIMED = 60_000  # of them have latencies of their own, another 1 kB
BUCKETS_OF_A_PAIR = 16
NOTHING = 1e-6  # a second: less is what rounding leaves of a sum

OnEject = Callable[[str, str, int, int], None]
Key = tuple[str, str, str]


class _Service:
    """``clients``: those that are not silent; ``heard_at``: the newest report, in seconds since the epoch."""

    __slots__ = ("clients", "heard_at", "instances", "times")

    def __init__(self, now: float) -> None:
        self.clients: dict[Key, Client] = {}
        self.instances: dict[str, Target] = {}
        self.times = Recent(now)
        self.heard_at: float | None = None


class Calls:
    """Takes reports and answers for them. ``on_eject(service, instance, left_out_by, clients)``: see ``take``.

    ``uncounted``: parts of reports, each about one instance, for which there was no room.
    """

    def __init__(self, clock: Clock, *, on_eject: OnEject | None = None) -> None:
        self.uncounted = 0
        self._clock = clock
        self._on_eject = on_eject
        self._live: dict[Key, Client] = {}  # both in the order in which they were heard last
        self._silent: dict[Key, Client] = {}
        self._services: dict[str, _Service] = {}
        self._version = 0
        self._crossed: dict[Target, bool] = {}  # whether somebody left it out, before what goes on now
        self._instances = self._pairs = self._timed = 0
        self._sweep_at = clock.monotonic() + HALF
        self._second, self._taken = -math.inf, 0

    def take(self, body: bytes, sender: str) -> None:
        """Count one report of a client at the address ``sender`` in. Raises ``BadReport``, ``TooMany``.

        Calls ``on_eject`` when the first client leaves an instance out, and when the last one does no longer.
        """
        now = self._clock.monotonic()
        self._expire(now)
        self._admit(now)
        report = decode(body)
        key = (report.service, report.client, sender)
        client = self._live.get(key)
        if client is not None and now - client.heard < APART:
            raise TooMany(f"one report a client and {APART:g} s is enough")
        self._version += 1
        if client is None:
            client = self._join(key, report, now)
        else:
            self._live[key] = self._live.pop(key)
        self._count(client, report, now)
        self._tell()

    @property
    def version(self) -> int:
        """Grows whenever an answer may have changed, but for the passing of time."""
        self._expire(self._clock.monotonic())
        return self._version

    def instance(self, service: str, instance: str) -> Traffic:
        """Return what the clients of ``service`` say of one instance: attempts."""
        now = self._clock.monotonic()
        self._expire(now)
        known = self._services.get(service)
        target = known.instances.get(instance) if known else None
        if known is None or target is None:
            return Traffic(clients=len(known.clients) if known else 0)
        if not known.clients:
            return Traffic(heard_at=known.heard_at)
        busy = target.rate > NOTHING
        traffic = Traffic(
            rps=target.rate if busy else 0.0,
            success=min(1.0, max(0.0, target.good / target.rate)) if busy else None,
            in_flight=target.in_flight,
            ejected_by=target.left_out_by,
            clients=len(known.clients),
            heard_at=known.heard_at,
        )
        return msgspec.structs.replace(traffic, latency=target.times.quantiles(now)) if busy else traffic

    def service(self, name: str) -> Traffic:
        """Return what its clients say of a whole service: calls, each of which may have been several attempts.

        ``ejected_by``: how many clients leave any instance out.
        """
        now = self._clock.monotonic()
        self._expire(now)
        known = self._services.get(name)
        if known is None or not known.clients:
            return Traffic(heard_at=known.heard_at if known else None)
        callers = [client.caller(now) for client in known.clients.values()]
        rates = [client.rates() for client in known.clients.values()]
        calls, failed = sum(each[0] for each in rates), sum(each[1] for each in rates)
        traffic = Traffic(
            rps=calls,
            success=max(0.0, 1.0 - failed / calls) if calls else None,
            in_flight=sum(each.in_flight for each in callers),
            ejected_by=sum(bool(each.ejected) for each in callers),
            clients=len(callers),
            heard_at=known.heard_at,
        )
        return msgspec.structs.replace(traffic, latency=known.times.quantiles(now)) if calls else traffic

    def callers(self, service: str = "") -> list[Caller]:
        """Return the clients of one service, or of all, the silent ones too, ordered by service and client."""
        now = self._clock.monotonic()
        self._expire(now)
        wanted = [
            client
            for clients in (self._live, self._silent)
            for key, client in clients.items()
            if not service or key[0] == service
        ]
        return sorted((client.caller(now) for client in wanted), key=lambda each: (each.service, each.client))

    def matrix(
        self, service: str, *, client: str = "", instance: str = "", clients: int = 20, instances: int = 20
    ) -> list[PairTraffic]:
        """Return who of ``service`` calls whom, ordered by client and instance; of one of them where it is named.

        At most so many ``clients`` (the busiest) and ``instances`` (those left out by most, then the busiest).
        """
        now = self._clock.monotonic()
        self._expire(now)
        known = self._services.get(service)
        if known is None:
            return []
        rows = [each for each in known.clients.values() if not client or each.name == client]
        rows = heapq.nlargest(clients, rows, key=lambda each: each.rates()[0])
        if instance:
            columns = [instance]
        else:
            targets = [each for each in known.instances.values() if each.pairs]
            columns = [
                each.id for each in heapq.nlargest(instances, targets, key=lambda each: (each.left_out_by, each.rate))
            ]
        found = [
            pair.traffic(row.name, now)
            for row in rows
            for column in columns
            if (pair := row.pairs.get(column)) is not None
        ]
        return sorted(found, key=lambda each: (each.client, each.instance))

    def histogram(self, service: str) -> list[tuple[float, int]]:
        """Return how long the calls of a service took: upper edge in milliseconds and count, shortest first."""
        now = self._clock.monotonic()
        self._expire(now)
        known = self._services.get(service)
        return [(EDGES[number], count) for number, count in sorted(known.times.read(now).items())] if known else []

    def _admit(self, now: float) -> None:
        if now - self._second >= 1.0:
            self._second, self._taken = now, 0
        self._taken += 1
        if self._taken > MOST_A_SECOND:
            raise TooMany(f"more than {MOST_A_SECOND} reports a second, of all clients, are too many for one dashboard")

    def _join(self, key: Key, report: Report, now: float) -> Client:
        self._silent.pop(key, None)
        if len(self._live) + len(self._silent) >= MOST_CLIENTS:
            oldest = next(iter(self._silent or self._live))
            self._leave(oldest)
            del self._silent[oldest]
        if report.service not in self._services:
            self._services[report.service] = _Service(now)
        service = self._services[report.service]
        taken = any(each.name == report.client for each in service.clients.values())
        client = Client(f"{report.client} at {key[2]}" if taken else report.client, report, now)
        self._live[key] = service.clients[key] = client
        return client

    def _count(self, client: Client, report: Report, now: float) -> None:
        service, at = self._services[report.service], self._clock.time()
        turned = client.hear(report, now, at)
        service.heard_at = at
        measured = numbered(report.latencies)
        client.times.add(measured, now)
        service.times.add(measured, now)
        said: dict[str, NodeReport] = {}
        for node in report.nodes:
            pair = client.pairs.get(node.instance) or self._pair(service, client, node.instance, now)
            if pair is None:
                self.uncounted += 1
                continue
            if turned and node.instance not in said:
                pair.turn()
            said[node.instance] = node
            pair.ended += node.ok + node.failed + node.overloaded
            pair.ok += node.ok
            pair.instance.mentioned = now
            if node.latencies:
                measured = numbered(node.latencies)
                pair.instance.times.add(measured, now)
                if pair.times is not None:
                    pair.times.add(measured, now)
        covered = client.covered
        for name, pair in list(client.pairs.items()):
            node_said = said.get(name)
            if node_said is not None:
                self._stand(pair, covered, node_said.in_flight, node_said.state)
                continue
            if turned:
                pair.turn()
            self._stand(pair, covered, 0, "")
            if turned and pair.idle:
                self._drop(client, name)

    def _pair(self, service: _Service, client: Client, name: str, now: float) -> Pair | None:
        target = service.instances.get(name)
        if self._pairs >= MOST_PAIRS or (target is None and self._instances >= MOST_INSTANCES):
            return None
        if target is None:
            target = service.instances[name] = Target(client.report.service, name, now)
            self._instances += 1
        timed = self._timed < MOST_TIMED
        pair = client.pairs[name] = Pair(target, Recent(now, BUCKETS_OF_A_PAIR) if timed else None)
        target.pairs += 1
        self._pairs += 1
        self._timed += timed
        return pair

    def _drop(self, client: Client, name: str) -> None:
        pair = client.pairs.pop(name)
        pair.instance.pairs -= 1
        self._pairs -= 1
        self._timed -= pair.times is not None

    def _stand(self, pair: Pair, covered: float, in_flight: int, state: str) -> None:
        target = pair.instance
        if (state in LEFT_OUT) != (pair.state in LEFT_OUT):
            self._crossed.setdefault(target, target.left_out_by > 0)
        pair.stand(covered, in_flight, state)

    def _leave(self, key: Key) -> None:
        """Count a client no more; it is silent from now on."""
        client = self._live.pop(key, None)
        if client is None:
            return
        client.caller(client.heard)
        del self._services[key[0]].clients[key]
        for name, pair in list(client.pairs.items()):
            self._stand(pair, 0.0, 0, "")
            self._drop(client, name)
        self._silent[key] = client

    def _expire(self, now: float) -> None:
        if not self._live and not self._silent and not self._services:
            return
        while self._live and now - next(iter(self._live.values())).heard >= SILENT:
            self._version += 1
            self._leave(next(iter(self._live)))
        while self._silent and now - next(iter(self._silent.values())).heard >= REMEMBERED:
            self._version += 1
            del self._silent[next(iter(self._silent))]
        if now >= self._sweep_at:
            self._sweep_at = now + HALF
            self._sweep(now)
        self._tell()

    def _sweep(self, now: float) -> None:
        """Forget instances that nobody has mentioned for long, and services that have neither clients nor instances."""
        remembered = {key[0] for key in self._silent}
        for name, service in list(self._services.items()):
            for key, target in list(service.instances.items()):
                if not target.pairs and now - target.mentioned >= REMEMBERED:
                    del service.instances[key]
                    self._instances -= 1
            if not (service.clients or service.instances or name in remembered):
                del self._services[name]

    def _tell(self) -> None:
        while self._crossed:
            target, before = self._crossed.popitem()
            if before != (target.left_out_by > 0) and self._on_eject is not None:
                clients = len(self._services[target.service].clients)
                self._on_eject(target.service, target.id, target.left_out_by, clients)
