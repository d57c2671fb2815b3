"""The words of discovery, as frozen values: an instance, a snapshot of a service, the difference of two snapshots.

Nothing here does I/O or knows Consul's JSON (that is ``codec``). The same four words for health are used in code,
metrics, JSON and on screen.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Health(StrEnum):
    """What the registry says of an instance; ``draining`` is maintenance, on purpose, and no fault."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"
    DRAINING = "draining"


# Without gc: there are tens of thousands and none is part of a cycle; a collection among them held a loop for 0.2 s.
class Instance(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One running copy of a service, as a client sees it.

    ``weight`` is the weight at its present health (Consul keeps one for passing and one for warning); ``zone`` and
    ``version`` come from the metadata of the same names and are empty when not given.
    """

    id: str
    service: str
    address: str
    port: int
    health: Health = Health.PASSING
    node: str = ""
    zone: str = ""
    version: str = ""
    weight: int = 1
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = {}

    @property
    def endpoint(self) -> str:
        """``address:port``, with brackets round an IPv6 address."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """``http://address:port``; ``https`` when the metadata says ``scheme=https``."""
        return f"{self.meta.get('scheme', 'http')}://{self.endpoint}"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One service at one moment, instances ordered by id.

    ``fetched_at`` is seconds since the epoch; ``stale_for`` is how many seconds the answering server had been out of
    touch with its leader. ``saved``: it comes from disk, the registry being away (see ``coldstart``).
    """

    service: str
    index: int
    instances: tuple[Instance, ...]
    fetched_at: float
    stale_for: float = 0.0
    source: str = ""
    saved: bool = False


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """What turned one list of instances into the next; ``changed`` holds the new values."""

    added: tuple[Instance, ...] = ()
    removed: tuple[Instance, ...] = ()
    changed: tuple[Instance, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def diff(old: Snapshot | None, new: Snapshot) -> Delta:
    """What changed from ``old`` (None: from nothing) to ``new``, by instance id, each part ordered by id."""
    before = {} if old is None else {instance.id: instance for instance in old.instances}
    after = {instance.id: instance for instance in new.instances}
    return Delta(
        added=tuple(instance for key, instance in after.items() if key not in before),
        removed=tuple(instance for key, instance in before.items() if key not in after),
        changed=tuple(instance for key, instance in after.items() if key in before and before[key] != instance),
    )
