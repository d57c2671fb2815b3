"""What the embedded registry knows: services and checks, as a state machine of plain calls that are given ``now``.

It does no I/O and starts nothing. Records are values: a list of them is a picture of that moment. Semantics are those
observed of Consul's agent: checks start critical unless told otherwise; registering again keeps the status of a check
with the same id; a change of check output alone is no change of the index. ``now`` is monotonic seconds.
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec
from msgspec.structs import replace

from registry.consul.codec import NODE_MAINTENANCE, SERVICE_MAINTENANCE

LEAST_REAP = 60.0
_NO_REASON = "no reason was given"


class Index:
    """Consul's index: one number that every change raises; ``on_bump`` is told of each."""

    def __init__(self, value: int = 1) -> None:
        self.value = value
        self.on_bump: Callable[[], None] = lambda: None

    def bump(self) -> int:
        """Count one change and return its index."""
        self.value += 1
        self.on_bump()
        return self.value


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """How a check is made: exactly one of ``http``, ``tcp``, ``ttl``. Times are seconds."""

    http: str = ""
    method: str = "GET"
    header: Mapping[str, list[str]] = {}
    body: str = ""
    verify_tls: bool = True
    tcp: str = ""
    ttl: float = 0.0
    interval: float = 0.0
    timeout: float = 10.0
    reap_after: float = 0.0

    @property
    def kind(self) -> str:
        """Consul's name for it."""
        return "http" if self.http else "tcp" if self.tcp else "ttl" if self.ttl else "maintenance"


class CheckRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One check. ``service_id`` is empty for a check of the machine."""

    id: str
    name: str
    service_id: str = ""
    status: str = "critical"
    notes: str = ""
    output: str = ""
    probe: Probe = Probe()
    create_index: int = 0
    modify_index: int = 0


class ServiceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One registered instance, as it was given."""

    id: str
    service: str
    address: str = ""
    port: int = 0
    tags: list[str] = []
    meta: dict[str, str] = {}
    weights: tuple[int, int] = (1, 1)
    enable_tag_override: bool = False
    tagged_addresses: dict[str, tuple[str, int]] = {}
    create_index: int = 0
    modify_index: int = 0


class UnknownId(KeyError):
    """No service or check has this id."""


class Catalog:
    """Services and checks by id. Everything that changes what can be read bumps the index.

    ``on_check`` is told the id of every check that was added, replaced or forgotten. ``changed_at`` is the index of
    the last change. What is kept of a service goes with its last instance: ever-new names leave nothing behind.
    """

    def __init__(self, index: Index) -> None:
        self.services: dict[str, ServiceRecord] = {}
        self.checks: dict[str, CheckRecord] = {}
        self.on_check: Callable[[str], None] = lambda _: None
        self.changed_at = index.value
        self._index = index
        self._named: dict[str, dict[str, ServiceRecord]] = {}  # instances by name in lower case and by id
        self._checks_of: dict[str, dict[str, CheckRecord]] = {}  # checks by service id and by id
        self._service_changed_at: dict[str, int] = {}
        self._all_changed_at = index.value
        self._last_gone_at = index.value  # when a service last lost its last instance
        self._due: dict[str, float] = {}  # a TTL check's next silence
        self._critical_since: dict[str, float] = {}

    def register(
        self, service: ServiceRecord, checks: Iterable[CheckRecord], now: float, *, replace_checks: bool = False
    ) -> None:
        """Add an instance, or replace the one with its id; ``replace_checks`` drops checks that are not given."""
        old = self.services.get(service.id)
        index = self._index.bump()
        if old is not None and old.service != service.service:
            self._leave(old)
        self._join(replace(service, create_index=old.create_index if old else index, modify_index=index))
        self._touch(service.service)
        given = list(checks)
        if replace_checks:
            kept = {check.id for check in given}
            for check in self.checks_of(service.id):
                if check.id not in kept:
                    self._drop(check)
        for check in given:
            self.add_check(check, now)

    def deregister(self, service_id: str) -> None:
        """Forget an instance and its checks. Raises ``UnknownId``."""
        service = self.services.get(service_id)
        if service is None:
            raise UnknownId(service_id)
        self._index.bump()
        for check in self.checks_of(service_id):
            self._drop(check)
        self._leave(service)

    def add_check(self, check: CheckRecord, now: float) -> None:
        """Add a check, or replace the one with its id, whose status it inherits. Raises ``UnknownId``."""
        if check.service_id and check.service_id not in self.services:
            raise UnknownId(check.service_id)
        index = self._index.bump()
        old = self.checks.get(check.id)
        if old is not None:
            if old.service_id != check.service_id:
                self._drop(old)
            check = replace(check, status=old.status, output=old.output)
        self._put(replace(check, create_index=old.create_index if old else index, modify_index=index), now)
        self._touch_check(check)
        self.on_check(check.id)

    def remove_check(self, check_id: str) -> None:
        """Forget a check. Raises ``UnknownId``."""
        check = self.checks.get(check_id)
        if check is None:
            raise UnknownId(check_id)
        self._index.bump()
        self._drop(check)

    def report(self, check_id: str, status: str, output: str, now: float) -> None:
        """Set a check's status; a TTL check has spoken. A check that is gone is left alone."""
        check = self.checks.get(check_id)
        if check is None:
            return
        if check.status == status:
            self._put(replace(check, output=output), now)
            return
        self._put(replace(check, status=status, output=output, modify_index=self._index.bump()), now)
        self._touch_check(check)

    def maintenance(self, service_id: str, on: bool, reason: str, now: float) -> None:
        """Put an instance (empty id: the whole machine) in maintenance, or end that. Raises ``UnknownId``."""
        if service_id and service_id not in self.services:
            raise UnknownId(service_id)
        check_id = SERVICE_MAINTENANCE + service_id if service_id else NODE_MAINTENANCE
        if on and check_id not in self.checks:
            name = "Service Maintenance Mode" if service_id else "Node Maintenance Mode"
            notes = reason or f"Maintenance mode is on; {_NO_REASON}"
            self.add_check(CheckRecord(id=check_id, name=name, service_id=service_id, notes=notes), now)
        elif not on and check_id in self.checks:
            self.remove_check(check_id)

    def tick(self, now: float) -> None:
        """Let time pass: silent TTL checks go critical, instances critical for too long are forgotten."""
        for check_id, due in list(self._due.items()):
            if now >= due and self.checks[check_id].status != "critical":
                self.report(check_id, "critical", "TTL expired", now)
        for check_id, since in list(self._critical_since.items()):
            check = self.checks.get(check_id)  # an instance with two such checks is gone after the first
            if check is not None and check.probe.reap_after and now - since >= max(LEAST_REAP, check.probe.reap_after):
                self.deregister(check.service_id)

    def index_of(self, service: str) -> int:
        """The index of the last change to a service; of one that is not there, of the last disappearance of any."""
        return max(self._service_changed_at.get(service.lower(), self._last_gone_at), self._all_changed_at)

    def named(self, service: str) -> list[ServiceRecord]:
        """Instances of a service by id; Consul's names do not mind case."""
        found = self._named.get(service.lower(), {})
        return [found[key] for key in sorted(found)]

    def checks_of(self, service_id: str) -> list[CheckRecord]:
        """The checks of one instance (empty id: of the machine), by id."""
        found = self._checks_of.get(service_id, {})
        return [found[key] for key in sorted(found)]

    def restore(self, services: Iterable[ServiceRecord], checks: Iterable[CheckRecord], now: float) -> None:
        """Take over what a file held; silence and critical time are counted from ``now``."""
        for service in services:
            self._join(service)
            self._touch(service.service)
        for check in checks:
            self._put(check, now)

    def _join(self, service: ServiceRecord) -> None:
        self.services[service.id] = service
        self._named.setdefault(service.service.lower(), {})[service.id] = service

    def _leave(self, service: ServiceRecord) -> None:
        del self.services[service.id]
        self._touch(service.service)
        name = service.service.lower()
        del self._named[name][service.id]
        if not self._named[name]:
            del self._named[name], self._service_changed_at[name]
            self._last_gone_at = self._index.value

    def _put(self, check: CheckRecord, now: float) -> None:
        self.checks[check.id] = check
        self._checks_of.setdefault(check.service_id, {})[check.id] = check
        if check.probe.ttl:
            self._due[check.id] = now + check.probe.ttl
        else:
            self._due.pop(check.id, None)
        if check.status == "critical" and check.service_id:
            self._critical_since.setdefault(check.id, now)
        else:
            self._critical_since.pop(check.id, None)

    def _drop(self, check: CheckRecord) -> None:
        for table in (self.checks, self._due, self._critical_since):
            table.pop(check.id, None)
        siblings = self._checks_of[check.service_id]
        del siblings[check.id]
        if not siblings:
            del self._checks_of[check.service_id]
        self._touch_check(check)
        self.on_check(check.id)

    def _touch(self, service: str) -> None:
        self._service_changed_at[service.lower()] = self.changed_at = self._index.value

    def _touch_check(self, check: CheckRecord) -> None:
        if check.service_id:
            self._touch(self.services[check.service_id].service)
        else:
            self._all_changed_at = self.changed_at = self._index.value
