"""What the client costs: beside bare aiohttp, beside ``requests``, for each pick, and for each node it knows.

Servers that do next to nothing (``infra.bench.sink``) are found through a real registry and its watch; ejection,
retries and metrics are on. Bare aiohttp is a default ``ClientSession`` rotating over the same URLs. The arms take turns
in short slices within one run, each first as often as the other, and a ratio is the median over the slices: what else
the machine does then weighs on both. 32 calls at a time from one process over two servers keep the client's core the
one that is full; where a server's was, the ratio would be 1 for any client.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
import requests
from prometheus_client import CollectorRegistry

from infra.bench.child import running
from infra.bench.picks import bytes_per_endpoint, flatness, pick_costs
from infra.fleet import LocalFleet
from registry.connect import connect
from registry.directory import Registration
from smartclient import AsyncSmartClient, SmartClient
from smartclient.metrics import collect
from smartclient.policies.select import DEFAULT

SERVICE = "sink"
SERVERS = 2
AT_ONCE = 32
SIZES = {"1kb": 1000, "100kb": 100_000}  # bytes
POLICIES = ("rotation", "p2c", "prequal", DEFAULT)


@dataclass(frozen=True)
class Effort:
    """How much to do: slices of each arm and calls in a slice; rounds of all sizes and picks in a turn."""

    slices: int = 60
    calls: int = 1000
    blocking_calls: int = 300
    rounds: int = 12
    picks: int = 10_000


def run(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything and return it; see ``docs/benchmarks.md`` for the keys. Raises ``FleetError``."""
    with _service() as (registry, urls):
        result = _beside_aiohttp(registry, urls, effort, say) | _beside_requests(registry, urls[0], effort, say)
    costs = {}
    for policy in dict.fromkeys(POLICIES):
        say(f"picking with {policy}")
        costs[policy] = pick_costs(policy, picks=effort.picks, rounds=effort.rounds)
    return result | {
        "pick_us": {
            policy: {size: round(statistics.median(each), 2) for size, each in of.items()}
            for policy, of in costs.items()
        },
        "pick_flatness": {policy: round(flatness(of), 3) for policy, of in costs.items()},
        "bytes_per_endpoint": bytes_per_endpoint(DEFAULT),
        "default": DEFAULT,
        "slices": effort.slices,
    }


@contextmanager
def _service() -> Iterator[tuple[str, list[str]]]:
    """A registry that lists the servers: its address, and theirs."""
    with LocalFleet() as fleet, ExitStack() as servers:
        fleet.start_registry()
        urls = [servers.enter_context(running("infra.bench.sink")) for _ in range(SERVERS)]
        asyncio.run(_register(fleet, urls))
        yield fleet.address, urls


async def _register(fleet: LocalFleet, urls: Sequence[str]) -> None:
    await fleet.wait_passing(SERVICE, 0)
    directory = connect(fleet.address)
    for number, url in enumerate(urls):
        host, _, port = url.removeprefix("http://").partition(":")
        await directory.register(Registration(service=SERVICE, id=f"sink-{number}", address=host, port=int(port)))
    await directory.close()


def _beside_aiohttp(registry: str, urls: Sequence[str], effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    async def start() -> tuple[AsyncSmartClient, aiohttp.ClientSession]:
        return AsyncSmartClient(SERVICE, registry=registry), aiohttp.ClientSession()

    async def stop() -> None:
        await client.close()
        await session.close()

    def beside(name: str) -> dict[str, Any]:
        body, rotation = bytes(SIZES[name]), itertools.cycle(f"{url}/classify" for url in urls)
        slices = _slices(
            lambda: runner.run(_rate(partial(_smart, client, body), effort.calls)),
            lambda: runner.run(_rate(partial(_bare, session, rotation, body), effort.calls)),
            effort.slices,
            lambda words: say(f"aiohttp, bodies of {name}, {words}"),
        )
        return _summary(slices, name, "aiohttp")

    with asyncio.Runner() as runner:
        client, session = runner.run(start())
        shown = collect(client, registry=CollectorRegistry())
        try:
            return beside("1kb") | beside("100kb")
        finally:
            shown.close()
            runner.run(stop())


async def _smart(client: AsyncSmartClient, body: bytes) -> None:
    await client.post("/classify", data=body)


async def _bare(session: aiohttp.ClientSession, urls: Iterator[str], body: bytes) -> None:
    async with session.post(next(urls), data=body) as reply:
        await reply.read()


def _beside_requests(registry: str, url: str, effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    body, target = bytes(SIZES["1kb"]), f"{url}/classify"

    def rate(one: Callable[[], object]) -> float:
        began = time.perf_counter()
        for _ in range(effort.blocking_calls):
            one()
        return effort.blocking_calls / (time.perf_counter() - began)

    with SmartClient(SERVICE, registry=registry) as client, requests.Session() as session:
        slices = _slices(
            lambda: rate(lambda: client.post("/classify", data=body)),
            lambda: rate(lambda: session.post(target, data=body)),
            effort.slices,
            lambda words: say(f"requests, bodies of 1kb, {words}"),
        )
    return {f"sync_{key}": value for key, value in _summary(slices, "1kb", "requests").items()}


def _slices(
    ours: Callable[[], float], theirs: Callable[[], float], slices: int, say: Callable[[str], None]
) -> list[tuple[float, float]]:
    """Rates of both, slice by slice."""
    rates = []
    for number in range(slices + 1):
        say(f"slice {number} of {slices}")
        if number % 2:
            other, rate = theirs(), ours()
        else:
            rate, other = ours(), theirs()
        rates.append((rate, other))
    return rates[1:]  # in the first one connections are made


async def _rate(one: Callable[[], Awaitable[None]], calls: int) -> float:
    """Calls per second, ``AT_ONCE`` at a time."""
    waiting = iter(range(calls))

    async def work() -> None:
        for _ in waiting:
            await one()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return calls / (time.perf_counter() - began)


def _summary(rates: Sequence[tuple[float, float]], size: str, other: str) -> dict[str, Any]:
    ratios = sorted(ours / theirs for ours, theirs in rates)
    quarter = len(ratios) // 4
    return {
        f"ratio_{size}": round(statistics.median(ratios), 3),
        f"ratio_{size}_quartiles": [round(ratios[quarter], 3), round(ratios[-1 - quarter], 3)],
        f"per_s_{size}": round(statistics.median(ours for ours, _ in rates)),
        f"{other}_per_s_{size}": round(statistics.median(theirs for _, theirs in rates)),
    }
