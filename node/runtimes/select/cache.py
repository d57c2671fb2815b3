"""What was chosen for a model on a machine like this, and the converted file: kept, so that only the first start pays.

Entries lie in ``.runtimes`` beside the model's versions, so that nodes that share the folder share them and a version's
own files stay as they were published; where that cannot be written, in the user's cache. An entry is written elsewhere
and renamed, and its file's digest is checked when it is read. Whatever is wrong with an entry, or with the disk, only
costs a new choice.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from node.models import digest
from node.runtimes.select.choosing import ChoiceReport
from node.runtimes.select.jobs import decode, encode

log = logging.getLogger(__name__)

FOLDER = ".runtimes"
_CHOICE = "choice.json"
# Entries kept in one place: kinds of machines times versions, with room.
_KEPT = 32


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A choice; ``file`` is the converted model's name (empty: the model is served as it is), ``sha256`` its digest."""

    report: ChoiceReport
    file: str = ""
    sha256: str = ""


def key(facts: object) -> str:
    """Return a name for everything that a choice depends on."""
    return hashlib.sha256(msgspec.json.encode(facts, enc_hook=str, order="deterministic")).hexdigest()[:24]


def user_folder() -> Path:
    """Return where this user's programs keep what they can make again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "twostep" / "runtimes"


class Cache:
    """Entries by key in the first of several folders that has them, or that takes them."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def find(self, name: str) -> tuple[ChoiceReport, Path | None] | None:
        """Return a choice made earlier and the file that goes with it."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                if found := _read(folder / name):
                    return found
        return None

    def keep(self, name: str, report: ChoiceReport, file: Path | None) -> None:
        """Store a choice with a copy of its file."""
        entry = Entry(report=report, file=file.name if file else "", sha256=digest(file) if file else "")
        for folder in self._folders:
            try:
                _write(folder, name, entry, file)
            except OSError as error:
                log.debug("%s takes no entry: %s", folder, error)
                continue
            _prune(folder)
            return
        log.info(
            "the choice of a runtime cannot be kept: none of %s can be written", ", ".join(map(str, self._folders))
        )


def _read(folder: Path) -> tuple[ChoiceReport, Path | None] | None:
    if not folder.is_dir():
        return None
    try:
        entry = decode((folder / _CHOICE).read_bytes(), Entry)
    except msgspec.MsgspecError:
        return None
    file = folder / entry.file if entry.file else None
    if file is not None and (file.parent != folder or digest(file) != entry.sha256):
        return None
    return msgspec.structs.replace(entry.report, cached=True), file


def _write(folder: Path, name: str, entry: Entry, file: Path | None) -> None:
    folder.mkdir(mode=0o700 if folder == user_folder() else 0o777, parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        staging.chmod(0o755)  # a node of another user may read it
        if file is not None:
            shutil.copyfile(file, staging / file.name)
        (staging / _CHOICE).write_bytes(encode(entry))
        shutil.rmtree(folder / name, ignore_errors=True)  # one that could not be read
        staging.rename(folder / name)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        if not (folder / name).is_dir():  # else another node was quicker
            raise


def _prune(folder: Path) -> None:
    """Remove the oldest entries beyond those that are kept."""
    with contextlib.suppress(OSError):
        entries = sorted((each for each in folder.iterdir() if each.is_dir()), key=lambda each: each.stat().st_mtime)
        for each in entries[:-_KEPT]:
            shutil.rmtree(each, ignore_errors=True)
