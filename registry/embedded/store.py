"""The embedded registry's state in a JSON file: read at the start, replaced as a whole after changes.

A new file is written beside the old one and renamed over it, so that a crash leaves one or the other, never a half.
"""

import os
from pathlib import Path

import msgspec

from registry.embedded.catalog import CheckRecord, ServiceRecord
from registry.embedded.kv import Pair
from registry.errors import ConfigurationError


class State(msgspec.Struct, kw_only=True):
    """All that outlives the process. ``format`` names what wrote it."""

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


def encode(state: State) -> bytes:
    """What the file is to hold; a snapshot of records that go on changing."""
    return msgspec.json.format(msgspec.json.encode(state), indent=1)


def write(path: Path, content: bytes) -> None:
    """Replace the file. Raises ``ConfigurationError``."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
