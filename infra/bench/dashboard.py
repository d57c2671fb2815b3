"""What the dashboard costs over a large fleet that changes all the time, beside what it may cost.

The registry, the dashboard and the viewers are processes of their own on loopback. The dashboard first runs with
nobody looking, then with viewers that only follow their streams, then pages are asked for one after another while they
look; changes go on at the same rate throughout. Of the pages some are watched and so half drawn already, others are
not. Processor time is the dashboard's own, whoever else is on the machine; times of pages are not, so it is said how
busy the machine was.
"""

import asyncio
import itertools
import os
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp

from infra.bench import dashboard_fleet as made_up
from infra.bench.child import PATIENCE, Child, percentile
from infra.bench.dashboard_fleet import Address
from infra.bench.processes import busy, usage
from infra.fleet import FleetError, twostep
from infra.leash import leashed

BUDGET = {"fold_ms": 20.0, "page_p95_ms": 150.0, "stream_bytes_per_s_worst": 8000.0, "cpu_percent_50_viewers": 10.0}
UNWATCHED = "unwatched"
# One page in so many is one that nobody watches.
_ONE_IN = 4


@dataclass(frozen=True)
class Effort:
    """How much to do. ``seconds``: of each phase, of the pages half; ``settle``: seconds before each."""

    instances: int = 1000
    services: int = 5
    viewers: int = 50
    seconds: float = 60.0
    settle: float = 5.0
    changes_per_s: float = 20.0
    pages_per_s: float = 5.0
    folds: int = 200


@dataclass(frozen=True)
class Shown:
    """The dashboard that is measured: where it is, and its process."""

    url: str
    pid: int


@dataclass
class Pages:
    """How pages fared: milliseconds to the last byte, by kind."""

    taken: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """How many there were. Raises ``FleetError`` if none."""
        if not self.taken:
            raise FleetError(f"no page was answered: {self.failures[0]}")
        return sum(map(len, self.taken.values()))


async def run(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything and return it; see ``docs/benchmarks.md`` for the keys. Raises ``FleetError``."""
    say("folding lists of one service")
    each_second = max(1, round(effort.changes_per_s / effort.services))
    numbers = (effort.instances, each_second, effort.folds)
    async with Child.start("infra.bench.dashboard_folding", *map(str, numbers)) as folding:
        folds = (await folding.line())["folds"]
    of_registry = (effort.services, effort.instances, effort.changes_per_s)
    async with Child.start("infra.bench.dashboard_registry", *map(str, of_registry)) as registry:
        address = (await registry.line())["address"]
        async with _dashboard(address) as shown, aiohttp.ClientSession(shown.url) as session:
            say(f"waiting until the dashboard knows {effort.services} x {effort.instances} instances")
            await _until_known(session, effort)
            return _fold(folds) | await _measure(effort, say, registry, shown, session)


async def _measure(
    effort: Effort, say: Callable[[str], None], registry: Child, shown: Shown, session: aiohttp.ClientSession
) -> dict[str, Any]:
    registry.ask("go")
    await registry.line()
    await asyncio.sleep(effort.settle)
    say(f"{effort.seconds:g} s with nobody looking")
    alone = await _cpu_percent(shown, effort.seconds)
    say(f"{effort.seconds:g} s with {effort.viewers} viewers")
    watched = made_up.addresses(effort.services, effort.instances)
    looked_at = [watched[number % len(watched)] for number in range(effort.viewers)]
    async with _viewers(shown, looked_at) as viewers:
        await asyncio.sleep(effort.settle)
        resident, before = usage(shown.pid).resident, await _report(viewers)
        looking = await _cpu_percent(shown, effort.seconds)
        after = await _report(viewers)
        say(f"{effort.seconds / 2:g} s of pages, one after another, with {effort.viewers} viewers")
        machine, used, began = busy(), usage(shown.pid).cpu, time.monotonic()
        pages = await _ask_for_pages(session, effort)
        wall = time.monotonic() - began
        machine, used = busy() - machine, usage(shown.pid).cpu - used - looking / 100 * wall
        grown = usage(shown.pid).resident - resident
        failures = (await _report(viewers))["failures"] + pages.failures
    registry.ask("how many")
    changes = (await registry.line())["changes"]
    return {
        **_streams(looked_at, before, after),
        **_pages(pages),
        "page_cpu_ms": round(1000 * used / pages.answered, 1),
        "cpu_percent_idle": round(alone, 1),
        "cpu_percent_50_viewers": round(looking - alone, 1),
        "rss_growth_mb": round(grown / 1e6, 1),
        "rss_mb": round(usage(shown.pid).resident / 1e6, 1),
        "machine_busy_percent": round(100 * machine / wall / (os.cpu_count() or 1)),
        "instances": effort.instances,
        "services": effort.services,
        "viewers": effort.viewers,
        "changes_per_s": effort.changes_per_s,
        "changes": changes,
        "events": await _events(session),
        "failed": len(failures),
        "first_failure": failures[0] if failures else "",
    }


@asynccontextmanager
async def _dashboard(registry: str) -> AsyncIterator[Shown]:
    """A dashboard over the registry at ``registry``, in a session of its own so that its processor time is its own."""
    command = leashed(twostep("dashboard", "--port", "0", "--registry", f"consul://{registry}"))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, start_new_session=True)
    try:
        async with asyncio.timeout(PATIENCE):
            line = (await cast("asyncio.StreamReader", process.stdout).readline()).decode()
            if not line:
                raise FleetError(f"the dashboard ended with status {await process.wait()}; what it says is above")
        yield Shown(line.split()[-1], process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def _until_known(session: aiohttp.ClientSession, effort: Effort) -> None:
    """Until every service's last instance has its page. Raises ``FleetError``."""
    give_up = time.monotonic() + PATIENCE
    for page in made_up.last_of_each(effort.services, effort.instances):
        while (status := (await _get(session, page.path))[0]) != 200:
            if time.monotonic() > give_up or status != 404:
                raise FleetError(f"the dashboard does not show {page.path} ({status or 'no answer'}); its log says why")
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _viewers(shown: Shown, looked_at: list[Address]) -> AsyncIterator[Child]:
    """Viewers, all of whom have heard something."""
    async with Child.start("infra.bench.dashboard_viewers", shown.url.partition("://")[2]) as viewers:
        viewers.ask(" ".join(each.path for each in looked_at))
        await viewers.line()
        yield viewers


async def _report(viewers: Child) -> dict[str, Any]:
    viewers.ask("report")
    return await viewers.line()


async def _cpu_percent(shown: Shown, seconds: float) -> float:
    """Processor time of the dashboard over some seconds, in percent of one core."""
    began, before = time.monotonic(), usage(shown.pid).cpu
    await asyncio.sleep(seconds)
    return 100 * (usage(shown.pid).cpu - before) / (time.monotonic() - began)


async def _ask_for_pages(session: aiohttp.ClientSession, effort: Effort) -> Pages:
    """Ask for pages one after another for a while, and for each of them at least once."""
    pages, began = Pages(), time.monotonic()
    at_least = len(made_up.addresses(effort.services, effort.instances)) * _ONE_IN // (_ONE_IN - 1) + 1
    for number, page in enumerate(_mix(effort)):
        due = began + number / effort.pages_per_s
        if due >= began + effort.seconds / 2 and number >= at_least:
            return pages
        await asyncio.sleep(due - time.monotonic())
        status, taken = await _get(session, page.path)
        if status == 200:
            pages.taken[page.kind].append(taken)
        else:
            pages.failures.append(f"{page.path}: {status or 'no answer'}")
    return pages


def _mix(effort: Effort) -> Iterator[Address]:
    """All pages that are watched, over and over, and now and then one that is not."""
    watched = itertools.cycle(made_up.addresses(effort.services, effort.instances))
    others = itertools.cycle(made_up.unwatched(effort.services, effort.instances))
    for number in itertools.count(1):
        yield next(watched) if number % _ONE_IN else Address(UNWATCHED, next(others))


async def _get(session: aiohttp.ClientSession, path: str) -> tuple[int, float]:
    """The status (0: no answer), and milliseconds until the last byte."""
    began, status = time.perf_counter(), 0
    try:
        async with session.get(path) as reply:
            await reply.read()
            status = reply.status
    except aiohttp.ClientError:
        pass  # it is counted as what failed
    return status, (time.perf_counter() - began) * 1000


async def _events(session: aiohttp.ClientSession) -> int:
    """How many events the dashboard has kept. Raises ``FleetError`` if none: then it has looked at nothing."""
    async with session.get("/events.csv") as reply:
        kept = (await reply.text()).count("\n") - 1
    if reply.status != 200 or kept < 1:
        raise FleetError("the dashboard noticed none of the changes, so its figures mean nothing")
    return kept


def _fold(folds: list[float]) -> dict[str, Any]:
    return {"fold_ms": round(percentile(folds, 95), 2), "fold_median_ms": round(statistics.median(folds), 2)}


def _pages(pages: Pages) -> dict[str, Any]:
    every = [each for taken in pages.taken.values() for each in taken]
    return {
        "page_p95_ms": round(percentile(every, 95), 1),
        "page_p50_ms": round(percentile(every, 50), 1),
        "pages": pages.answered,
        "page_ms": {
            kind: {"p50": round(percentile(taken, 50), 1), "p95": round(percentile(taken, 95), 1)}
            for kind, taken in sorted(pages.taken.items())
        },
    }


def _streams(looked_at: list[Address], before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    seconds = after["at"] - before["at"]
    rates = [(now - then) / seconds for now, then in zip(after["received"], before["received"], strict=True)]
    by_kind: dict[str, list[float]] = defaultdict(list)
    for page, rate in zip(looked_at, rates, strict=True):
        by_kind[page.kind].append(rate)
    return {
        "stream_bytes_per_s": round(statistics.median(rates)),
        "stream_bytes_per_s_worst": round(max(rates)),
        "stream_bytes_per_s_by_kind": {kind: round(max(each)) for kind, each in sorted(by_kind.items())},
    }


def as_text(result: dict[str, Any]) -> str:
    """The figures as lines for people, what each may be beside it."""
    fleet = f"{result['services']} services of {result['instances']:,} instances, {result['changes_per_s']:g} changes/s"
    rows = (
        ("folding one service's list, 95th percentile, ms", "fold_ms"),
        ("a page, 95th percentile, ms", "page_p95_ms"),
        ("processor for a page, mean, ms", "page_cpu_ms"),
        ("a stream, the worst view, bytes/s", "stream_bytes_per_s_worst"),
        ("a stream, the median view, bytes/s", "stream_bytes_per_s"),
        ("processor for all viewers, % of a core", "cpu_percent_50_viewers"),
        ("processor with nobody looking, % of a core", "cpu_percent_idle"),
        ("memory gained while they look, MB", "rss_growth_mb"),
        ("failed", "failed"),
    )
    lines = [f"{fleet}, {result['viewers']} viewers", f"  {'':<50}{'measured':>10}{'at most':>10}"]
    for words, key in rows:
        most = BUDGET.get(key, 0 if key == "failed" else None)
        verdict = "" if most is None else f"{most:>10,g}" + ("" if result[key] <= most else "   too much")
        lines.append(f"  {words:<50}{result[key]:>10,}{verdict}")
    lines.append("  pages by kind, ms                                        p50       p95")
    for kind, taken in result["page_ms"].items():
        lines.append(f"    {kind:<48}{taken['p50']:>10,}{taken['p95']:>10,}")
    lines.append(f"  the machine was {result['machine_busy_percent']} % busy while pages were asked for")
    if result["failed"]:
        lines.append(f"  the first failure: {result['first_failure']}")
    return "\n".join(lines)
