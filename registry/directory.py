"""The seam between the project and whatever knows which instances are alive.

``tests/contracts/test_directory.py`` states the law every implementation keeps; ``consul`` (which the embedded
registry also answers) and ``static`` are the implementations.
"""

from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Protocol, Unpack

import msgspec

from registry.model import Snapshot
from registry.query import Filters


class HttpCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The registry asks ``url`` every ``interval`` seconds; 2xx passes, 429 warns, all else is critical.

    ``tls_skip_verify``: any certificate will do, for one whose authority the registry's machine does not know. The
    registry shows none of its own: an instance that demands one reports itself (``TtlCheck``).
    """

    url: str
    interval: float = 2.0
    timeout: float = 1.0
    tls_skip_verify: bool = False


class TcpCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The registry opens a connection to ``address`` (``host:port``) every ``interval`` seconds."""

    address: str
    interval: float = 2.0
    timeout: float = 1.0


class TtlCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The instance itself reports; silence for ``ttl`` seconds is critical.

    Keep ``ttl`` at three beats or more and at 15 s or more: a loaded agent has been seen taking 12 s over one beat.
    """

    ttl: float = 15.0


Check = HttpCheck | TcpCheck | TtlCheck


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance says of itself. It is registered *passing*, so register after warm-up.

    ``deregister_after``: seconds of being critical after which the registry forgets it; Consul's least is 60.
    """

    service: str
    id: str
    address: str
    port: int
    check: Check | None = None
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = {}
    zone: str = ""
    version: str = ""
    weight: int = 1
    warning_weight: int = 1
    deregister_after: float | None = 600.0


class WatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a watch is doing.

    ``last_good_at``: seconds since the epoch of the last good answer, changed or not. ``failures``: bad answers in a
    row. ``suspect``: the last answer lacked more than half of the list, which stands until a second one agrees.
    """

    live: bool
    last_good_at: float | None = None
    failures: int = 0
    last_error: str = ""
    suspect: bool = False


class Watch(Protocol):
    """An endless iterator of snapshots: the first good one, then one for each real change.

    It never raises for an outage: it waits, asks again and keeps quiet; ``status()`` tells. ``aclose()`` ends it, and
    so does cancelling the task that awaits it.
    """

    def __aiter__(self) -> AsyncIterator[Snapshot]: ...

    def __anext__(self) -> Awaitable[Snapshot]: ...

    def status(self) -> WatchStatus:
        """How it is doing now."""
        ...

    async def aclose(self) -> None:
        """End it and give its connection back; calling it twice is fine."""
        ...


class Directory(Protocol):
    """Which instances of a service are alive and where, and a way to say so of oneself.

    Filters are those of ``registry.query.Query``: ``tag``, ``zone``, ``version`` and ``meta`` leave out what does not
    match; ``passing_only`` (the default) leaves out all but passing ones, otherwise every instance is given with its
    health. An unknown service is an empty snapshot.
    """

    @property
    def source(self) -> str:
        """Where answers come from, for people: ``consul://127.0.0.1:8500``. Never holds a token."""
        ...

    async def lookup(self, service: str, **filters: Unpack[Filters]) -> Snapshot:
        """Ask once. Raises ``RegistryError``."""
        ...

    def watch(self, service: str, **filters: Unpack[Filters]) -> Watch:
        """Follow a service; nothing is sent before the first ``anext``."""
        ...

    async def register(self, registration: Registration) -> None:
        """Make an instance known, or replace the one with the same id. Raises ``RegistryError``."""
        ...

    async def registered(self, registration: Registration) -> bool:
        """Whether the registry still knows this instance (an agent that lost its data does not).

        Raises ``RegistrationRefused`` when its id now belongs to a living instance at another address.
        """
        ...

    async def beat(self, instance_id: str, note: str = "") -> None:
        """Report an instance with a ``TtlCheck`` as passing. Raises ``UnknownInstance`` when it was forgotten."""
        ...

    async def maintenance(self, instance_id: str, on: bool, reason: str = "") -> None:
        """Take an instance out of service (``draining``) or back in. Raises ``UnknownInstance``."""
        ...

    async def deregister(self, instance_id: str) -> None:
        """Forget an instance; forgetting an unknown one is no error."""
        ...

    async def close(self) -> None:
        """Give connections back; watches end."""
        ...
