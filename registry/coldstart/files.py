"""The last good list of each service in a folder, for a start while the registry is away. Blocking: use a thread.

One file for each registry and question: a line that says what it is, then the instances, ``ROWS_PER_LINE`` a line, so
that no single step holds the interpreter for long. A file is replaced whole (written beside, synced, renamed), so any
number of processes may share the folder. What cannot be read for what it says it is counts as absent, and so does
what somebody else has put there: a list decides where requests go.
"""

import errno
import hashlib
import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from registry.model import Instance, Snapshot
from registry.query import Query
from registry.wording import printable

log = logging.getLogger(__name__)

ROWS_PER_LINE = 500
# Twenty times what 10,000 instances take.
LARGEST = 1 << 26
# Lists in use are written again every few minutes; one that nobody has written for so long is of no service any more.
FORGET_AFTER = 30 * 86_400.0
_ABANDONED_AFTER = 3600.0  # seconds after which a half-written file is nobody's
_LATEST = 1e11  # seconds since the epoch: the year 5138
_ODD = re.compile(r"[^A-Za-z0-9_-]+")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a file. Another ``version`` is another format."""

    format: Literal["twostep-list"] = "twostep-list"
    version: Literal[1] = 1
    source: str
    query: Query
    index: int
    fetched_at: float
    stale_for: float
    instances: int


_HEAD = msgspec.json.Decoder(Head)
_ROWS = msgspec.json.Decoder(tuple[Instance, ...])


class SavedLists:
    """The lists of one registry, named by its ``source``, in ``folder`` (made with mode 0700 when there is none)."""

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        self._source = source
        self._swept = False
        self._told = ""

    def path(self, query: Query) -> Path:
        """Return where the answer to a question is kept; the name is safe whatever the service is called."""
        filters = (query.tag, query.zone, query.version, sorted(query.meta.items()), query.passing_only)
        question = ascii((self._source, query.service, *filters))
        digest = hashlib.blake2b(question.encode(), digest_size=12).hexdigest()
        return self.folder / f"{_ODD.sub('-', query.service)[:40]}.{digest}.list"

    def write(self, query: Query, snapshot: Snapshot, now: float) -> None:
        """Keep a list in place of the one before it, which stands when that cannot be done: told of in one log line."""
        try:
            self._replace(query, snapshot)
            if not self._swept:
                self._sweep(now)
            self._swept, self._told = True, ""
        except (OSError, ValueError) as error:
            reason = _reason(error)
            if reason != self._told:
                log.warning("lists are not kept in %s, going on without: %s", self.folder, reason)
            self._told = reason

    def read(self, query: Query) -> Snapshot | None:
        """Return the list last kept for a question, or None. A file that cannot be used is told of in one log line."""
        try:
            return decode(_content(self.path(query)), self._source, query)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning(
                "the saved list of %s in %s is not used: %s", printable(query.service), self.folder, _reason(error)
            )
        return None

    def _replace(self, query: Query, snapshot: Snapshot) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self.path(query)
        descriptor, temporary = tempfile.mkstemp(prefix=f"{target.stem}.", suffix=".new", dir=self.folder)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                for line in encode(self._source, query, snapshot):
                    file.write(line)
                    if file.tell() > LARGEST:
                        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink()
            raise

    def _sweep(self, now: float) -> None:
        """Remove lists nobody has written for a month, and what a killed process left half-written."""
        for pattern, after in (("*.list", FORGET_AFTER), ("*.new", _ABANDONED_AFTER)):
            for path in self.folder.glob(pattern):
                try:
                    if now - path.lstat().st_mtime > after:
                        path.unlink()
                except OSError:
                    pass  # another process was quicker, or it is not ours to remove


def encode(source: str, query: Query, snapshot: Snapshot) -> Iterator[bytes]:
    """Yield the lines of a file."""
    rows = snapshot.instances
    head = Head(
        source=source,
        query=query,
        index=snapshot.index,
        fetched_at=snapshot.fetched_at,
        stale_for=snapshot.stale_for,
        instances=len(rows),
    )
    yield msgspec.json.encode(head) + b"\n"
    for start in range(0, len(rows), ROWS_PER_LINE):
        yield msgspec.json.encode(rows[start : start + ROWS_PER_LINE]) + b"\n"


def decode(content: bytes, source: str, query: Query) -> Snapshot:
    """Return the list in a file's content. Raises ``ValueError`` for what is damaged or answers another question."""
    first, *lines = content.split(b"\n")
    try:
        head = _HEAD.decode(first)
        rows = [row for line in lines if line for row in _ROWS.decode(line)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is damaged, or of another version ({error})") from error
    if (head.source, head.query) != (source, query):
        raise ValueError("it is the answer to another question")
    if len(rows) != head.instances or len({row.id for row in rows}) != len(rows):
        raise ValueError(f"it holds {len(rows)} instances, not {head.instances}")
    times = 0 <= head.fetched_at < _LATEST and 0 <= head.stale_for < _LATEST
    if not (times and 0 <= head.index < 1 << 64 and all(map(_plausible, rows))):
        raise ValueError("it holds impossible numbers")
    return Snapshot(
        service=query.service,
        index=head.index,
        instances=tuple(sorted(rows, key=lambda row: row.id)),
        fetched_at=head.fetched_at,
        stale_for=head.stale_for,
        source=source,
    )


def _plausible(row: Instance) -> bool:
    return 0 <= row.port <= 65535 and 0 <= row.weight <= 65535


def _content(path: Path) -> bytes:
    """Read a regular file of our own, of bounded size; never wait for a pipe or follow a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise ValueError("it is not a file of this user's own")
        if status.st_size > LARGEST:
            raise ValueError(f"it is larger than {LARGEST} bytes")
        return file.read(LARGEST + 1)


def _reason(error: OSError | ValueError) -> str:
    return printable((error.strerror if isinstance(error, OSError) else None) or str(error))
