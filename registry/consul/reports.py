"""What Consul says besides the list of instances: how each check fares and why, and which services there are. Pure."""

from collections import Counter
from collections.abc import Mapping

import msgspec

from registry.consul.codec import NODE_MAINTENANCE, SERVICE_MAINTENANCE
from registry.errors import InvalidAnswer


# Without gc: there are as many as instances, none is part of a cycle, and a collection among them holds the loop.
class CheckReport(msgspec.Struct, frozen=True, rename="pascal", gc=False):
    """One check. ``service_id`` is empty for a check of the machine, which counts for every instance on it.

    ``output`` is the check's own word and ``notes`` what it was registered with: the reason, for maintenance. Both are
    as they came, so not fit for a terminal.
    """

    check_id: str = msgspec.field(name="CheckID", default="")
    name: str = ""
    status: str = "critical"
    output: str = ""
    notes: str = ""
    service_id: str = msgspec.field(name="ServiceID", default="")

    @property
    def maintenance(self) -> bool:
        """Whether it is there to take its instance, or the whole machine, out of service."""
        return self.check_id == NODE_MAINTENANCE or self.check_id.startswith(SERVICE_MAINTENANCE)


class _Node(msgspec.Struct, rename="pascal"):
    node: str


class _Service(msgspec.Struct, rename="pascal"):
    service: str
    id: str = msgspec.field(name="ID", default="")


class _Entry(msgspec.Struct, rename="pascal"):
    node: _Node
    service: _Service
    checks: tuple[CheckReport, ...] | None = None


_ENTRIES = msgspec.json.Decoder(list[_Entry])
_SERVICES = msgspec.json.Decoder(dict[str, list[str] | None])


def decode_checks(body: bytes) -> Mapping[str, tuple[CheckReport, ...]]:
    """Checks in an answer of ``/v1/health/service``, by the id the instance has in a snapshot.

    Raises ``InvalidAnswer``.
    """
    try:
        entries = [(each.service.id or each.service.service, each) for each in _ENTRIES.decode(body)]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidAnswer(f"the registry's list of checks cannot be read: {error}") from error
    count = Counter(key for key, _ in entries)
    return {(key if count[key] == 1 else f"{key}@{each.node.node}"): each.checks or () for key, each in entries}


def decode_services(body: bytes) -> tuple[str, ...]:
    """Names in an answer of ``/v1/catalog/services``, in order. Raises ``InvalidAnswer``."""
    try:
        return tuple(sorted(_SERVICES.decode(body)))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidAnswer(f"the registry's list of services cannot be read: {error}") from error
