"""The embedded registry's state in a JSON file: read at the start, replaced as a whole after changes.

A new file is written beside the old one, reaches the disk, and is renamed over it, so that a crash leaves one or the
other, never a half. ``Keeper`` writes behind the registry's back: everything that changed while one file was being
written goes into the next one, so that many writers share few files.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from registry.embedded.catalog import CheckRecord, ServiceRecord
from registry.embedded.kv import Pair
from registry.errors import ConfigurationError
from registry.timing import Clock
from registry.waiting import within

log = logging.getLogger(__name__)

# Nobody waits for what a check found: such changes are gathered for this long.
SAVE_AFTER = 0.2
# And after a failure for this long, unless somebody does wait.
TRY_AGAIN_AFTER = 2.0


class State(msgspec.Struct, kw_only=True):
    """All that outlives the process. ``format`` names what wrote it; the records are never changed in place."""

    format: str = "twostep-registry-1"
    machine_id: str = ""
    index: int = 1
    services: list[ServiceRecord] = []
    checks: list[CheckRecord] = []
    pairs: list[Pair] = []


def load(path: Path) -> State:
    """Read a state file; one that is not there yet is an empty state. Raises ``ConfigurationError``."""
    try:
        state = msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return State()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no state file of this registry ({error}); move it away") from error
    if state.format != State().format:
        raise ConfigurationError(f"{path} was written by another version ({state.format!r}); move it away")
    return state


def write(path: Path, state: State) -> None:
    """Replace the file and return when it is on the disk. Raises ``ConfigurationError``.

    Only the owner can read it: checks may carry passwords in their headers.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", 1 << 20) as file:
            file.writelines(_document(state))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error


class Keeper:
    """Keeps a file up to date with what ``picture`` returns, between ``start`` and ``close``."""

    def __init__(self, path: Path, picture: Callable[[], State], clock: Clock) -> None:
        self._path = path
        self._picture = picture
        self._clock = clock
        self._changes = 0
        self._kept = 0
        self._failure: ConfigurationError | None = None
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()
        self._waiting: list[tuple[int, asyncio.Future[ConfigurationError | None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Finish the file that is being written and answer whoever waits for it."""
        self._closing = True
        self._changed.set()
        self._asked.set()
        if self._task is not None:
            await self._task

    def note_change(self) -> None:
        """Something is to be written."""
        self._changes += 1
        self._changed.set()

    async def kept(self) -> None:
        """Return when all that has changed by now is on the disk. Raises ``ConfigurationError``."""
        if self._kept == self._changes:
            return
        done: asyncio.Future[ConfigurationError | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._changes, done))
        self._asked.set()
        if failure := await done:
            raise failure

    async def _run(self) -> None:
        while not self._closing:
            await self._changed.wait()
            await within(TRY_AGAIN_AFTER if self._failure else SAVE_AFTER, self._asked.wait(), self._clock)
            self._asked.clear()
            changes = self._changes
            failure = await self._write(changes)
            # Whoever came meanwhile with a change of their own waits for the next file.
            for count, each in self._waiting:
                if count <= changes and not each.done():
                    each.set_result(failure)
            self._waiting = [(count, each) for count, each in self._waiting if count > changes]

    async def _write(self, changes: int) -> ConfigurationError | None:
        try:
            await asyncio.to_thread(write, self._path, self._picture())
        except ConfigurationError as error:
            if self._failure is None:
                log.warning("changes are refused until they can be kept: %s", error)
            self._failure = error
            return error
        if self._failure is not None:
            log.warning("%s is written again", self._path)
        self._failure, self._kept = None, changes
        if self._changes == changes:
            self._changed.clear()
        return None


def _document(state: State) -> Iterator[bytes]:
    """The state as JSON, a record a line, encoded one by one so that no other thread waits for all of them."""
    encode = msgspec.json.encode
    head = {"format": state.format, "machine_id": state.machine_id, "index": state.index}
    yield encode(head)[:-1]
    lists: dict[str, Iterable[msgspec.Struct]] = {
        "services": state.services,
        "checks": state.checks,
        "pairs": state.pairs,
    }
    for name, records in lists.items():
        yield b',\n"%s":[' % name.encode()
        separator = b"\n"
        for record in records:
            yield separator + encode(record)
            separator = b",\n"
        yield b"]"
    yield b"}\n"
