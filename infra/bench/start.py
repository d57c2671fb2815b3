"""The first figures: what loading once and batching buy, and what the smart client costs beside bare aiohttp.

The arms take turns within one run, so that a machine whose speed drifts drifts for all of them; rates are medians over
the rounds. The load generator shares the machine's cores with what it measures.
"""

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, cast

import aiohttp

from infra.bench.child import running
from infra.fleet import FleetError, LocalFleet, twostep
from infra.leash import leashed
from infra.load import choose
from smartclient import AsyncSmartClient

CONCURRENCY = 32


@dataclass(frozen=True)
class Effort:
    """How much to do: rounds of all arms, and images per arm and round."""

    rounds: int = 5
    reload: int = 1
    once: int = 20
    node: int = 160
    client: int = 1500


class LoadedOnce:
    """The baseline script as a process that keeps its model."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def classify(self, images: int) -> float:
        """Seconds it takes for ``images`` images, one after another."""
        stdin = cast("IO[str]", self._process.stdin)
        stdin.write(f"{images}\n")
        stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        line = cast("IO[str]", self._process.stdout).readline().strip()
        if not line:
            raise FleetError(f"the baseline script ended with status {self._process.wait()}")
        return line

    def __enter__(self) -> Self:
        self._line()  # "ready"
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()


async def run(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything and return it; see ``docs/benchmarks.md`` for the keys."""
    with tempfile.TemporaryDirectory(prefix="twostep-bench-") as name:
        folder = Path(name)
        say("making the model and the images")
        subprocess.run(
            [sys.executable, "-P", "-m", "infra.bench.material", name], check=True, stderr=subprocess.DEVNULL
        )
        say("training the digits")
        digits = folder / "digits"
        subprocess.run(twostep("train", "digits", "--out", str(digits)), check=True, capture_output=True)
        serving = await _serving(folder, effort, say)
        return serving | await _client(digits, effort, say)


async def _serving(folder: Path, effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    """Images per second of one MobileNetV2: reloaded per image, loaded once, served by a node."""
    paths = sorted(folder.glob("*.jpg"))
    bodies = [path.read_bytes() for path in paths]
    script = leashed(
        [sys.executable, "-P", "-m", "infra.bench.baseline", str(folder / "model.keras"), *map(str, paths)]
    )
    rates: dict[str, list[float]] = {"reload_per_image": [], "loaded_once": [], "node": []}
    with LocalFleet() as fleet:
        fleet.start_registry()
        fleet.start_node("node-1", folder / "model.keras", "--name", "photos")
        await fleet.wait_passing("photos", 1)
        async with AsyncSmartClient("photos", registry=fleet.address) as client:
            with LoadedOnce(script) as once:
                await _classify(client, bodies, CONCURRENCY)  # connections and code paths warm, not counted
                for number in range(effort.rounds):
                    say(f"serving, round {number + 1} of {effort.rounds}")
                    rates["reload_per_image"].append(effort.reload / _reload(script, effort.reload))
                    rates["loaded_once"].append(effort.once / once.classify(effort.once))
                    rates["node"].append(await _classify(client, bodies, effort.node))
    medians = {name: round(statistics.median(each), 2) for name, each in rates.items()}
    return {
        "machine": {"cores": os.cpu_count(), "python": sys.version.split()[0]},
        "image_kb": round(statistics.mean(map(len, bodies)) / 1000),
        "images_per_s": medians,
        "rounds": {name: [round(rate, 2) for rate in each] for name, each in rates.items()},
    }


async def _client(digits: Path, effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    """The smart client beside bare aiohttp, both rotating over the same three servers."""
    bodies = [path.read_bytes() for path in choose(digits / "samples", 100)]
    with LocalFleet() as fleet:
        fleet.start_registry()
        for number in range(3):
            fleet.start_node(f"digits-{number + 1}", digits)
        urls = [each.url for each in (await fleet.wait_passing("digits", 3)).instances]
        nodes = await _beside(effort, say, service="digits", registry=fleet.address, urls=urls, bodies=bodies)
    with ExitStack() as servers:
        urls = [servers.enter_context(running("infra.bench.echo")) for _ in range(3)]
        address = "static://" + ",".join(url.removeprefix("http://") for url in urls)
        echo = await _beside(effort, say, service="echo", registry=address, urls=urls, bodies=bodies)
    return {"client": {"nodes": nodes, "echo": echo}}


async def _beside(
    effort: Effort,
    say: Callable[[str], None],
    *,
    service: str,
    registry: str,
    urls: Sequence[str],
    bodies: Sequence[bytes],
) -> dict[str, Any]:
    smart: list[float] = []
    bare: list[float] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        AsyncSmartClient(service, registry=registry) as client,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        await _classify(client, bodies, 200)  # connections made, not counted
        await _bare(session, urls, bodies, 200)
        for number in range(effort.rounds):
            say(f"client over {service}, round {number + 1} of {effort.rounds}")
            if number % 2:  # each goes first as often as the other
                bare.append(await _bare(session, urls, bodies, effort.client))
            smart.append(await _classify(client, bodies, effort.client))
            if not number % 2:
                bare.append(await _bare(session, urls, bodies, effort.client))
    ratios = [ours / theirs for ours, theirs in zip(smart, bare, strict=True)]
    return {
        "smart_per_s": round(statistics.median(smart)),
        "bare_aiohttp_per_s": round(statistics.median(bare)),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


async def _classify(client: AsyncSmartClient, bodies: Sequence[bytes], count: int) -> float:
    async def one(body: bytes) -> None:
        await client.classify(body)

    return await _rate(one, bodies, count)


async def _bare(session: aiohttp.ClientSession, urls: Sequence[str], bodies: Sequence[bytes], count: int) -> float:
    rotation = itertools.cycle(urls)

    async def one(body: bytes) -> None:
        async with session.post(f"{next(rotation)}/classify", data=body) as reply:
            reply.raise_for_status()
            await reply.json()

    return await _rate(one, bodies, count)


async def _rate(one: Callable[[bytes], Any], bodies: Sequence[bytes], count: int) -> float:
    """Calls per second for ``count`` calls, ``CONCURRENCY`` at a time."""
    waiting = iter(itertools.islice(itertools.cycle(bodies), count))

    async def work() -> None:
        for body in waiting:
            await one(body)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return count / (time.perf_counter() - began)


def _reload(script: Sequence[str], images: int) -> float:
    """Seconds for ``images`` fresh processes that each load everything and classify one image."""
    began = time.perf_counter()
    for _ in range(images):
        subprocess.run(script, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return time.perf_counter() - began
