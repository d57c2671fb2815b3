"""The engine without a model: its books as functions of time, then as processes that can be asked and tormented."""

import random
import statistics

import aiohttp
import pytest

from infra.bench.echo import ANSWER
from infra.bench.engine import Engine
from infra.bench.engines import Engines, instances
from infra.fleet import FleetError
from node.load import HEADER


def steady(mean=0.05):
    return Engine(random.Random(1), mean=mean, sigma=0.0)


class TestEngine:
    def test_one_at_a_time_in_order(self):
        engine = steady()
        assert [engine.take(1000.0) for _ in range(3)] == pytest.approx([0.05, 0.1, 0.15])
        assert engine.take(1000.12) == pytest.approx(0.08)

    def test_an_idle_engine_begins_at_once(self):
        engine = steady()
        engine.take(1000.0)
        assert engine.take(1007.0) == pytest.approx(0.05)

    def test_the_mean_is_the_mean(self):
        engine = Engine(random.Random(1), mean=0.05, sigma=0.5)
        times = [engine.take(float(second)) for second in range(1000, 21000)]
        assert statistics.fmean(times) == pytest.approx(0.05, rel=0.02)
        assert statistics.median(times) == pytest.approx(0.05 * 0.8825, rel=0.02)  # exp(-sigma² / 2)

    def test_the_same_seed_draws_the_same(self):
        one, other = (Engine(random.Random(7), mean=0.05, sigma=0.5) for _ in range(2))
        assert [one.take(1000.0) for _ in range(5)] == [other.take(1000.0) for _ in range(5)]

    def test_no_mean_is_no_time(self):
        engine = steady(mean=0.0)
        assert engine.take(1000.0) == 0.0
        assert engine.load(1000.0).inflight == 0
        assert engine.load(1000.0).capacity_rps is None

    def test_the_wait_is_the_queue_and_the_rest_of_the_running_one(self):
        engine = steady()
        assert engine.load(1000.0).wait_ms == 0
        for _ in range(3):
            engine.take(1000.0)
        said = engine.load(1000.02)
        assert (said.wait_ms, said.inflight, said.queue, said.capacity_rps) == (130.0, 3, 2, 20.0)
        assert engine.load(1000.07).wait_ms == 80.0

    def test_one_that_overstays_is_expected_to_end_now(self, monkeypatch):
        rng = random.Random(1)
        monkeypatch.setattr(rng, "lognormvariate", lambda mu, sigma: 0.2)
        engine = Engine(rng, mean=0.05, sigma=0.5)
        engine.take(1000.0)
        assert engine.load(1000.15).wait_ms == 0
        assert engine.load(1000.15).inflight == 1

    def test_busy_share_and_rate(self):
        engine = steady()
        for second in range(100):
            engine.take(1000.0 + second / 10)
        said = engine.load(1010.0)
        assert said.utilization == pytest.approx(0.5 * (1 - 2.718**-2), abs=0.03)
        assert said.rps == pytest.approx(10 * (1 - 2.718**-2), abs=0.3)


@pytest.fixture(scope="module")
def engines():
    with Engines([["--mean-ms", "0"], ["--status", "503", "--retry-after", "2"], ["--status", "500"]]) as started:
        yield started


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as client:
        yield client


async def test_it_answers_as_a_node_does(engines, session):
    base = f"http://127.0.0.1:{engines.ports[0]}"
    before = engines.requests(0)
    for path in ("/work", "/classify"):
        async with session.post(base + path, data=b"x" * 1000) as reply:
            assert await reply.json() == ANSWER
            assert reply.headers[HEADER].startswith("TEXT named_metrics.wait_ms=0.000,named_metrics.inflight=0,")
    async with session.get(f"{base}/load") as reply:
        assert {"wait_ms", "inflight", "queue", "capacity_rps"} <= set(await reply.json())
    async with session.get(f"{base}/readyz") as reply:
        assert reply.status == 200
    assert engines.requests(0) == before + 2


@pytest.mark.parametrize(("number", "status", "pushback"), [(1, 503, "2"), (2, 500, None)])
async def test_one_that_fails_answers_so_to_everything_and_counts(engines, session, number, status, pushback):
    base = f"http://127.0.0.1:{engines.ports[number]}"
    before = engines.requests(number)
    for ask in (session.post(f"{base}/work", data=b"x"), session.get(f"{base}/readyz"), session.get(f"{base}/load")):
        async with ask as reply:
            assert (reply.status, reply.headers.get("Retry-After")) == (status, pushback)
    assert engines.requests(number) == before + 1


def test_they_are_listed_with_the_path_to_ask_for_their_load(engines):
    listed = instances(engines.ports)
    assert [each.port for each in listed] == engines.ports
    assert {each.meta["load"] for each in listed} == {"/load"}
    assert engines.address == "static://" + ",".join(each.endpoint for each in listed)


async def test_one_is_paused_resumed_and_killed(session):
    with Engines([["--mean-ms", "0"]] * 2) as engines:
        urls = [f"http://127.0.0.1:{port}/work" for port in engines.ports]
        engines.pause(0)
        with pytest.raises(TimeoutError):
            async with session.post(urls[0], timeout=aiohttp.ClientTimeout(total=0.3)):
                pass
        engines.resume(0)
        async with session.post(urls[0]) as reply:
            assert reply.status == 200
        engines.kill(0)
        with pytest.raises(aiohttp.ClientConnectionError):
            async with session.post(urls[0]):
                pass
        engines.pause(1)  # ends with the others all the same
    with pytest.raises(aiohttp.ClientConnectionError):
        async with session.post(urls[1]):
            pass


def test_one_that_cannot_start_says_why():
    with (
        pytest.raises(FleetError, match=r"engine 1 ended with status 2: .*unrecognized arguments: --fast"),
        Engines([["--mean-ms", "1"], ["--fast"]]),
    ):
        pass
