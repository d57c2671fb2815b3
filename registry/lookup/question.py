"""What a request asks for, read from its parameters. Pure.

What is not understood is refused: a typing error in a filter must not hand out everything.
"""

import re
from collections.abc import Collection

import msgspec
from multidict import MultiMapping

from registry.lookup.refused import bad_request
from registry.lookup.wire import DEFAULT_WAIT, LONGEST_WAIT
from registry.query import Query

_FILTERS = ("tag", "zone", "version", "meta", "passing", "limit", "client")
LISTING = (*_FILTERS, "index", "wait")
STREAM = (*_FILTERS, "index")
LONGEST_VALUE = 512  # as in Consul's metadata
MOST_PAIRS = 64
LARGEST_SUBSET = 1000
_FLAGS = {"1": True, "true": True, "0": False, "false": False}
_NUMBER = re.compile(r"[0-9]{1,18}")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?(?:ms|s|m|h))+")
_TERM = re.compile(r"([0-9.]+)(ms|s|m|h)")
_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """``limit`` 0: the whole list. ``index`` None: answer at once, or start with a snapshot. ``wait`` in seconds."""

    query: Query
    limit: int = 0
    client: str = ""
    index: int | None = None
    wait: float = DEFAULT_WAIT


def read(service: str, given: MultiMapping[str], known: Collection[str]) -> Question:
    """Read parameters, of which ``known`` are understood. Raises ``Refused``."""
    for name in given:
        if name not in known:
            raise bad_request(f"unknown parameter {name[:40]!r}; known are {', '.join(known)}")
        if name != "meta" and len(given.getall(name)) > 1:
            raise bad_request(f"{name} is given more than once")
        if any(len(value) > LONGEST_VALUE for value in given.getall(name)):
            raise bad_request(f"{name} is longer than {LONGEST_VALUE} characters")
    client, limit = given.get("client", ""), _number(given, "limit")
    if (limit is None) != (not client):
        raise bad_request("limit and client go together: limit=20&client=NAME gives that client its own 20 instances")
    if limit is not None and not 1 <= limit <= LARGEST_SUBSET:
        raise bad_request(f"limit must be 1 to {LARGEST_SUBSET}")
    return Question(
        query=Query(
            service,
            tag=given.get("tag", ""),
            zone=given.get("zone", ""),
            version=given.get("version", ""),
            meta=_meta(given.getall("meta", [])),
            passing_only=_flag(given, "passing"),
        ),
        limit=limit or 0,
        client=client,
        index=_number(given, "index"),
        wait=_wait(given.get("wait")),
    )


def _number(given: MultiMapping[str], name: str) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise bad_request(f"{name} must be a whole number, 0 or more")
    return int(text)


def _flag(given: MultiMapping[str], name: str) -> bool:
    text = given.get(name, "1").lower()
    if text not in _FLAGS:
        raise bad_request(f"{name} must be 1 or 0")
    return _FLAGS[text]


def _meta(pairs: list[str]) -> dict[str, str]:
    if len(pairs) > MOST_PAIRS:
        raise bad_request(f"meta is given more than {MOST_PAIRS} times")
    found: dict[str, str] = {}
    for pair in pairs:
        key, colon, value = pair.partition(":")
        if not key or not colon:
            raise bad_request("meta must be key:value")
        if found.setdefault(key, value) != value:
            raise bad_request(f"meta asks for two values of {key}")
    return found


def _wait(text: str | None) -> float:
    if text is None:
        return DEFAULT_WAIT
    if not _DURATION.fullmatch(text):
        raise bad_request("wait must be a duration such as 30s, 500ms or 1m30s")
    return min(LONGEST_WAIT, sum(float(number) * _UNITS[unit] for number, unit in _TERM.findall(text)))
