"""Making checks: HTTP and TCP probes on their intervals, and the clock that TTLs and reaping go by.

One task per probed check, started and ended as the catalog changes. What counts as what is Consul's: 2xx passes, 429
warns, anything else and no answer is critical. The first probe comes after a random part of the interval, so that
checks registered together do not run together.
"""

import asyncio
import random
from urllib.parse import urlsplit

import aiohttp

from registry.embedded.catalog import Catalog, Probe
from registry.timing import Clock

TICK = 0.25
# As much of an answer as Consul keeps.
_OUTPUT = 4096


class CheckRunner:
    """Runs the checks of a catalog between ``start`` and ``close``."""

    def __init__(self, catalog: Catalog, *, clock: Clock, rng: random.Random) -> None:
        self._catalog = catalog
        self._clock = clock
        self._rng = rng
        self._session: aiohttp.ClientSession | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._running: dict[str, tuple[Probe, asyncio.Task[None]]] = {}

    async def start(self) -> None:
        """Begin; call it in the loop that is to run the checks."""
        # A fresh connection each time: a kept one would fail once after the service restarted.
        connector = aiohttp.TCPConnector(force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, headers={"User-Agent": "twostep-embedded-registry"})
        self._ticker = asyncio.create_task(self._tick())
        self._catalog.on_check = self.follow
        for check_id in self._catalog.checks:
            self.follow(check_id)

    async def close(self) -> None:
        """End all probes."""
        tasks = [task for _, task in self._running.values()] + ([self._ticker] if self._ticker else [])
        self._running, self._ticker = {}, None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def follow(self, check_id: str) -> None:
        """Start or end the probe of a check so that it is the catalog's."""
        if self._ticker is None or self._session is None:
            return
        check = self._catalog.checks.get(check_id)
        probe = check.probe if check is not None and check.probe.interval else None
        known, task = self._running.get(check_id, (None, None))
        if known == probe:
            return
        if task is not None:
            task.cancel()
            del self._running[check_id]
        if probe is not None:
            task = asyncio.create_task(self._probe_for_ever(self._session, check_id, probe))
            self._running[check_id] = (probe, task)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK)
            self._catalog.tick(self._clock.monotonic())

    async def _probe_for_ever(self, session: aiohttp.ClientSession, check_id: str, probe: Probe) -> None:
        await self._clock.sleep(self._rng.random() * probe.interval)
        while True:
            status, output = await self._probe(session, probe)
            self._catalog.report(check_id, status, output[:_OUTPUT], self._clock.monotonic())
            await self._clock.sleep(probe.interval)

    async def _probe(self, session: aiohttp.ClientSession, probe: Probe) -> tuple[str, str]:
        try:
            async with asyncio.timeout(probe.timeout):
                return await (self._http(session, probe) if probe.http else self._tcp(probe))
        except TimeoutError:
            return "critical", f"{probe.http or probe.tcp}: no answer within {probe.timeout:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return "critical", f"{probe.http or probe.tcp}: {error}"

    async def _http(self, session: aiohttp.ClientSession, probe: Probe) -> tuple[str, str]:
        headers = [(name, value) for name, values in probe.header.items() for value in values]
        async with session.request(
            probe.method,
            probe.http,
            headers=headers,
            data=probe.body or None,
            ssl=probe.verify_tls,
        ) as reply:
            text = (await reply.content.read(_OUTPUT)).decode(errors="replace")
        status = "passing" if 200 <= reply.status < 300 else "warning" if reply.status == 429 else "critical"
        return status, f"HTTP {probe.method} {probe.http}: {reply.status} {reply.reason} Output: {text}"

    async def _tcp(self, probe: Probe) -> tuple[str, str]:
        where = urlsplit(f"tcp://{probe.tcp}")
        _, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.close()
        await writer.wait_closed()
        return "passing", f"TCP connect {probe.tcp}: Success"
