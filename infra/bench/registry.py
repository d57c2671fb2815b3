"""What following a large service costs: straight from Consul, through the look-up service, and for many readers.

Everything runs over a real Consul. The two ways take turns, each with its processes to itself while it is measured.
Bytes are counted by a relay between client and server; times are between processes, by the machine's monotonic clock.
A stall is the longest of a round, and of the rounds the median, because shared machines stop now and then; the worst of
all rounds stands beside it.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from infra.bench import catalog
from infra.bench.child import PATIENCE, Child, percentile
from infra.bench.outage import Outcome, lose_the_leader
from infra.bench.relay import Relay
from infra.bench.watcher import resident_mb
from infra.consul.agent import ConsulAgent, free_port
from infra.fleet import FleetError, twostep
from infra.leash import leashed

SETTLE = 0.5


@dataclass(frozen=True)
class Effort:
    """How much to do. ``changes``: per way and round; ``outage``: seconds of look-ups over a cluster, 0 for none."""

    instances: int = 10_000
    rounds: int = 4
    changes: int = 3
    readers: int = 2000
    reader_changes: int = 20
    outage: float = 30.0


@dataclass
class Followed:
    """What one client that follows the service saw, over all rounds."""

    bytes_per_change: list[float] = field(default_factory=list)
    stall_ms: list[float] = field(default_factory=list)
    stall_wall_ms: list[float] = field(default_factory=list)
    first_list_stall_ms: list[float] = field(default_factory=list)
    callback_ms: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)


async def run(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything and return it; see ``docs/benchmarks.md`` for the keys."""
    ways = {"consul": Followed(), "lookup": Followed()}
    with ConsulAgent.dev() as agent:
        say(f"writing {effort.instances} instances to Consul")
        await asyncio.to_thread(catalog.fill, agent.address, effort.instances)
        revision = 0
        for number in range(effort.rounds):
            say(f"one client, round {number + 1} of {effort.rounds}")
            for way in ("consul", "lookup") if number % 2 else ("lookup", "consul"):
                await _follow(agent, way, ways[way], effort, revision)
                revision += effort.changes
        say(f"{effort.readers} readers of the look-up service")
        readers = await _readers(agent, effort, revision)
    result: dict[str, Any] = {"instances": effort.instances}
    for way, followed in ways.items():
        result |= {
            f"bytes_per_change_{way}": round(max(followed.bytes_per_change)),
            f"stall_ms_{way}": round(statistics.median(followed.stall_ms), 2),
            f"worst_stall_ms_{way}": round(max(followed.stall_ms), 2),
            f"stall_wall_ms_{way}": round(statistics.median(followed.stall_wall_ms), 2),
            f"first_list_stall_ms_{way}": round(statistics.median(followed.first_list_stall_ms), 2),
            f"callback_p50_ms_{way}": round(percentile(followed.callback_ms, 50), 1),
            f"callback_p99_ms_{way}": round(percentile(followed.callback_ms, 99), 1),
            f"client_rss_mb_{way}": round(max(followed.rss_mb), 1),
        }
    result["client_rss_mb"] = result["client_rss_mb_lookup"]
    result |= readers
    if effort.outage:
        say(f"{effort.outage:.0f} s of look-ups over a cluster that loses its leader")
        result |= _outage(await lose_the_leader(seconds=effort.outage))
    return result


@asynccontextmanager
async def _look_up_service(agent: ConsulAgent) -> AsyncIterator[tuple[str, int]]:
    """A look-up service over ``agent`` as a process: its address and its process id."""
    address = f"127.0.0.1:{free_port()}"
    command = twostep("registry", "lookup", "--registry", f"consul://{agent.address}", "--port", address.split(":")[1])
    process = await asyncio.create_subprocess_exec(*leashed(command), stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(PATIENCE):
            if not await cast("asyncio.StreamReader", process.stdout).readline():
                raise FleetError(f"the look-up service ended with status {await process.wait()}")
        yield address, process.pid
    finally:
        process.terminate()
        await process.communicate()


@asynccontextmanager
async def _server(agent: ConsulAgent, way: str) -> AsyncIterator[str]:
    if way == "consul":
        yield agent.address
        return
    async with _look_up_service(agent) as (address, _):
        yield address


async def _follow(agent: ConsulAgent, way: str, seen: Followed, effort: Effort, revision: int) -> None:
    """One round of one way: a fresh client follows ``effort.changes`` changes."""
    async with (
        _server(agent, way) as address,
        Relay(address) as relay,
        Child.start("infra.bench.watcher", f"{way}://{relay.address}", catalog.SERVICE) as client,
    ):
        await client.until(lambda line: line.get("instances") == effort.instances)
        await asyncio.sleep(SETTLE)
        first = await _report(client)
        before = relay.received
        for number in range(effort.changes):
            changed = revision + number + 1
            began = time.monotonic()
            await asyncio.to_thread(catalog.change, agent.address, changed)
            called = await client.until(lambda line, changed=changed: line.get("revision") == changed)  # type: ignore[misc]
            seen.callback_ms.append((called["at"] - began) * 1000)
            await asyncio.sleep(SETTLE)
        after = await _report(client)
        seen.bytes_per_change.append((relay.received - before) / effort.changes)
    seen.first_list_stall_ms.append(first["stall_ms"])
    seen.stall_ms.append(after["stall_ms"])
    seen.stall_wall_ms.append(after["stall_wall_ms"])
    seen.rss_mb.append(after["rss_mb"])


async def _report(client: Child) -> dict[str, Any]:
    client.ask("report")
    return await client.until(lambda line: "stall_ms" in line)


async def _readers(agent: ConsulAgent, effort: Effort, revision: int) -> dict[str, Any]:
    """Many readers: how long until the last one has a change, and what one costs in memory."""
    last_id = f"{catalog.SERVICE}-{effort.instances - 1:05}"
    to_first, to_last = [], []
    async with _look_up_service(agent) as (address, process):
        arguments = (address, catalog.SERVICE, str(effort.readers), last_id)
        async with Child.start("infra.bench.readers", address, catalog.SERVICE, "1", last_id) as warm:
            await warm.line()
        alone = resident_mb(str(process))
        async with Child.start("infra.bench.readers", *arguments) as readers:
            await readers.line()
            joined = resident_mb(str(process))
            for number in range(effort.reader_changes):
                changed = revision + number + 1
                readers.ask(f'"revision":"{changed}"')
                await asyncio.sleep(SETTLE)
                began = time.monotonic()
                await asyncio.to_thread(catalog.change, agent.address, changed)
                seen = await readers.line()
                to_first.append((seen["first"] - began) * 1000)
                to_last.append((seen["last"] - began) * 1000)
            settled = resident_mb(str(process))
    return {
        "readers": effort.readers,
        "first_reader_p50_ms": round(percentile(to_first, 50)),
        "last_reader_p50_ms": round(percentile(to_last, 50)),
        "last_reader_p99_ms": round(percentile(to_last, 99)),
        "kb_per_reader": round(max(joined, settled) * 1000 / effort.readers - alone * 1000 / effort.readers, 1),
        "lookup_service_rss_mb": round(settled, 1),
    }


def _outage(outcome: Outcome) -> dict[str, Any]:
    return {
        "outage_lookups": outcome.lookups,
        "outage_failed": outcome.failed,
        "outage_oldest_list_s": round(outcome.oldest, 3),
    }
