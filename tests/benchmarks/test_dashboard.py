"""``bench dashboard`` runs to its end at its smallest and reports every figure; how fast anything is, is not tested."""

import asyncio
import json
import random
import time

import pytest
from click.testing import CliRunner

from infra.bench import dashboard as dashboard_bench
from infra.bench.child import Child
from infra.bench.cli import bench
from infra.bench.dashboard import BUDGET, Effort, as_text
from infra.bench.dashboard_fleet import ILL, Fleet, addresses, identity, unwatched
from registry import connect
from registry.consul.codec import decode_in_steps
from registry.consul.reports import decode_checks
from registry.model import Health

TINY = Effort(
    instances=60, services=2, viewers=6, seconds=1.5, settle=1.5, changes_per_s=40.0, pages_per_s=50.0, folds=5
)


def instances_of(fleet, service):
    steps = decode_in_steps([fleet.body(service)])
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


@pytest.mark.e2e
def test_every_figure_has_its_key_and_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard_bench, "Effort", lambda **_: TINY)
    done = CliRunner(catch_exceptions=False).invoke(bench, ["dashboard", "--json"])
    result = json.loads(done.stdout)
    assert (result["failed"], result["first_failure"]) == (0, "")
    assert (result["instances"], result["services"], result["viewers"]) == (60, 2, 6)
    assert 0 < result["fold_median_ms"] <= result["fold_ms"]
    kinds = {"overview", "instances", "filtered", "service", "instance", "events"}
    assert set(result["page_ms"]) == kinds | {"unwatched"}
    assert 0 < result["page_p50_ms"] <= result["page_p95_ms"]
    assert 0 < result["stream_bytes_per_s"] <= result["stream_bytes_per_s_worst"]
    assert set(result["stream_bytes_per_s_by_kind"]) <= kinds
    assert 0 < result["events"] <= result["changes"]
    assert result["rss_mb"] > 10
    assert {
        "page_cpu_ms",
        "cpu_percent_idle",
        "cpu_percent_50_viewers",
        "rss_growth_mb",
        "machine_busy_percent",
    } <= set(result)
    assert "1.5 s with 6 viewers" in done.stderr
    shown = as_text(result)
    assert all(f"{most:,g}" in shown for most in BUDGET.values())
    assert f"{result['page_p95_ms']:,}" in shown


def test_a_figure_above_what_it_may_be_is_told_and_so_is_the_first_failure() -> None:
    good = dict.fromkeys(BUDGET, 1.0) | {
        "stream_bytes_per_s": 1,
        "cpu_percent_idle": 1,
        "page_cpu_ms": 1,
        "rss_growth_mb": 0.1,
    }
    good |= {"failed": 0, "first_failure": "", "page_ms": {}, "machine_busy_percent": 5}
    good |= {"instances": 1, "services": 1, "viewers": 1, "changes_per_s": 20.0}
    assert "too much" not in as_text(good)
    bad = as_text(good | {"page_p95_ms": 151.0})
    assert [line.split()[-4:] for line in bad.splitlines() if "much" in line] == [["151.0", "150", "too", "much"]]
    assert "the first failure: /: 500" in as_text(good | {"failed": 1, "first_failure": "/: 500"})


def test_changes_make_some_ill_and_them_well_again_and_checks_say_why() -> None:
    fleet = Fleet(2, 100, random.Random(3))
    most = ILL * 200 + 1
    seen = set()
    for _ in range(400):
        before = {name: fleet.body(name) for name in fleet.names}
        service = fleet.change()
        assert [name for name in fleet.names if fleet.body(name) != before[name]] == [service]
        listed = [each for name in fleet.names for each in instances_of(fleet, name)]
        ill = {each.id for each in listed if each.health is not Health.PASSING}
        seen |= ill
        assert len(ill) <= most
        assert {each.health for each in listed} <= {Health.PASSING, Health.CRITICAL}
    assert len(seen) > most
    assert fleet.index[service] == 401
    some = instances_of(fleet, "digits")[7]
    assert (some.id, some.zone, some.version) == (identity("digits", 7), "zone-1", "1.3")
    assert some.address.startswith("127.")
    assert "HTTP GET" in decode_checks(fleet.body("digits"))[some.id][1].output


def test_what_is_looked_at_is_of_all_kinds_and_no_page_is_looked_at_that_nobody_should_watch() -> None:
    watched = {each.path for each in addresses(5, 1000)}
    assert len(watched) == len(addresses(5, 1000)) == 20
    assert not watched & {*unwatched(5, 1000)}
    assert len(unwatched(5, 1000)) == 50
    assert "/instances?page=2" not in {each.path for each in addresses(1, 100)}


@pytest.mark.e2e
async def test_the_registry_answers_a_blocking_query_when_something_has_changed() -> None:
    async with Child.start("infra.bench.dashboard_registry", "1", "50", "20") as registry:
        directory = connect(f"consul://{(await registry.line())['address']}")
        try:
            async with asyncio.timeout(10):
                watch = aiter(directory.watch("digits", passing_only=False))
                assert len((await anext(watch)).instances) == 50
                held = asyncio.ensure_future(anext(watch))
                assert not (await asyncio.wait({held}, timeout=0.3))[0]
                registry.ask("go")
                assert (await registry.line())["changes"] == 0
                ill = [each for each in (await held).instances if each.health is not Health.PASSING]
                assert len(ill) == 1
        finally:
            await directory.close()


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("head", "why"),
    [("404 Not Found\r\nContent-Length: 0", "answered 404"), ("200 OK\r\nContent-Length: 0", "not gzip")],
)
async def test_a_stream_that_is_refused_or_not_packed_has_failed(head: str, why: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(f"HTTP/1.1 {head}\r\n\r\n".encode())
        await reader.read()
        writer.close()
        await writer.wait_closed()

    asked: list[bytes] = []
    tasks: list[asyncio.Task] = []
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    began = time.monotonic()
    async with Child.start("infra.bench.dashboard_viewers", address) as viewers:
        viewers.ask("/ /instances?page=2")
        line = await viewers.line()
    assert line["failures"] == [why, why]
    assert line["received"] == [len(head) + 13] * 2
    assert began < line["at"] <= time.monotonic()
    assert sorted(each.split()[1] for each in asked) == [b"/stream?at=%2F", b"/stream?at=%2Finstances%3Fpage%3D2"]
    server.close()
    await asyncio.gather(*tasks)
