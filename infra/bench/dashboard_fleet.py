"""A fleet that does not exist, as a Consul would tell of it, and what happens to it: pure, from a seed.

Every instance has a check of its own and one of its machine, tags and metadata, so that an answer has the size it has
in a real fleet (about 1.1 kB an instance). Most instances are well; a change makes one ill, another one well again, or
lets a check say something else, as checks do. Addresses are loopback's and nobody is at home there; no metadata says
where an instance's load is, so that nobody asks.
"""

import random
from collections.abc import Iterator
from typing import Any

import msgspec

MACHINES = 100
ZONES = 3
# Of all instances, how many may be ill at a time before the next change makes one well.
ILL = 0.02
# Of the changes, how many are of a check's words only.
ONLY_WORDS = 0.3
_PER_PAGE = 100
_NAMES = ("digits", "faces", "ranker", "speech", "translate")


class Address(msgspec.Struct, frozen=True):
    """Something to look at: its kind and its address on the dashboard."""

    kind: str
    path: str


class Fleet:
    """``services`` services of ``instances`` each; ``index`` counts changes, also those of each service."""

    def __init__(self, services: int, instances: int, rng: random.Random) -> None:
        self.names = names(services)
        self.instances = instances
        self.index = dict.fromkeys(self.names, 1)
        self._last = 1
        self._rng = rng
        self._ill: list[tuple[str, int]] = []
        self._entries = {
            name: [_entry(name, number, "passing", 0) for number in range(instances)] for name in self.names
        }

    def body(self, service: str) -> bytes:
        """The answer about a service, as JSON."""
        return b"[" + b",".join(self._entries[service]) + b"]"

    def change(self) -> str:
        """Let one thing happen; return the service it happened to."""
        self._last += 1
        if self._rng.random() < ONLY_WORDS:
            service, number = self._anyone()
            status = "critical" if (service, number) in self._ill else "passing"
        elif len(self._ill) > ILL * self.instances * len(self.names):
            (service, number), status = self._ill.pop(self._rng.randrange(len(self._ill))), "passing"
        else:
            service, number = self._anyone()
            status = "critical"
            if (service, number) not in self._ill:
                self._ill.append((service, number))
        self._entries[service][number] = _entry(service, number, status, self._last)
        self.index[service] = self._last
        return service

    def _anyone(self) -> tuple[str, int]:
        return self._rng.choice(self.names), self._rng.randrange(self.instances)


def names(services: int) -> tuple[str, ...]:
    """What the services are called."""
    more = (f"model-{number}" for number in range(len(_NAMES), services))
    return (*_NAMES[:services], *more)


def identity(service: str, number: int) -> str:
    """An instance's id."""
    return f"{service}-{number:05}"


def last_of_each(services: int, instances: int) -> list[Address]:
    """The page of each service's last instance: all there are known when these are."""
    return [_instance(name, instances - 1) for name in names(services)]


def addresses(services: int, instances: int) -> tuple[Address, ...]:
    """What people look at: about twenty addresses of all kinds; fewer where the fleet is small."""
    called = names(services)
    pages = min(5, -(-services * instances // _PER_PAGE))
    return tuple(_addresses(called, instances, pages))


def unwatched(services: int, instances: int) -> tuple[str, ...]:
    """Pages that are none of ``addresses``, so that nobody has them drawn already."""
    return tuple(f"/instances?sort=id&page={page}" for page in range(1, 1 - (-services * instances // _PER_PAGE)))


def _addresses(called: tuple[str, ...], instances: int, pages: int) -> Iterator[Address]:
    yield Address("overview", "/")
    yield Address("instances", "/instances")
    yield from (Address("instances", f"/instances?page={page}") for page in range(2, pages + 1))
    first, last = called[0], called[-1]
    yield Address("filtered", "/instances?health=critical")
    yield Address("filtered", f"/instances?service={first}")
    yield Address("filtered", f"/instances?service={last}&zone=zone-1&sort=since")
    yield Address("filtered", "/instances?sort=-id")
    yield Address("filtered", "/instances?q=0042")
    yield from (Address("service", f"/services/{name}") for name in called[:3])
    yield from (_instance(name, instances // 2) for name in called[:4])
    yield Address("events", "/events")
    yield Address("events", f"/events?service={first}")


def _instance(service: str, number: int) -> Address:
    return Address("instance", f"/instances/{service}/{identity(service, number)}")


def _entry(service: str, number: int, status: str, revision: int) -> bytes:
    machine, port = number % MACHINES, 10000 + number // MACHINES
    node, address, instance = f"machine-{machine:03}", f"127.9.0.{machine + 1}", identity(service, number)
    said = "200 OK Output: ready" if status == "passing" else "503 Service Unavailable Output: its queue is full"
    said = f"HTTP GET http://{address}:{port}/readyz: {said}" + (f" ({revision})" if revision else "")
    own = {"ServiceID": instance, "ServiceName": service, "ServiceTags": ["http"], "Type": "http"}
    checks = [
        _check(node, "serfHealth", name="Serf Health Status", status="passing", output="Agent alive and reachable"),
        _check(node, f"service:{instance}", name=f"Service '{service}' check", status=status, output=said) | own,
    ]
    entry = {
        "Node": {"ID": f"00000000-0000-0000-0000-{machine:012}", "Node": node, "Address": address, "Datacenter": "dc1"}
        | {"TaggedAddresses": {"lan": address, "wan": address}, "Meta": {"consul-network-segment": ""}}
        | _INDEXES,
        "Service": {
            "ID": instance,
            "Service": service,
            "Tags": ["http", f"gpu-{number % 4}"],
            "Address": address,
            "Port": port,
            "Meta": {
                "zone": f"zone-{machine % ZONES}",
                "version": f"1.{number % 4}",
                "model": service,
                "runtime": "litert",
            },
            "Weights": {"Passing": 1, "Warning": 1},
            "EnableTagOverride": False,
        }
        | _INDEXES,
        "Checks": checks,
    }
    return msgspec.json.encode(entry)


_INDEXES = {"CreateIndex": 1, "ModifyIndex": 1}


def _check(node: str, key: str, *, name: str, status: str, output: str) -> dict[str, Any]:
    found = {"Node": node, "CheckID": key, "Name": name, "Status": status, "Notes": "", "Output": output}
    return found | {"ServiceID": "", "ServiceName": "", "ServiceTags": [], "Type": "", "Definition": {}} | _INDEXES
