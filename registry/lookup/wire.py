"""What goes over the wire between the look-up service and its clients; ``docs/protocol.md`` is the text of it. Pure.

An answer is one JSON object, a stream one JSON object per line. Fields that hold their default are left out, so a
row of an ordinary instance takes about 80 bytes. Zone and version stand beside the metadata, not in it.
"""

from typing import Annotated, Any

import msgspec

from registry.errors import InvalidAnswer
from registry.model import Health, Instance

# So that neither end decodes or encodes for long in one go (about 0.5 ms).
ROWS_PER_LINE = 500
HEARTBEAT = 15.0
LONGEST_WAIT = 600.0
DEFAULT_WAIT = 30.0
PORT = 8700
# Seconds without contact to the registry, as in the body.
STALE_FOR = "Stale-For"

# What every language has.
_Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One instance."""

    id: str
    address: str
    port: _Int
    health: Health = Health.PASSING
    zone: str = ""
    version: str = ""
    weight: _Int = 1
    node: str = ""
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = {}


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``GET /v1/lookup/{service}``."""

    service: str
    index: int
    stale_for: float
    instances: tuple[Row, ...]


class Part(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="snapshot"):
    """One piece (``part`` of ``parts``, from 1) of a whole list, which replaces all the reader had."""

    index: int
    part: int
    parts: int
    stale_for: float
    instances: tuple[Row, ...]


class Change(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="delta"):
    """What turns the list into that of ``index``: rows new or replaced, and the ids of those gone."""

    index: int
    changed: tuple[Row, ...] = ()
    removed: tuple[str, ...] = ()


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="heartbeat"):
    """Nothing has changed since ``index``."""

    index: int
    stale_for: float


class Resync(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="resync"):
    """The reader fell behind and has missed changes; a snapshot follows."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is none: one sentence, and a word for programs."""

    error: str
    reason: str


Event = Part | Change | Heartbeat | Resync

_EVENT = msgspec.json.Decoder(Event)
_LISTING = msgspec.json.Decoder(Listing)
_REFUSAL = msgspec.json.Decoder(Refusal)


def to_row(instance: Instance) -> Row:
    """What the wire holds of an instance."""
    return Row(
        id=instance.id,
        address=instance.address,
        port=instance.port,
        health=instance.health,
        zone=instance.zone,
        version=instance.version,
        weight=instance.weight,
        node=instance.node,
        tags=instance.tags,
        meta={key: value for key, value in instance.meta.items() if key not in {"zone", "version"}},
    )


def to_instance(row: Row, service: str) -> Instance:
    """The instance again."""
    meta = dict(row.meta)
    if row.zone:
        meta["zone"] = row.zone
    if row.version:
        meta["version"] = row.version
    return Instance(
        id=row.id,
        service=service,
        address=row.address,
        port=row.port,
        health=row.health,
        node=row.node,
        zone=row.zone,
        version=row.version,
        weight=row.weight,
        tags=row.tags,
        meta=meta,
    )


def line(event: Event) -> bytes:
    """One line of a stream, its newline included."""
    return msgspec.json.encode(event) + b"\n"


def decode_line(text: bytes) -> Event:
    """Read one line of a stream. Raises ``InvalidAnswer``."""
    return _decode(_EVENT, text)  # type: ignore[no-any-return]


def decode_listing(body: bytes) -> Listing:
    """Read a whole answer. Raises ``InvalidAnswer``."""
    return _decode(_LISTING, body)  # type: ignore[no-any-return]


def decode_refusal(body: bytes) -> Refusal:
    """Read the body of a refusal. Raises ``InvalidAnswer``."""
    return _decode(_REFUSAL, body)  # type: ignore[no-any-return]


def _decode(decoder: "msgspec.json.Decoder[Any]", text: bytes) -> Any:
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidAnswer(f"the look-up service's answer cannot be read: {error}") from error
