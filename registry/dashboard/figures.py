"""What several pages say about traffic, health and load, as plain data: rounded to what can be read, None for unknown.

Rounding is what keeps a page still: the tenth digit of a rate changes every second and tells nobody anything. No time
of hearing is among the figures, for the same reason.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from registry.dashboard.loads import Loads
from registry.dashboard.model import SEVERITY, Member, Quantiles, Service, Traffic
from registry.dashboard.render import number
from registry.model import Health

_RANK = {health: rank for rank, health in enumerate(SEVERITY)}


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What clients say: attempts a second, the share (0 to 1) that ended well, latencies in ms, attempts under way."""

    rps: float | None
    success: float | None
    latency: Quantiles
    in_flight: int | None


def figures(traffic: Traffic) -> Figures:
    """Return what is shown of a ``Traffic``."""
    latency = traffic.latency
    return Figures(
        rps=rounded(traffic.rps, 2),
        success=rounded(traffic.success, 4, down=True),
        latency=Quantiles(p50=rounded(latency.p50), p95=rounded(latency.p95), p99=rounded(latency.p99)),
        in_flight=traffic.in_flight,
    )


def rounded(value: float | None, digits: int = 1, *, down: bool = False) -> float | None:
    """Round to ``digits`` after the point; ``down``: 1 is said of a share only when it is all of it."""
    if value is None:
        return None
    return min(round(value, digits), 1 - 10**-digits) if down and value < 1 else round(value, digits)


def waiting(service: Service, loads: Loads) -> float | None:
    """Return how many requests wait at all of a service's nodes; None when none of them says."""
    total, heard = 0.0, False
    for member in service.members:
        load = loads.get(service.name, member.instance.id)
        if load is not None and load.queue is not None and not load.error:
            total += load.queue
            heard = True
    return round(total, 1) if heard else None


def inside(service: Service, loads: Loads) -> tuple[float, int]:
    """Return how many requests a service's nodes say to be working on, and how many of the nodes say."""
    total, heard = 0.0, 0
    for member in service.members:
        load = loads.get(service.name, member.instance.id)
        if load is not None and load.inflight is not None and not load.error:
            total += load.inflight
            heard += 1
    return total, heard


def plain(counts: Mapping[Health, int]) -> dict[str, int]:
    """Return counts by the word of the health, worst first."""
    return {health.value: counts[health] for health in SEVERITY}


def rank(member: Member) -> tuple[int, float, str]:
    """Return what orders members by what needs a look: worst health first, then what has been so for longest."""
    instance = member.instance
    return _RANK[instance.health], member.since, instance.id


def top(names: Iterable[str], most: int) -> tuple[tuple[tuple[str, int], ...], int]:
    """Return the ``most`` names there are most of, with their numbers, and how many other names there are."""
    found = sorted(Counter(names).items(), key=lambda each: (-each[1], each[0]))
    return tuple(found[:most]), max(0, len(found) - most)


def many(count: int, what: str) -> str:
    """Return ``1 instance``, ``1,234 instances``."""
    return f"{number(count)} {what}" + ("" if count == 1 else "s")


def key(*seen: Any) -> bytes:
    """Return what a part is made of as one comparable value."""
    return msgspec.json.encode(seen)
