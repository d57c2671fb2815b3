"""What ``twostep lookup --watch`` tells, line by line: changes, and how the registry fares. Pure."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from registry.directory import WatchStatus
from registry.model import Snapshot
from registry.query import Query
from registry.show.explain import Change, cells, changes
from registry.wording import length, printable

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def age(snapshot: Snapshot, now: float) -> float:
    """Seconds since the registry last stood for a list."""
    return max(0.0, now - snapshot.fetched_at) + snapshot.stale_for


def freshness(snapshot: Snapshot, now: float) -> str:
    """Say how old a list is and, if so, that it comes from disk."""
    seconds = age(snapshot, now)
    if snapshot.saved:
        return f"from disk, as it was {length(seconds)} ago"
    return "fresh" if seconds < 1 else f"{length(seconds)} old"


def document(snapshot: Snapshot, now: float) -> dict[str, Any]:
    """Return a list for ``--json``."""
    made: dict[str, Any] = msgspec.to_builtins(snapshot)
    made["age_s"] = round(age(snapshot, now), 3)
    for each, instance in zip(made["instances"], snapshot.instances, strict=True):
        each["endpoint"] = instance.endpoint
    return made


class Lines:
    """The lines for one question, for people or (``as_json``) for programs; ``now`` is in seconds since the epoch."""

    def __init__(self, query: Query, *, as_json: bool) -> None:
        self._query = query
        self._as_json = as_json
        self._last: Snapshot | None = None
        self._lost_at: float | None = None
        self._suspect = False

    def of_list(self, snapshot: Snapshot, now: float) -> Iterator[str]:
        """Tell of a new list of all instances, passing or not; nothing when the answer stays the same."""
        told = changes(self._query, self._last, snapshot)
        news = self._last is None or self._last.saved or snapshot.saved
        self._last = snapshot
        if not (told or news):
            return
        wanted = tuple(filter(self._query.wants, snapshot.instances))
        if self._as_json:
            said = [{"change": each.word, "id": each.instance.id, "what": each.what} for each in told]
            yield self._json(
                now, "list", document(msgspec.structs.replace(snapshot, instances=wanted), now) | {"changes": said}
            )
            return
        for each in told:
            yield f"{_clock(now)} {_SIGNS[each.word]} {_line(each)}"
        count = f"{len(wanted)} instance{'' if len(wanted) == 1 else 's'} of {printable(self._query.service)}"
        yield f"{_clock(now)} = {count}" + (f", {freshness(snapshot, now)}" if snapshot.saved else "")

    def of_status(self, status: WatchStatus, now: float) -> Iterator[str]:
        """Tell when the registry goes away and comes back, and when its word is not taken yet."""
        if status.failures and not status.live and self._lost_at is None:
            self._lost_at = now
            error = printable(status.last_error)
            yield self._note(now, "lost", f"registry lost, the list stands: {error}", error=error)
        if status.live and self._lost_at is not None:
            seconds, self._lost_at = now - self._lost_at, None
            yield self._note(now, "back", f"registry back after {length(seconds)}", after_s=round(seconds, 3))
        if status.suspect and not self._suspect:
            yield self._note(now, "suspect", "more than half is missing from the registry's list; asking again first")
        self._suspect = status.suspect

    def _note(self, now: float, event: str, text: str, **facts: object) -> str:
        return self._json(now, event, facts) if self._as_json else f"{_clock(now)} ! {text}"

    def _json(self, now: float, event: str, facts: dict[str, Any]) -> str:
        time = datetime.fromtimestamp(now).astimezone().isoformat(timespec="milliseconds")
        return json.dumps({"time": time, "event": event} | facts)


def _line(change: Change) -> str:
    name, address, health, zone, version, weight, _ = cells(change.instance)
    said = [name, address]
    if change.word == "added":
        said.append(health)
        said += [f"{word} {value}" for word, value in (("zone", zone), ("version", version)) if value != "-"]
        said += [f"weight {weight}"] if weight != "1" else []
    return "  ".join(said) + (f"  ({', '.join(change.what)})" if change.what else "")


def _clock(now: float) -> str:
    return datetime.fromtimestamp(now).astimezone().strftime("%H:%M:%S")
