"""Reading what clients send: Consul's JSON with its loose key spelling and Go's durations, into catalog records.

Keys are matched without case and underscores, as py-consul, curl users and Consul's own tools write them differently.
What Consul refuses is refused; what only Consul can do (script, gRPC, alias checks, service mesh) is refused too, in
one line that says so, rather than ignored.
"""

import math
import re
from typing import Annotated, Any, TypeVar

import msgspec

from registry.embedded.catalog import CheckRecord, Probe, ServiceRecord
from registry.rules import meta_problems

STATUSES = ("passing", "warning", "critical")
# Consul runs no check more often than this.
_LEAST_INTERVAL = 1.0
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
# Go's integers and durations have 64 bits.
_LARGEST = 2**63 - 1
_MOST_WEIGHT = 65535

_T = TypeVar("_T")
_Integer = Annotated[int, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]


class BadRequest(ValueError):
    """What was sent cannot be used; the message is the answer's body."""


class _Weights(msgspec.Struct, forbid_unknown_fields=True):
    passing: _Integer = 1
    warning: _Integer = 1


class _TaggedAddress(msgspec.Struct, forbid_unknown_fields=True):
    address: str = ""
    port: _Integer = 0


class _Check(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of a check definition that this registry acts on."""

    id: str = ""
    checkid: str = ""
    name: str = ""
    notes: str = ""
    serviceid: str = ""
    status: str = ""
    http: str = ""
    method: str = ""
    header: dict[str, list[str]] | None = None
    body: str = ""
    tlsskipverify: bool = False
    tcp: str = ""
    ttl: str | int = 0
    interval: str | int = 0
    timeout: str | int = 0
    deregistercriticalserviceafter: str | int = 0


class _Service(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of a service definition that this registry acts on."""

    id: str = ""
    name: str = ""
    tags: list[str] | None = None
    address: str = ""
    port: _Integer = 0
    meta: dict[str, str] | None = None
    weights: _Weights | None = None
    check: _Check | None = None
    checks: list[_Check] | None = None
    enabletagoverride: bool = False
    taggedaddresses: dict[str, _TaggedAddress] | None = None


class _Update(msgspec.Struct, forbid_unknown_fields=True):
    status: str = ""
    output: str = ""


# Consul knows these; this registry does not do them.
_CONSUL_ONLY = {
    "args", "script", "dockercontainerid", "shell", "grpc", "grpcusetls", "aliasnode", "aliasservice", "h2ping", "udp",
    "osservice", "successbeforepassing", "failuresbeforecritical", "failuresbeforewarning", "connect", "proxy", "kind",
    "socketpath", "locality", "ports", "outputmaxsize", "tlsservername", "disableredirects", "namespace", "partition",
}  # fmt: skip
# Values under these keys are the user's own, spelling included.
_VERBATIM = {"meta", "header"}


def service_definition(body: bytes) -> tuple[ServiceRecord, list[CheckRecord]]:
    """Read the body of a service registration. Raises ``BadRequest``."""
    given = _parse(body, _Service)
    if not given.name:
        raise BadRequest("Missing service name")
    weights = given.weights or _Weights()
    if weights.passing < 1:
        raise BadRequest("Invalid Weights: Passing must be greater than 0")
    if weights.warning < 0:
        raise BadRequest("Invalid Weights: Warning must be greater or equal than 0")
    if max(weights.passing, weights.warning) > _MOST_WEIGHT:
        raise BadRequest(f"Invalid Weights: DNS Weight must be between 0 and {_MOST_WEIGHT}")
    for problem in meta_problems(given.meta or {}):
        raise BadRequest(f"Invalid Service Meta: {problem}")
    record = ServiceRecord(
        id=given.id or given.name,
        service=given.name,
        address=given.address,
        port=given.port,
        tags=given.tags or [],
        meta=given.meta or {},
        weights=(weights.passing, weights.warning),
        enable_tag_override=given.enabletagoverride,
        tagged_addresses={key: (each.address, each.port) for key, each in (given.taggedaddresses or {}).items()},
    )
    # One empty check is none; in the list it is a mistake.
    checks = ([given.check] if given.check and given.check != _Check() else []) + (given.checks or [])
    return record, [
        _check_record(
            check,
            default_id=f"service:{record.id}" + (f":{number}" if len(checks) > 1 else ""),
            default_name=f"Service '{record.service}' check",
            service_id=record.id,
        )
        for number, check in enumerate(checks, 1)
    ]


def check_definition(body: bytes) -> CheckRecord:
    """Read the body of a check registration. Raises ``BadRequest``."""
    given = _parse(body, _Check)
    if not given.name:
        raise BadRequest("Missing check name")
    return _check_record(given, default_id=given.name, default_name=given.name, service_id=given.serviceid)


def check_update(body: bytes) -> tuple[str, str]:
    """Read the body of a check update: status and output. Raises ``BadRequest``."""
    given = _parse(body, _Update)
    if given.status not in STATUSES:
        raise BadRequest(f"Invalid check status: '{given.status}'")
    return given.status, given.output


def seconds(value: str | int) -> float:
    """Read Go's duration (``1m30s``), or whole nanoseconds. Raises ``BadRequest``."""
    if value in {"", "0"}:
        return 0.0
    if isinstance(value, int):
        found = value / 1e9 if abs(value) <= _LARGEST else math.inf
    else:
        parts = _DURATION.findall(value)
        complete = "".join(number + unit for number, unit in parts) == value
        found = sum(float(number) * _UNITS[unit] for number, unit in parts) if complete else math.inf
    if found > _LARGEST / 1e9:
        raise BadRequest(f'Request decode failed: time: invalid duration "{value}"')
    return found


def _check_record(given: _Check, *, default_id: str, default_name: str, service_id: str) -> CheckRecord:
    if given.status and given.status not in STATUSES:
        raise BadRequest("Status for checks must 'passing', 'warning', 'critical'")
    interval, ttl = seconds(given.interval), seconds(given.ttl)
    if given.http or given.tcp:
        if interval <= 0:
            raise BadRequest("Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks")
        if ttl or (given.http and given.tcp):
            raise BadRequest("Invalid check: only one of HTTP, TCP and TTL can be given")
    elif ttl <= 0:
        raise BadRequest("Invalid check: TTL must be > 0 for TTL checks")
    probe = Probe(
        http=given.http,
        method=given.method or "GET",
        header=given.header or {},
        body=given.body,
        verify_tls=not given.tlsskipverify,
        tcp=given.tcp,
        ttl=ttl,
        interval=max(_LEAST_INTERVAL, interval) if given.http or given.tcp else 0.0,
        timeout=seconds(given.timeout) or 10.0,
        reap_after=seconds(given.deregistercriticalserviceafter),
    )
    return CheckRecord(
        id=given.checkid or given.id or default_id,
        name=given.name or default_name,
        service_id=service_id,
        status=given.status or "critical",
        notes=given.notes,
        probe=probe,
    )


def _parse(body: bytes, shape: type[_T]) -> _T:
    try:
        return msgspec.convert(_plain(msgspec.json.decode(body or b"null")), shape)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"Request decode failed: {error}") from error
    except RecursionError:
        raise BadRequest("Request decode failed: it nests too deeply") from None


def _plain(value: Any) -> Any:
    """Spell keys one way and leave out nulls, which mean "not given"."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for key, each in value.items():
        plain = key.lower().replace("_", "")
        if plain in _CONSUL_ONLY and each:
            raise BadRequest(f"the embedded registry cannot do {key!r}; use an HTTP, TCP or TTL check, or run Consul")
        if each is None or plain in _CONSUL_ONLY:
            continue
        if plain == "taggedaddresses" and isinstance(each, dict):
            result[plain] = {name: _plain(address) for name, address in each.items()}
        else:
            result[plain] = each if plain in _VERBATIM else _plain(each)
    return result
