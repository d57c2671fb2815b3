"""Policies by name: what ``policy=`` and ``--policy`` accept.

A name (``p2c``), with options as in an address (``hash?factor=1.5``); those that wrap another one take its name, or its
whole description percent-encoded, as ``then`` (``zone?zone=a&then=p2c``); ``split`` takes versions and their shares
(``split?stable=95&canary=5``).
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec

from smartclient.errors import BadOption
from smartclient.policies.consistent_hash import Hash
from smartclient.policies.p2c import P2C, LeastRequest
from smartclient.policies.prequal import Prequal
from smartclient.policies.probed import Probed
from smartclient.policies.reported_load import ReportedLoad
from smartclient.policies.rotation import Rotation
from smartclient.policies.rotation_p2c import RotationP2C
from smartclient.policies.split import Split
from smartclient.policies.subset import Subset
from smartclient.policies.zone import Zone
from smartclient.policy import Policy

DEFAULT = "probed"
THEN = "then"


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


Read = Callable[[str], object]


class _Kind(msgspec.Struct, frozen=True):
    """How to make a policy: what reads each option's value.

    ``wraps``: it takes ``then``. ``versions``: all other options are versions with their shares.
    """

    make: Callable[..., Policy]
    options: Mapping[str, Read] = {}
    wraps: bool = False
    versions: bool = False


_KINDS = {
    "hash": _Kind(Hash, {"factor": _number}),
    "least_request": _Kind(LeastRequest),
    "p2c": _Kind(P2C),
    "prequal": _Kind(Prequal, {"quantile": _number, "ask": int}),
    "probed": _Kind(Probed, {"ask": int, "margin": _number}),
    "reported_load": _Kind(ReportedLoad, {"penalty": _number}),
    "rotation": _Kind(Rotation),
    "rotation_p2c": _Kind(RotationP2C, {"margin": _number}),
    "split": _Kind(Split, wraps=True, versions=True),
    "subset": _Kind(Subset, {"size": int, "client": str}, wraps=True),
    "zone": _Kind(Zone, {"zone": str, "clients": _number}, wraps=True),
}


def names() -> list[str]:
    """Names that ``named`` knows, in order."""
    return sorted(_KINDS)


def named(described: str) -> Policy:
    """Return a new policy. Raises ``BadOption`` that says what there is instead of what was asked for."""
    name, _, query = described.partition("?")
    kind = _KINDS.get(name)
    if kind is None:
        raise BadOption(f"no policy is called {name!r}; choose one of: {', '.join(names())}")
    options: dict[str, object] = {}
    versions: dict[str, float] = {}
    for option, text in parse_qsl(query, keep_blank_values=True):
        if option in options or option in versions:
            raise BadOption(f"the policy {name!r} is told {option!r} twice")
        if option == THEN and kind.wraps:
            named(text)  # a mistake in it shows here
            options["inner"] = partial(named, text)
        elif option in kind.options:
            options[option] = _read(name, option, text, kind.options[option])
        elif kind.versions:
            versions[option] = _read(name, option, text, _number)
        else:
            there = [*kind.options, *([THEN] if kind.wraps else [])]
            has = f"it has: {', '.join(there)}" if there else "it has none"
            raise BadOption(f"the policy {name!r} has no option {option!r}; {has}")
    return kind.make(**options, versions=versions) if kind.versions else kind.make(**options)


T = TypeVar("T")


def _read(name: str, option: str, text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except ValueError:
        wanted = "a whole number" if read is int else "a number"
        raise BadOption(f"the policy {name!r} cannot use {option}={text}: give {wanted}") from None
