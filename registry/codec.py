"""Consul's JSON and the model, both ways; pure, tolerant of what real agents leave out, and deterministic.

An instance's health is the worst of its checks, those of its machine included; a maintenance check makes it
*draining*. Check output is ignored: a time in it would be a change at every run. A service id is unique on one agent
only, so ids that collide across machines become ``id@node``. Large answers (10,000 instances are 13 MB) are decoded in
steps of about 128 kB, between which an event loop can do other work: ``msgspec`` holds the interpreter lock, so a
thread would not help.
"""

from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import msgspec

from registry.directory import Check, HttpCheck, Registration, TcpCheck
from registry.errors import InvalidAnswer
from registry.model import Health, Instance

STEP = 128 * 1024
NODE_MAINTENANCE = "_node_maintenance"
SERVICE_MAINTENANCE = "_service_maintenance:"

# What a list entry starts with. A quote inside a JSON string is escaped, so these bytes are never part of a string.
_BOUNDARY = b'},{"Node":{'

_SEVERITY = {"passing": 0, "warning": 1}
_BY_SEVERITY = (Health.PASSING, Health.WARNING, Health.CRITICAL)


# Without gc: made and dropped by the ten thousand and never cyclic; a collection among them held a loop for 28 ms.
class _Weights(msgspec.Struct, rename="pascal", gc=False):
    passing: int = 1
    warning: int = 1


class _Node(msgspec.Struct, gc=False):
    name: str = msgspec.field(name="Node")
    address: str = msgspec.field(name="Address", default="")


class _Service(msgspec.Struct, rename="pascal", gc=False):
    service: str
    port: int = 0
    id: str = msgspec.field(name="ID", default="")
    address: str | None = None
    tags: list[str] | None = None
    meta: dict[str, str] | None = None
    weights: _Weights | None = None


class _Check(msgspec.Struct, gc=False):
    id: str = msgspec.field(name="CheckID", default="")
    status: str = msgspec.field(name="Status", default="critical")

    @property
    def maintenance(self) -> bool:
        return self.id == NODE_MAINTENANCE or self.id.startswith(SERVICE_MAINTENANCE)


class _Entry(msgspec.Struct, rename="pascal", gc=False):
    node: _Node
    service: _Service
    checks: list[_Check] | None = None


class _AgentHealth(msgspec.Struct, rename="pascal"):
    service: _Service | None = None
    checks: list[_Check] | None = None


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent holds under an id. ``alive``: no check of it, maintenance aside, is critical."""

    service: str
    address: str
    port: int
    alive: bool


_ENTRIES = msgspec.json.Decoder(list[_Entry])
_AGENT_HEALTH = msgspec.json.Decoder(_AgentHealth)


def health_of(checks: list[_Check] | None) -> Health:
    """The worst of the checks; draining if one is a maintenance check; passing when there are none."""
    worst = 0
    for check in checks or ():
        if check.maintenance:
            return Health.DRAINING
        worst = max(worst, _SEVERITY.get(check.status, 2))
    return _BY_SEVERITY[worst]


def decode_in_steps(body: bytes, size: int = STEP) -> Generator[None, None, tuple[Instance, ...]]:
    """Instances in an answer of ``/v1/health/service``, ordered by id, as the generator's return value.

    It stops at a ``yield`` about every ``size`` bytes, so that a large answer need not hold an event loop up. Raises
    ``InvalidAnswer``.
    """
    found: list[Instance] = []
    try:
        for part in split(body, size):
            found += _entries(part)
            yield
    except InvalidAnswer:
        # Either the answer is broken or it was cut at a boundary inside an entry: the whole of it decides.
        found = _entries(body)
    return _ordered(found)


def split(body: bytes, size: int = STEP) -> Iterator[bytes]:
    """Cut a JSON list of entries into JSON lists of about ``size`` bytes each, without parsing it.

    A cut inside an entry leaves unbalanced brackets, so decoding such a part fails and never gives a wrong value.
    """
    if len(body) <= 2 * size:
        yield body
        return
    start, opening = 0, b""
    while True:
        cut = body.find(_BOUNDARY, start + size)
        if cut < 0:
            yield opening + body[start:]
            return
        yield opening + body[start : cut + 1] + b"]"
        start, opening = cut + 2, b"["


def decode_registered(body: bytes) -> Registered | None:
    """What ``/v1/agent/health/service/id/ID`` says of an id. Raises ``InvalidAnswer``."""
    try:
        answer = _AGENT_HEALTH.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidAnswer(f"the registry's answer about a registration cannot be read: {error}") from error
    if answer.service is None:
        return None
    ordinary = [check for check in answer.checks or () if not check.maintenance]
    return Registered(
        service=answer.service.service,
        address=answer.service.address or "",
        port=answer.service.port,
        alive=health_of(ordinary) is not Health.CRITICAL,
    )


def encode(registration: Registration) -> bytes:
    """The body of a ``PUT /v1/agent/service/register``; the check starts passing and is named ``service:ID``."""
    meta = dict(registration.meta)
    if registration.zone:
        meta["zone"] = registration.zone
    if registration.version:
        meta["version"] = registration.version
    body: dict[str, Any] = {
        "ID": registration.id,
        "Name": registration.service,
        "Address": registration.address,
        "Port": registration.port,
        "Tags": list(registration.tags),
        "Meta": meta,
        "Weights": {"Passing": registration.weight, "Warning": registration.warning_weight},
    }
    if registration.check is not None:
        body["Check"] = _check(registration.check) | {"CheckID": check_id(registration.id), "Status": "passing"}
        if registration.deregister_after is not None:
            body["Check"]["DeregisterCriticalServiceAfter"] = duration(registration.deregister_after)
    return msgspec.json.encode(body)


def check_id(instance_id: str) -> str:
    """The name of an instance's own check."""
    return f"service:{instance_id}"


def duration(seconds: float) -> str:
    """Seconds in Go's notation, to the millisecond: 2.5 is ``2500ms``."""
    return f"{round(seconds * 1000)}ms"


def _check(check: Check) -> dict[str, Any]:
    if isinstance(check, HttpCheck):
        return {"HTTP": check.url, "Interval": duration(check.interval), "Timeout": duration(check.timeout)}
    if isinstance(check, TcpCheck):
        return {"TCP": check.address, "Interval": duration(check.interval), "Timeout": duration(check.timeout)}
    return {"TTL": duration(check.ttl)}


def _entries(body: bytes) -> list[Instance]:
    try:
        return [_instance(entry) for entry in _ENTRIES.decode(body)]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidAnswer(f"the registry's list of instances cannot be read: {error}") from error


def _instance(entry: _Entry) -> Instance:
    service, health = entry.service, health_of(entry.checks)
    meta, weights = service.meta or {}, service.weights or _Weights()
    return Instance(
        id=service.id or service.service,
        service=service.service,
        address=service.address or entry.node.address,
        port=service.port,
        health=health,
        node=entry.node.name,
        zone=meta.get("zone", ""),
        version=meta.get("version", ""),
        weight=weights.warning if health is Health.WARNING else weights.passing,
        tags=tuple(service.tags or ()),
        meta=meta,
    )


def _ordered(found: list[Instance]) -> tuple[Instance, ...]:
    if len({each.id for each in found}) < len(found):
        count = Counter(each.id for each in found)
        found = [
            msgspec.structs.replace(each, id=f"{each.id}@{each.node}") if count[each.id] > 1 else each for each in found
        ]
    return tuple(sorted(found, key=lambda each: each.id))
