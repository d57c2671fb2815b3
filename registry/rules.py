"""What an instance may say of itself: Consul's limits, checked here so that the message says what to change.

The metadata limits are those of Consul's ``ValidateMetadata`` (64 pairs, keys of ``[A-Za-z0-9_-]`` up to 128
characters and not starting with ``consul-``, values up to 512); the weight limits those of ``ValidateWeights``; the
least ``deregister_after`` is its ``CheckDeregisterIntervalMin``.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping

from registry.directory import Check, HttpCheck, Registration, TcpCheck, TtlCheck
from registry.errors import ConfigurationError, RegistrationRefused

_META_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_UNFIT = re.compile(r"[\s/\x00-\x1f\x7f]")
LEAST_DEREGISTER_AFTER = 60.0


def ensure_name(service: str) -> None:
    """Raise ``ConfigurationError`` for a service name that no registry could hold."""
    if not service or "/" in service or service in {".", ".."}:
        raise ConfigurationError(f"{service!r} is not a service name; give one such as digits")


def ensure_registrable(registration: Registration) -> None:
    """Raise ``RegistrationRefused`` with the first thing wrong with a registration."""
    for problem in _problems(registration):
        raise RegistrationRefused(f"cannot register {registration.id or registration.service!r}: {problem}")


def _problems(registration: Registration) -> Iterator[str]:
    for word, value in (("service name", registration.service), ("id", registration.id)):
        if not value or _UNFIT.search(value) or value in {".", ".."}:
            yield f"{word} {value!r} must not be empty or hold spaces or slashes"
    if not registration.address or _is_wildcard(registration.address):
        yield f"clients cannot reach address {registration.address!r}; give the one they should use"
    if not 1 <= registration.port <= 65535:
        yield f"port {registration.port} is not between 1 and 65535"
    if not (1 <= registration.weight <= 65535 and 0 <= registration.warning_weight <= 65535):
        yield "weight must be 1 to 65535 and warning_weight 0 to 65535"
    after = registration.deregister_after
    if after is not None and after < LEAST_DEREGISTER_AFTER:
        yield f"deregister_after is {after:g} s; Consul's least is {LEAST_DEREGISTER_AFTER:g} s"
    named = {"zone": registration.zone, "version": registration.version}
    for key, value in named.items():
        if value and registration.meta.get(key, value) != value:
            yield f"{key} is {value!r} and also {registration.meta[key]!r} in the metadata; give it once"
    yield from meta_problems({**registration.meta, **{key: value for key, value in named.items() if value}})
    yield from _check_problems(registration.check)


def meta_problems(meta: Mapping[str, str]) -> Iterator[str]:
    """What Consul would refuse in metadata."""
    if len(meta) > 64:
        yield f"{len(meta)} pairs of metadata; Consul's most is 64 (zone and version included)"
    for key, value in meta.items():
        if not _META_KEY.fullmatch(key) or key.startswith("consul-"):
            yield f"metadata key {key!r}: use up to 128 of A-Z a-z 0-9 _ - and no prefix consul-"
        if len(value.encode()) > 512:
            yield f"metadata {key!r} has {len(value.encode())} bytes; Consul's most is 512"


def _check_problems(check: Check | None) -> Iterator[str]:
    match check:
        case HttpCheck(url=url) if not url.startswith(("http://", "https://")):
            yield f"the check's url {url!r} must start with http:// or https://"
        case TcpCheck(address=address) if ":" not in address:
            yield f"the check's address {address!r} must be host:port"
        case HttpCheck() | TcpCheck() if check.interval <= 0 or check.timeout <= 0:
            yield "the check's interval and timeout must be above 0"
        case TtlCheck(ttl=ttl) if ttl <= 0:
            yield "the check's ttl must be above 0"
        case _:
            pass


def _is_wildcard(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return False
