"""A large service in a real Consul, and one change to it: entries written to the catalog as agents would have them.

A hundred machines with a check each hold the instances between them, every instance with a check of its own, so
that an answer has the size it has in a real fleet (about 1.3 kB an instance).
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import islice
from typing import Any

from infra.fleet import FleetError

SERVICE = "large"
MACHINES = 100
# The most operations Consul takes in one transaction.
_TRANSACTION = 64


def fill(address: str, instances: int) -> None:
    """Write ``instances`` passing instances of ``SERVICE`` to the Consul at ``address`` (``host:port``)."""
    operations = _operations(instances)
    while some := list(islice(operations, _TRANSACTION)):
        _put(f"http://{address}/v1/txn", some)


def change(address: str, revision: int) -> None:
    """Give the first instance another ``revision`` in its metadata; returns when Consul has taken it."""
    _put(f"http://{address}/v1/txn", [_service(0, revision)])


def revision_of(meta: dict[str, str]) -> int:
    """Return the revision in an instance's metadata."""
    return int(meta.get("revision", "0"))


def _operations(instances: int) -> Iterator[dict[str, Any]]:
    for number in range(min(MACHINES, instances)):
        machine = f"machine-{number:03}"
        yield {"Node": {"Verb": "set", "Node": {"Node": machine, "Address": f"10.0.0.{number + 1}"}}}
        # Not serfHealth: Consul removes machines whose gossip it does not hear, within a minute.
        alive = {"CheckID": "machine", "Name": "Machine check", "Output": "Agent alive and reachable"}
        yield {"Check": {"Verb": "set", "Check": alive | {"Node": machine, "Status": "passing"}}}
    for number in range(instances):
        yield _service(number, 0)
        instance = f"{SERVICE}-{number:05}"
        check = {"CheckID": f"service:{instance}", "Name": f"Service '{SERVICE}' check", "ServiceID": instance}
        said = (
            f"HTTP GET http://10.0.0.{number % MACHINES + 1}:{10000 + number // MACHINES}/readyz: 200 OK Output: ready"
        )
        check |= {"Node": f"machine-{number % MACHINES:03}", "Status": "passing", "Output": said}
        yield {"Check": {"Verb": "set", "Check": check}}


def _service(number: int, revision: int) -> dict[str, Any]:
    machine = number % MACHINES
    service = {
        "ID": f"{SERVICE}-{number:05}",
        "Service": SERVICE,
        "Address": f"10.0.0.{machine + 1}",
        "Port": 10000 + number // MACHINES,
        "Tags": ["http"],
        "Meta": {"zone": f"zone-{machine % 3}", "version": "1", "revision": str(revision)},
    }
    return {"Service": {"Verb": "set", "Node": f"machine-{machine:03}", "Service": service}}


def _put(url: str, body: object) -> None:
    request = urllib.request.Request(url, data=json.dumps(body).encode(), method="PUT")  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 - as above
            reply.read()
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
        raise FleetError(f"Consul did not take a change of its catalog ({error.code}): {said[:300]}") from error
