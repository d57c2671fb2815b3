"""What happened, newest last, bounded: numbered, searched, paged and exported.

Numbers count up by one and are never used again, so a page says "before 812" and a stream "since 812", and both stay
right while new events come in and old ones fall off. Text is kept as it came, whoever wrote it, but not at any
length; pages escape it, and the export keeps spreadsheets from taking it for a formula.
"""

import csv
import io
from collections import deque
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from itertools import islice

import msgspec

from registry.dashboard.model import Event

LONGEST_WORDS = 1000
LONGEST_NAME = 256
_COLUMNS = ("number", "at", "kind", "service", "instance", "health", "words", "who", "why")
# What makes a spreadsheet take a cell for a formula, with what it skips before one.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class Journal:
    """The last ``most`` events."""

    def __init__(self, most: int = 5000) -> None:
        self._events: deque[Event] = deque(maxlen=most)
        self._last = 0

    @property
    def last(self) -> int:
        """The number of the newest event, 0 when there has been none."""
        return self._last

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: Event) -> Event:
        """Keep an event; return it as it is kept, with its number and within bounds."""
        self._last += 1
        kept = msgspec.structs.replace(
            event,
            number=self._last,
            words=_cut(event.words, LONGEST_WORDS),
            why=_cut(event.why, LONGEST_WORDS),
            **{name: _cut(getattr(event, name), LONGEST_NAME) for name in ("service", "instance", "health", "who")},
        )
        self._events.append(kept)
        return kept

    def newest(
        self,
        limit: int,
        *,
        before: int | None = None,
        kind: Collection[str] = (),
        service: str = "",
        instance: str = "",
        q: str = "",
        health: str = "",
    ) -> list[Event]:
        """Return at most ``limit`` events, newest first, with numbers below ``before``; what is empty does not filter.

        ``kind``: any of these. ``q``: found in the words, the names, who or why, without regard to case.
        """
        wanted, found = (
            q.casefold(),
            (each for each in reversed(self._events) if before is None or each.number < before),
        )
        chosen = (
            each
            for each in found
            if (not kind or each.kind in kind)
            and (not service or each.service == service)
            and (not instance or each.instance == instance)
            and (not health or each.health == health)
            and (not wanted or _mentions(each, wanted))
        )
        return list(islice(chosen, max(0, limit)))

    def since(self, number: int) -> list[Event]:
        """Return the events after ``number``, oldest first; those that have fallen off are not among them."""
        fresh = min(len(self._events), max(0, self._last - number))
        return list(islice(self._events, len(self._events) - fresh, None))


def as_csv(events: Iterable[Event]) -> str:
    """Return events as CSV with a header, times in UTC, no cell of which a spreadsheet takes for a formula."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for each in events:
        at = datetime.fromtimestamp(each.at, UTC).isoformat(timespec="milliseconds")
        said = (each.kind, each.service, each.instance, each.health, each.words, each.who, each.why)
        writer.writerow((each.number, at, *map(_inert, said)))
    return text.getvalue()


def as_json(events: Iterable[Event]) -> bytes:
    """Return events as a JSON list, fields as in ``Event``."""
    return msgspec.json.encode(list(events))


def _mentions(event: Event, wanted: str) -> bool:
    said = (event.words, event.instance, event.service, event.who, event.why)
    return any(wanted in each.casefold() for each in said)


def _inert(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
