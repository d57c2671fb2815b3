"""Reading the instances of a service from Consul: stale by default, and who to ask when that is not good enough.

With its leader gone a cluster goes on answering stale reads. An answer that is too old by its own word is asked again
of the leader, once and not too often; a confirming read takes neither a server's nor an agent's memory for an answer.
An empty list may be access control at work: newer agents say so in a header, but to nobody without a token, and older
ones to nobody at all, so the agent's own view of the service, which is refused in words, is asked too.
"""

from collections.abc import Mapping

from registry.consul.codec import decode_in_steps, duration
from registry.consul.http import TIMEOUT, Answer, ConsulHttp
from registry.consul.reports import CheckReport, decode_checks, decode_services
from registry.errors import PermissionDenied, RegistryError
from registry.model import Instance, Snapshot
from registry.query import Query
from registry.timing import Clock
from registry.watch import WAIT, Reading, client_timeout

# Servers normally hear from their leader several times a second.
STALE_BOUND = 5.0
REASK_EVERY = 10.0
# Instances between two turns of the event loop, about 1 ms.
_SLICE = 2000


class ConsulReads:
    """The questions one directory asks."""

    def __init__(self, http: ConsulHttp, clock: Clock) -> None:
        self._http = http
        self._clock = clock
        self._next_reask = 0.0

    async def lookup(self, query: Query) -> Snapshot:
        """Ask once, now. Raises ``RegistryError``."""
        return (await self._fresh(query, index=0, blocking=False)).snapshot

    async def read(self, query: Query, *, index: int, stale: bool) -> Reading:
        """Ask as a watch does: see ``registry.watch.Reader``."""
        if stale:
            return await self._fresh(query, index=index, blocking=True)
        return await self.ask(query, index=index, stale=False, blocking=True)

    async def ask(
        self, query: Query, *, index: int = 0, stale: bool = True, blocking: bool = False, within: float = TIMEOUT
    ) -> Reading:
        """Ask one question, for a watch if ``blocking``. Not ``stale``: of the leader, past all agents' memories."""
        settings = self._http.settings
        params: list[tuple[str, str | int]] = []
        if query.passing_only:
            params.append(("passing", "1"))
        if query.tag:
            params.append(("tag", query.tag))
        if settings.dc:
            params.append(("dc", settings.dc))
        if stale:
            params += [("stale", ""), ("cached", "")] if settings.cached else [("stale", "")]
        if index:
            params += [("index", index), ("wait", duration(WAIT))]
        answer = await self._http.get(
            f"/v1/health/service/{query.service}",
            params,
            within=client_timeout(WAIT) if index else within,
            blocking=blocking,
        )
        found = await self.decode(answer)
        calls = 1
        if not found and answer.headers.get("x-consul-results-filtered-by-acls") == "true":
            raise self._hidden(query.service)
        if not found and not (stale and blocking):
            # A watch has its empty lists confirmed, so it need not ask every time.
            await self._ensure_visible(query.service)
            calls += 1
        snapshot = Snapshot(
            service=query.service,
            index=answer.number("x-consul-index"),
            instances=await self._wanted(found, query),
            fetched_at=self._clock.time(),
            # How far the server was behind, and for how long the agent's memory has been without a server.
            stale_for=answer.number("x-consul-lastcontact") / 1000 + answer.number("age"),
            source=settings.source,
        )
        return Reading(snapshot, answer.size, calls)

    async def checks(self, service: str) -> Mapping[str, tuple[CheckReport, ...]]:
        """Return the checks of each instance, by its id in a snapshot. For people: a large answer holds the loop."""
        return decode_checks((await self._http.get(f"/v1/health/service/{service}", self._anywhere())).body)

    async def services(self) -> tuple[str, ...]:
        """Return the names of all services."""
        return decode_services((await self._http.get("/v1/catalog/services", self._anywhere())).body)

    async def _fresh(self, query: Query, *, index: int, blocking: bool) -> Reading:
        reading = await self.ask(query, index=index, blocking=blocking)
        now = self._clock.monotonic()
        if reading.snapshot.stale_for <= STALE_BOUND or now < self._next_reask:
            return reading
        self._next_reask = now + REASK_EVERY
        try:
            fresh = await self.ask(query, stale=False, blocking=blocking)
        except RegistryError:
            # No leader to ask: old news is better than none, and it says how old it is.
            return Reading(reading.snapshot, reading.size, calls=2)
        return Reading(fresh.snapshot, fresh.size, calls=2)

    def _anywhere(self) -> list[tuple[str, str | int]]:
        dc = self._http.settings.dc
        return [("stale", ""), *([("dc", dc)] if dc else [])]

    async def decode(self, answer: Answer) -> tuple[Instance, ...]:
        """Return the instances in an answer; who wants more of them than that does more here."""
        steps = decode_in_steps(answer.pieces)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            await self._clock.sleep(0)

    async def _wanted(self, found: tuple[Instance, ...], query: Query) -> tuple[Instance, ...]:
        wanted: list[Instance] = []
        for start in range(0, len(found), _SLICE):
            if start:
                await self._clock.sleep(0)
            wanted += filter(query.wants, found[start : start + _SLICE])
        return tuple(wanted)

    async def _ensure_visible(self, service: str) -> None:
        if self._http.settings.dc:
            return  # the agent answers for its own datacenter only
        path = f"/v1/agent/health/service/name/{service}"
        try:
            await self._http.get(path, [("format", "json")], expect={404, 429, 503})
        except PermissionDenied as error:
            raise self._hidden(service) from error
        except RegistryError:
            pass  # the list was good; this was about its reason

    def _hidden(self, service: str) -> PermissionDenied:
        return PermissionDenied(
            f"{self._http.settings.source} hides the instances of {service}; "
            "give a token with service:read and node:read in CONSUL_HTTP_TOKEN"
        )
