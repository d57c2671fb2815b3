"""One line about one member: what the registry, the node itself and its clients say of it, side by side.

What a node counts as under way and what its clients have sent it should be about the same. Where clients count far
more, requests are held up between the two, and that is worth a mark; the node may well count more, for not every caller
reports. Figures are rounded to what is printed: a row is drawn again when it has changed, and nobody sees the sixth
digit.
"""

import csv
import io
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from registry.dashboard import guard
from registry.dashboard.figures import rounded
from registry.dashboard.model import Member, NodeLoad, Traffic
from registry.dashboard.world import World

# Seconds without a word after which it is said when the last one came.
LATE = 15.0
_COLUMNS = (
    "service", "id", "health", "since", "address", "zone", "version", "in_flight_node", "in_flight_clients", "queue",
    "requests_per_s", "success", "p50_ms", "p99_ms", "ejected_by", "clients", "heard_at",
)  # fmt: skip
# What a node may say of itself; one that never answered has said none of it.
_SAID = ("wait_ms", "inflight", "queue", "capacity_rps", "utilization", "rps")
# What makes a spreadsheet take a cell for a formula, with what it skips before one.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One member. ``inflight_node`` and ``inflight_clients``: requests under way as each of them counts.

    ``gap``: clients count far more. ``heard_at``: when the node or a client of it last said anything; ``late``: that is
    a while ago; ``silent``: why the node says nothing now.
    """

    service: str
    id: str
    health: str
    since: float
    address: str
    zone: str
    version: str
    steerable: bool
    inflight_node: float | None
    inflight_clients: int | None
    gap: bool
    queue: float | None
    rps: float | None
    success: float | None
    p50: float | None
    p99: float | None
    ejected_by: int
    clients: int
    heard_at: float | None
    late: bool
    silent: str


def row(member: Member, world: World) -> Row:
    """Gather what is known of one member."""
    instance = member.instance
    load = world.loads.get(instance.service, member.id)
    traffic = world.calls.instance(instance.service, member.id)
    fresh = None if load is None or load.error else load
    heard = heard_at(load, traffic)
    inflight = None if fresh is None else fresh.inflight
    return Row(
        service=instance.service,
        id=member.id,
        health=member.health,
        since=member.since,
        address=instance.endpoint,
        zone=instance.zone,
        version=instance.version,
        steerable=guard.steerable(member),
        inflight_node=rounded(inflight),
        inflight_clients=traffic.in_flight,
        gap=apart(inflight, traffic.in_flight),
        queue=rounded(None if fresh is None else fresh.queue),
        rps=rounded(rate(traffic, fresh), 2),
        success=rounded(traffic.success, 4, down=True),
        p50=rounded(traffic.latency.p50),
        p99=rounded(traffic.latency.p99),
        ejected_by=traffic.ejected_by,
        clients=traffic.clients,
        heard_at=heard,
        late=heard is not None and world.now - heard > LATE,
        silent="" if load is None else load.error,
    )


def seen(line: Row) -> Row:
    """What of a row is seen: a fresh word is fresh, whenever exactly it came."""
    return line if line.late or line.heard_at is None else msgspec.structs.replace(line, heard_at=0.0)


def apart(node: float | None, clients: float | None) -> bool:
    """Whether clients count more requests under way than the node, by more than 2 and more than half of them."""
    return node is not None and clients is not None and clients - node > max(2.0, 0.5 * clients)


def rate(traffic: Traffic, load: NodeLoad | None) -> float | None:
    """Requests a second: what clients say, else what the node says, for clients need not report."""
    return traffic.rps if traffic.rps is not None else None if load is None or load.error else load.rps


def heard_at(load: NodeLoad | None, traffic: Traffic) -> float | None:
    """When a node or a client of it last said anything, None when neither ever has."""
    never = load is None or (bool(load.error) and all(getattr(load, name) is None for name in _SAID))
    known = [each for each in (None if never or load is None else load.at, traffic.heard_at) if each is not None]
    return max(known, default=None)


def as_csv(lines: Iterable[Row]) -> str:
    """Return rows as CSV with a header, times in UTC, no cell of which a spreadsheet takes for a formula."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for each in lines:
        named = (each.service, each.id, each.health, _time(each.since), each.address, each.zone, each.version)
        figures = (
            each.inflight_node, each.inflight_clients, each.queue, each.rps, each.success, each.p50, each.p99,
            each.ejected_by, each.clients, None if each.heard_at is None else _time(each.heard_at),
        )  # fmt: skip
        writer.writerow((*(f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in named), *figures))
    return text.getvalue()


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
