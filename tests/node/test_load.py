"""What a node says of its load: the report and its two forms as functions, then over HTTP with a model at a gate."""

import asyncio
import math

import aiohttp
import pytest

from node.config import NodeConfig
from node.latency import WINDOW
from node.load import HEADER, MEMORY, BusyShare, Rate, report, slowest
from node.repository import Model
from node.server import NodeServer
from registry.testing import ManualClock

FIELDS = ("named_metrics.wait_ms", "named_metrics.inflight", "application_utilization", "rps_fractional")


def read(header: str) -> dict[str, float]:
    """The header as a client reads it."""
    form, _, fields = header.partition(" ")
    assert form == "TEXT"
    return {name: float(value) for name, value in (field.split("=") for field in fields.split(","))}


def test_the_header_is_orcas_text_form():
    said = report(wait=0.0125, inflight=3, queue=2, capacity=26.0, utilization=0.7, rps=18.2)
    assert read(said.orca) == dict(zip(FIELDS, (12.5, 3, 0.7, 18.2), strict=True))


def test_no_number_is_written_with_an_exponent():
    said = report(wait=1e-9, inflight=0, queue=0, capacity=None, utilization=1e-9, rps=1e-9)
    assert "e-" not in said.orca
    assert set(read(said.orca).values()) == {0.0}


def test_the_slowest_stage_is_the_capacity():
    assert slowest((8, 0.1), (2, 0.05)) == 40.0
    assert slowest((8, 0.1), (2, 0.0)) == 80.0


def test_nothing_learned_is_no_capacity():
    assert slowest((32, 0.0)) is None


class TestBusyShare:
    def test_idle_is_nothing_and_work_without_end_is_everything(self):
        busy = BusyShare()
        assert busy.at(1000.0) == 0.0
        busy.turn(True, 1000.0)
        assert busy.at(1000.0 + 20 * MEMORY) == pytest.approx(1.0)

    def test_a_run_under_way_counts_as_it_goes(self):
        busy = BusyShare()
        busy.turn(True, 1000.0)
        assert busy.at(1000.0 + MEMORY) == pytest.approx(1 - math.exp(-1))

    @pytest.mark.parametrize("period", [0.01, 0.1, 1.0])
    def test_a_steady_share_is_found_whatever_the_length_of_the_runs(self, period):
        busy, now = BusyShare(), 1000.0
        seen = []
        for _ in range(round(20 * MEMORY / period)):
            busy.turn(True, now)
            now += 0.3 * period
            busy.turn(False, now)
            seen.append(busy.at(now + 0.35 * period))
            now += 0.7 * period
        assert seen[-1] == pytest.approx(0.3, abs=0.05)

    def test_looking_changes_nothing(self):
        looked, left = BusyShare(), BusyShare()
        for busy in (looked, left):
            busy.turn(True, 1000.0)
        for tick in range(100):
            looked.at(1000.0 + tick / 10)
        assert looked.at(1010.0) == left.at(1010.0)


class TestRate:
    def test_a_steady_rate_is_found(self):
        rate = Rate()
        for number in range(2000):
            rate.count(1000.0 + number * 0.05)
        assert rate.at(1000.0 + 2000 * 0.05) == pytest.approx(20, rel=0.02)

    def test_it_fades(self):
        rate = Rate()
        rate.count(1000.0)
        assert rate.at(1000.0 + MEMORY) == pytest.approx(math.exp(-1) / MEMORY)


async def load(session: aiohttp.ClientSession, node: NodeServer) -> dict[str, float]:
    async with session.get(f"{node.url}/load") as reply:
        assert (reply.status, reply.content_type) == (200, "application/json")
        body: dict[str, float] = await reply.json()
        return body


async def test_an_idle_node_keeps_nobody_waiting(node, session):
    said = await load(session, node)
    assert {key: said[key] for key in ("wait_ms", "inflight", "queue", "utilization", "rps")} == {
        "wait_ms": 0,
        "inflight": 0,
        "queue": 0,
        "utilization": 0,
        "rps": 0,
    }
    assert said["capacity_rps"] > 0  # learned in warming


async def test_a_busy_node_says_what_is_ahead_and_answers_for_it_at_once(
    make_node, session, png, runtime, until, queued
):
    node = make_node(max_batch=2)
    await node.start()
    runtime.gate.clear()
    waiting = [asyncio.ensure_future(session.post(f"{node.url}/classify", data=png())) for _ in range(6)]
    await until(lambda: node.admission.requests == 6 and queued(node) >= 4)
    said = await load(session, node)
    assert said["inflight"] == 6
    assert said["queue"] == queued(node)
    assert said["wait_ms"] > 0
    assert 0 < said["utilization"] < 1
    runtime.gate.set()
    for reply in await asyncio.gather(*waiting):
        assert reply.status == 200
        reply.release()
    assert (await load(session, node))["rps"] > 0


async def test_the_wait_is_the_rest_of_the_running_batch_and_the_full_batches_before_it(
    model, runtime, session, png, until, queued
):
    clock = ManualClock()
    config = NodeConfig(models=(Model(path=model),), port=0, register=False, max_batch=2)
    node = NodeServer(config, clock=clock, open=lambda _: runtime)
    try:
        await node.start()
        for size in (1, 2):
            for _ in range(WINDOW):  # outlasts what warming has taught
                node.repository.first.batcher.latency.observe(size, 0.01 * size)
        runtime.gate.clear()
        warm = len(runtime.batches)
        sent = [asyncio.ensure_future(session.post(f"{node.url}/classify", data=png()))]
        await until(lambda: len(runtime.batches) == warm + 1)
        sent += [asyncio.ensure_future(session.post(f"{node.url}/classify", data=png())) for _ in range(5)]
        await until(lambda: queued(node) == 5)
        await clock.advance(0.004)
        said = await load(session, node)
        assert said["wait_ms"] == pytest.approx((10 - 4) + 2 * 20)
        assert said["capacity_rps"] == pytest.approx(100)
        runtime.gate.set()
        for reply in await asyncio.gather(*sent):
            reply.release()
    finally:
        runtime.gate.set()
        await node.stop()


@pytest.mark.parametrize(("data", "status"), [(None, 200), (b"no image", 422), (b"", 400)])
async def test_every_answer_to_work_carries_it(node, session, png, data, status):
    async with session.post(f"{node.url}/classify", data=png() if data is None else data) as reply:
        assert reply.status == status
        said = read(reply.headers[HEADER])
    assert tuple(said) == FIELDS
    assert said["named_metrics.inflight"] == 0  # the one just answered is inside no more
    assert said["rps_fractional"] > 0


async def test_a_refusal_for_load_carries_it_and_does_not_look_like_speed(node, session, png):
    node.admission.limit = -1.0
    async with session.post(f"{node.url}/classify", data=png()) as reply:
        assert reply.status == 503
        assert read(reply.headers[HEADER])["rps_fractional"] == 0


async def test_asking_for_it_is_no_traffic(node, session):
    await load(session, node)
    async with session.get(f"{node.url}/metrics") as reply:
        assert "node_requests_total{" not in await reply.text()
    assert (await load(session, node))["rps"] == 0


async def test_a_node_that_takes_no_work_gives_no_load(make_node, session):
    node = make_node()
    await node.start()
    node.intake.refusing = True
    async with session.get(f"{node.url}/load") as reply:
        assert (reply.status, (await reply.json())["reason"]) == (503, "draining")
    node.intake.refusing, node.intake.open = False, False
    async with session.get(f"{node.url}/load") as reply:
        assert (reply.status, (await reply.json())["reason"]) == (503, "overloaded")
    async with session.post(f"{node.url}/classify", data=b"x") as reply:
        assert HEADER not in reply.headers


async def test_the_registration_says_where_to_ask(node, directory):
    assert directory.registrations["digits-a1b2"].meta["load"] == "/load"
