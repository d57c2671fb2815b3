"""What a dashboard asks a Consul: instances together with their checks, the names of services, the leader.

Instances and checks come from one answer, or a page could show a critical instance beside checks that all pass. Both
are decoded in steps, because the decoder holds the interpreter lock and so would hold the event loop (see
``registry.consul.codec``). A watch publishes when its list differs, so the checks are made part of what it compares.
"""

from collections.abc import Iterable, Iterator

import msgspec

from registry.consul.codec import duration, split
from registry.consul.http import Answer, ConsulHttp
from registry.consul.reads import ConsulReads
from registry.consul.reports import CheckReport, decode_services
from registry.errors import InvalidAnswer, PermissionDenied
from registry.model import Instance, Snapshot
from registry.timing import Clock
from registry.watch import WAIT, Reading, client_timeout

# Instances between two turns of the event loop, about 1 ms.
_SLICE = 1000
_LONGEST_LEADER = 256
_LEADER = msgspec.json.Decoder(str)

_Places = dict[tuple[str, str], tuple[CheckReport, ...]]


class Checked(Instance, frozen=True, kw_only=True, gc=False):
    """An instance as far as a watch looks at it; ``plain`` is the whole of it, and ``checks`` are its own."""

    plain: Instance
    checks: tuple[CheckReport, ...] = ()


class _Node(msgspec.Struct, rename="pascal", gc=False):
    node: str


class _Service(msgspec.Struct, rename="pascal", gc=False):
    service: str
    id: str = msgspec.field(name="ID", default="")


class _Entry(msgspec.Struct, rename="pascal", gc=False):
    node: _Node
    service: _Service
    checks: tuple[CheckReport, ...] | None = None


_ENTRIES = msgspec.json.Decoder(list[_Entry])


class CheckedReads(ConsulReads):
    """``ConsulReads`` whose instances are ``Checked``."""

    def __init__(self, http: ConsulHttp, clock: Clock) -> None:
        super().__init__(http, clock)
        self._turns = clock

    async def decode(self, answer: Answer) -> tuple[Instance, ...]:
        """See ``ConsulReads``; with the checks."""
        plain = await super().decode(answer)
        places = await self._places(answer)
        found: list[Instance] = []
        for start in range(0, len(plain), _SLICE):
            found += (_checked(each, places) for each in plain[start : start + _SLICE])
            await self._turns.sleep(0)
        return tuple(found)

    async def _places(self, answer: Answer) -> _Places:
        """Checks by machine and service id, which together are unique."""
        found: _Places = {}
        try:
            for part in split(answer.pieces):
                found.update(_read(part))
                await self._turns.sleep(0)
        except InvalidAnswer:
            # Cut inside an entry, as no Consul's answer can be; or no answer at all, which the whole of it tells.
            return dict(_read(answer.body))
        return found


async def read_services(http: ConsulHttp, clock: Clock, *, index: int, stale: bool) -> Reading:
    """Ask for the names of services as a watch asks for instances; each name comes as the id of one.

    So that following the catalog obeys the same rules as following a service. Raises ``RegistryError``.
    """
    settings = http.settings
    params: list[tuple[str, str | int]] = [("dc", settings.dc)] if settings.dc else []
    if stale:
        params.append(("stale", ""))
    if index:
        params += [("index", index), ("wait", duration(WAIT))]
    answer = await http.get("/v1/catalog/services", params, within=client_timeout(WAIT), blocking=True)
    names = decode_services(answer.body)
    if not names and answer.headers.get("x-consul-results-filtered-by-acls") == "true":
        raise PermissionDenied(
            f"{settings.source} hides its services; give a token with service:read and node:read in CONSUL_HTTP_TOKEN"
        )
    snapshot = Snapshot(
        service="",
        index=answer.number("x-consul-index"),
        instances=tuple(Instance(id=each, service=each, address="", port=0) for each in names),
        fetched_at=clock.time(),
        source=settings.source,
    )
    return Reading(snapshot, answer.size)


async def read_leader(http: ConsulHttp, *, within: float) -> str:
    """Return the leader's ``host:port``, empty when there is none now. Raises ``RegistryError`` after ``within`` s."""
    params = [("dc", http.settings.dc)] if http.settings.dc else []
    answer = await http.get("/v1/status/leader", params, within=within)
    try:
        return _LEADER.decode(answer.body)[:_LONGEST_LEADER]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidAnswer(
            f"{http.settings.source} answers about its leader as Consul would not; is the address right?"
        ) from error


def _read(body: bytes) -> Iterator[tuple[tuple[str, str], tuple[CheckReport, ...]]]:
    try:
        entries: Iterable[_Entry] = _ENTRIES.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidAnswer(f"the registry's list of checks cannot be read: {error}") from error
    return (((each.node.node, each.service.id or each.service.service), each.checks or ()) for each in entries)


def _checked(instance: Instance, places: _Places) -> Checked:
    # An id that stands on several machines has its machine appended in a list (``codec``).
    own = instance.id.removesuffix(f"@{instance.node}")
    checks = places.get((instance.node, instance.id)) or places.get((instance.node, own), ())
    return Checked(
        id=instance.id,
        service=instance.service,
        address=instance.address,
        port=instance.port,
        health=instance.health,
        plain=instance,
        checks=checks,
    )
