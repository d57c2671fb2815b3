"""Consul's JSON and the model, both ways; pure, tolerant of what real agents leave out, and deterministic.

An instance's health is the worst of its checks, those of its machine included; a maintenance check makes it
*draining*. Check output is ignored: a time in it would be a change at every run. A service id is unique on one agent
only, so ids that collide across machines become ``id@node``. A list is ``[]`` when it is empty and never ``null``
(Consul 1.8 and the source of today's), so ``null`` is no answer; inside an entry it is common. Large answers (10,000
instances are 13 MB) are decoded in steps of about 128 kB, between which an event loop can do other work: ``msgspec``
holds the interpreter lock, so a thread would not help.
"""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from registry.directory import Check, HttpCheck, Registration, TcpCheck
from registry.errors import InvalidAnswer
from registry.model import Health, Instance

STEP = 128 * 1024
# Thirty times what the limits on metadata and check output allow; decoding this much takes about 20 ms.
LARGEST_ENTRY = 4 * 1024 * 1024
_FREED_AT_ONCE = 5000
NODE_MAINTENANCE = "_node_maintenance"
SERVICE_MAINTENANCE = "_service_maintenance:"

# What a list entry starts with. A quote inside a JSON string is escaped, so these bytes are never part of a string.
_BOUNDARY = b'},{"Node":{'

_MOST = 65535
_UNREADABLE = "the registry's list of instances cannot be read"

_SEVERITY = {"passing": 0, "warning": 1}
_BY_SEVERITY = (Health.PASSING, Health.WARNING, Health.CRITICAL)


# What Go's int holds.
_Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


# Without gc: made and dropped by the ten thousand and never cyclic; a collection among them held a loop for 28 ms.
class _Weights(msgspec.Struct, rename="pascal", gc=False):
    passing: _Int = 1
    warning: _Int = 1


class _Node(msgspec.Struct, gc=False):
    name: str = msgspec.field(name="Node")
    address: str = msgspec.field(name="Address", default="")


class _Service(msgspec.Struct, rename="pascal", gc=False):
    service: str
    port: _Int = 0
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


class _AgentConfig(msgspec.Struct, rename="pascal"):
    datacenter: str = ""


class _AgentSelf(msgspec.Struct, rename="pascal"):
    config: _AgentConfig


_AGENT_SELF = msgspec.json.Decoder(_AgentSelf)
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


def decode_in_steps(body: Iterable[bytes], size: int = STEP) -> Generator[None, None, tuple[Instance, ...]]:
    """Instances in an answer of ``/v1/health/service``, ordered by id, as the generator's return value.

    ``body``: the answer in pieces. It stops at a ``yield`` about every ``size`` bytes, so that a large answer need not
    hold an event loop up. No byte is decoded more than about twice. Raises ``InvalidAnswer``.
    """
    found: list[Instance] = []
    try:
        yield from _decoded(body, size, found)
        return _ordered(found)
    except InvalidAnswer:
        while found:  # letting go of very many takes its time too
            del found[-_FREED_AT_ONCE:]
            yield
        raise


def _decoded(body: Iterable[bytes], size: int, found: list[Instance]) -> Generator[None, None, None]:
    pending: bytes | None = None
    enough = 0
    for number, part in enumerate(split(body, size)):
        if number:
            yield
        pending = part if pending is None else pending[:-1] + b"," + part[1:]
        if len(pending) < enough:
            continue
        try:
            found += _entries(pending)
        except _Malformed as error:
            # Broken, or cut at a boundary inside an entry: with as much again it may make sense.
            enough = 2 * len(pending)
            if enough > LARGEST_ENTRY:
                raise InvalidAnswer(str(error)) from error
        else:
            pending, enough = None, 0
    if pending is not None:
        found += _entries(pending)


def split(body: Iterable[bytes], size: int = STEP) -> Iterator[bytes]:
    """Cut a JSON list of entries into JSON lists of about ``size`` bytes each, without parsing it.

    A cut inside an entry leaves unbalanced brackets, so decoding such a part fails and never gives a wrong value.
    Raises ``InvalidAnswer`` when there is nowhere to cut for ``LARGEST_ENTRY`` bytes.
    """
    rest, opening, searched = bytearray(), b"", size
    for piece in body:
        rest += piece
        while (cut := rest.find(_BOUNDARY, searched)) >= 0:
            yield opening + rest[: cut + 1] + b"]"
            del rest[: cut + 2]
            opening, searched = b"[", size
        searched = max(size, len(rest) - len(_BOUNDARY))
        if len(rest) > LARGEST_ENTRY:
            raise InvalidAnswer(f"{_UNREADABLE}: an entry of more than {LARGEST_ENTRY >> 20} MB")
    yield opening + rest


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


def decode_datacenter(body: bytes) -> str:
    """The datacenter of the agent that answered ``/v1/agent/self`` so. Raises ``InvalidAnswer``."""
    try:
        return _AGENT_SELF.decode(body).config.datacenter
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidAnswer(f"the registry's answer about its agent cannot be read: {error}") from error


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
        fields = {"HTTP": check.url, "Interval": duration(check.interval), "Timeout": duration(check.timeout)}
        return fields | {"TLSSkipVerify": True} if check.tls_skip_verify else fields
    if isinstance(check, TcpCheck):
        return {"TCP": check.address, "Interval": duration(check.interval), "Timeout": duration(check.timeout)}
    return {"TTL": duration(check.ttl)}


class _Malformed(InvalidAnswer):
    """It is no JSON, or not all of it."""


def _entries(body: bytes) -> list[Instance]:
    try:
        return [_instance(entry) for entry in _ENTRIES.decode(body)]
    except msgspec.ValidationError as error:
        raise InvalidAnswer(f"{_UNREADABLE}: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _Malformed(f"{_UNREADABLE}: {error}") from error


def _instance(entry: _Entry) -> Instance:
    service, health = entry.service, health_of(entry.checks)
    meta, weights = service.meta or {}, service.weights or _Weights()
    return Instance(
        id=service.id or service.service,
        service=service.service,
        address=service.address or entry.node.address,
        # Consul takes any number, and one odd registration must not cost the list; port 0 stands for none.
        port=service.port if 0 <= service.port <= _MOST else 0,
        health=health,
        node=entry.node.name,
        zone=meta.get("zone", ""),
        version=meta.get("version", ""),
        weight=max(0, min(_MOST, weights.warning if health is Health.WARNING else weights.passing)),
        tags=tuple(service.tags or ()),
        meta=meta,
    )


def _ordered(found: list[Instance]) -> tuple[Instance, ...]:
    count = Counter(each.id for each in found)
    if len(count) < len(found):
        found = [
            msgspec.structs.replace(each, id=f"{each.id}@{each.node}") if count[each.id] > 1 else each for each in found
        ]
        if len({each.id for each in found}) < len(found):
            raise InvalidAnswer(f"{_UNREADABLE}: one instance stands in it twice")
    return tuple(sorted(found, key=attrgetter("id")))
