"""Tells a dashboard every few seconds what this client does; off unless an address is given.

The address comes with the client, else from TWOSTEP_DASHBOARD; a bearer token, sent nowhere else, from
TWOSTEP_DASHBOARD_TOKEN_FILE, a file read again at every report, else from TWOSTEP_DASHBOARD_TOKEN. Reports go from a
task of their own, over a connection of their own, and no call ever waits for one: a dashboard that is away, slow or
hostile costs its reports and nothing else. A report that is not taken is dropped; the next one is about the time since.
"""

import asyncio
import logging
import os
import random
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec

from registry.dashboard.wire import MOST_NODES, PATH, PERIOD, Buckets, NodeReport, Report
from registry.errors import ConfigurationError
from registry.timing import Clock
from registry.token import Token
from registry.waiting import cancel, done_within, within
from registry.wording import printable
from smartclient.balancer import Balancer
from smartclient.call import Caller, End
from smartclient.endpoint import Endpoint
from smartclient.episode import Episode
from smartclient.errors import BadOption
from smartclient.stats import NEUTRAL, Outcome, bucket_of, upper_edge

log = logging.getLogger(__name__)

ADDRESS, NAME = "TWOSTEP_DASHBOARD", "TWOSTEP_CLIENT_NAME"
TOKEN, TOKEN_FILE = "TWOSTEP_DASHBOARD_TOKEN", "TWOSTEP_DASHBOARD_TOKEN_FILE"
SEND_WITHIN = 2.0  # seconds
LAST_WITHIN = 0.5  # seconds that closing a client may take longer for it
LONGEST_PAUSE = 60.0  # seconds, while the dashboard is away
LONGEST_PERIOD = 110.0  # seconds; what was counted over more (the machine slept) is no rate
LEAST_PERIOD = 1.0  # seconds; a dashboard takes no two reports within less
LONGEST_NAME = 256

_EDGES = tuple(float(f"{upper_edge(number) * 1000:.5g}") for number in range(170))  # milliseconds, short as JSON


class Dashboard(msgspec.Struct, frozen=True, kw_only=True):
    """Where reports go, with what token, and what the client is called there; ``name`` empty: it makes one up."""

    url: str
    token: Token
    name: str = ""

    @classmethod
    def of(cls, address: str | None, name: str | None, environment: Mapping[str, str]) -> Self | None:
        """Return the dashboard at ``address``; None takes the environment's, and an empty one is none: None.

        Raises ``BadOption``.
        """
        given, address = ("reporter", address) if address is not None else (ADDRESS, environment.get(ADDRESS, ""))
        if not address:
            return None
        name = name or environment.get(NAME, "")
        if len(name) > LONGEST_NAME:
            raise BadOption(f"reporter_name: a client's name is at most {LONGEST_NAME} characters long")
        path = environment.get(TOKEN_FILE, "")
        try:
            token = Token("" if path else environment.get(TOKEN, ""), Path(path) if path else None)
        except ConfigurationError as error:
            raise BadOption(f"{TOKEN_FILE if path else TOKEN}: {error}") from error
        return cls(url=_base(given, address) + PATH, token=token, name=name)


class _Tally:
    """Attempts at one instance that ended within the period; ``buckets``: what the good ones took."""

    __slots__ = ("buckets", "failed", "ok", "overloaded")

    def __init__(self) -> None:
        self.ok = self.failed = self.overloaded = 0
        self.buckets: dict[int, int] = {}


class Reporter:
    """The reports of one client, from ``start`` to ``close``. Reads ``caller``'s counts, looks on at ``balancer``'s."""

    def __init__(
        self,
        dashboard: Dashboard,
        balancer: Balancer,
        caller: Caller,
        *,
        service: str,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._dashboard = dashboard
        self._balancer = balancer
        self._caller = caller
        self._service = service
        self._clock = clock
        self._rng = random.Random(rng.getrandbits(64))  # its own, so that the client's picks stay the same
        self._name = dashboard.name or f"{socket.gethostname()[:200]}-{os.getpid()}-{self._rng.getrandbits(16):04x}"
        self._tallies: dict[str, _Tally] = {}
        self._counted = self._counts()
        self._latencies = list(caller.latencies.buckets)
        self._since = 0.0
        self._failures = 0
        self._sent = self._dropped = 0
        self._last_error = ""
        self._away = Episode(
            log, service, begins="the dashboard takes no reports", ends="the dashboard takes reports again"
        )
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        balancer.observer = self._settled

    def start(self) -> None:
        """Begin, in the running event loop; again is fine and quick."""
        if self._task is None:
            self._since = self._clock.monotonic()
            self._task = asyncio.create_task(self._run(), name=f"reports of {self._service}")

    async def close(self) -> None:
        """Send a last report if that takes no longer than ``LAST_WITHIN``, and end."""
        self._closing.set()
        self._balancer.observer = None
        if self._task is not None:
            try:
                await done_within(LAST_WITHIN, self._task, self._clock)
            finally:
                await cancel(self._task)

    def snapshot(self) -> dict[str, Any]:
        """Return how many reports were taken and how many dropped, and why the last one was."""
        return {"sent": self._sent, "dropped": self._dropped, "last_error": self._last_error}

    async def _run(self) -> None:
        pause = PERIOD * (0.2 + 0.8 * self._rng.random())  # clients that begin together spread at once
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        ) as session:
            while not self._closing.is_set():
                await within(pause, self._closing.wait(), self._clock)
                now = self._clock.monotonic()
                soon = now - self._since < LEAST_PERIOD
                if self._closing.is_set() and (self._failures or (self._sent and soon)):
                    return
                await self._report(session, now)
                longer = min(LONGEST_PAUSE, PERIOD * 2.0 ** min(self._failures, 10))
                pause = longer * (0.9 + 0.2 * self._rng.random())

    async def _report(self, session: aiohttp.ClientSession, now: float) -> None:
        period = max(LEAST_PERIOD, now - self._since)  # one who lived for less says so of a second
        report = self._made(now, period)
        if period > LONGEST_PERIOD:
            self._dropped += 1
            return
        error = await self._post(session, msgspec.json.encode(report))
        now = self._clock.monotonic()
        if error:
            self._failures += 1
            self._dropped += 1
            self._last_error = error
            self._away.seen(now, error)
        else:
            self._failures = 0
            self._sent += 1
            self._away.over(now)

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> str:
        """Send a report; why it was not taken, empty when it was."""
        sending = asyncio.create_task(self._status(session, body))
        try:
            if not await done_within(SEND_WITHIN, sending, self._clock):
                return f"no answer from {self._dashboard.url} within {SEND_WITHIN:g} s"
            status = sending.result()
        except Exception as error:  # noqa: BLE001 - whatever a hostile dashboard provokes, the next report is tried
            reason = self._dashboard.token.hide(str(error) or type(error).__name__)
            return f"no answer from {self._dashboard.url}: {printable(reason)}"
        finally:
            await cancel(sending)
        if status < 300:
            return ""
        hint = f"; give a token it takes in {TOKEN_FILE}" if status in {401, 403} else ""
        return f"{self._dashboard.url} answered {status}{hint}"

    async def _status(self, session: aiohttp.ClientSession, body: bytes) -> int:
        headers = {"Content-Type": "application/json"}
        if token := self._dashboard.token.read():
            headers["Authorization"] = f"Bearer {token}"
        # Not followed: a redirect would take the token elsewhere. What the answer says is of no interest, nor read.
        async with session.post(self._dashboard.url, data=body, headers=headers, allow_redirects=False) as response:
            return response.status

    def _settled(self, endpoint: Endpoint, outcome: Outcome, seconds: float) -> None:
        """Count an attempt that has ended."""
        tally = self._tallies.get(endpoint.name)
        if tally is None:
            tally = self._tallies[endpoint.name] = _Tally()
        if outcome is Outcome.OK:
            tally.ok += 1
            bucket = bucket_of(seconds)
            tally.buckets[bucket] = tally.buckets.get(bucket, 0) + 1
        elif outcome is Outcome.OVERLOADED:
            tally.overloaded += 1
        elif outcome not in NEUTRAL:
            tally.failed += 1

    def _counts(self) -> tuple[int, int, int, int, int]:
        """Calls that ended, other than by their caller's leaving, and those of them that failed; what they cost."""
        caller = self._caller
        ended = sum(caller.ends.values()) - caller.ends[End.CANCELLED]
        return ended, ended - caller.ends[End.OK], caller.retries, caller.hedges, caller.ends[End.THROTTLED]

    def _made(self, now: float, period: float) -> Report:
        """Return the report of the period that ends now, and begin the next one."""
        counts, before = self._counts(), self._counted
        latencies, earlier = list(self._caller.latencies.buckets), self._latencies
        tallies = self._tallies
        self._counted, self._latencies, self._tallies, self._since = counts, latencies, {}, now
        calls, failed, retries, hedges, throttled = (new - old for new, old in zip(counts, before, strict=True))
        grown = {number: new - old for number, (new, old) in enumerate(zip(latencies, earlier, strict=True))}
        return Report(
            client=self._name,
            service=self._service,
            period=period,
            policy=self._balancer.policy.name,
            calls=calls,
            failed=failed,
            in_flight=self._caller.in_flight,
            retries=retries,
            hedges=hedges,
            throttled=throttled,
            budget_left=self._caller.snapshot()["retries_left"],
            latencies=_buckets(grown),
            nodes=self._nodes(tallies, now),
        )

    def _nodes(self, tallies: dict[str, _Tally], now: float) -> list[NodeReport]:
        """Those with something to say; of more than a report may hold, those that are left out and the busiest."""
        standing: dict[str, tuple[int, str]] = {}
        for endpoint in self._balancer.endpoints:
            if endpoint.in_flight or not endpoint.breaker.calm:
                word = endpoint.breaker.state(now)
                if endpoint.in_flight or word != "closed":
                    standing[endpoint.name] = (endpoint.in_flight, "" if word == "closed" else word)
        quiet = _Tally()
        nodes = []
        for name in tallies.keys() | standing.keys():
            tally = tallies.get(name, quiet)
            in_flight, state = standing.get(name, (0, ""))
            nodes.append(
                NodeReport(
                    instance=name,
                    ok=tally.ok,
                    failed=tally.failed,
                    overloaded=tally.overloaded,
                    in_flight=in_flight,
                    state=state,
                    latencies=_buckets(tally.buckets),
                )
            )
        nodes.sort(key=lambda each: (not each.state, -each.ok - each.failed - each.overloaded, each.instance))
        return nodes[:MOST_NODES]


def _buckets(counts: Mapping[int, int]) -> Buckets:
    return [(_EDGES[number], count) for number, count in sorted(counts.items()) if count]


def _base(given: str, address: str) -> str:
    """Return an address without what is too much; ``given`` says where it stands."""
    if "@" in address:
        # Not shown: what stands before the @ is likely to be a secret.
        raise BadOption(f"{given}: the address of a dashboard holds no user or token; give the token in {TOKEN_FILE}")
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or not address.isprintable() or " " in address:
        example = "give one such as http://127.0.0.1:8600"
        raise BadOption(f"{given}={printable(address)!r} is not the address of a dashboard; {example}")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
