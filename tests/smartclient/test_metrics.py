"""What a scrape shows, read back by prometheus_client's own parsers."""

import asyncio
import gc
import random
import threading
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from registry.model import Health
from registry.testing import ManualClock, ScriptedDirectory, instance
from smartclient import AsyncSmartClient, SmartClient
from smartclient.errors import CallFailed, NoEndpoints
from smartclient.metrics import SECONDS, STATES, collect
from smartclient.stats import Outcome
from smartclient.testing import DEAD, HUNG, Fault, Reply, ScriptedTransport

NODES = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]


class World:
    """A client of three nodes and its own Prometheus registry."""

    def __init__(self, clock: ManualClock, service: str = "digits", **options: object) -> None:
        self.clock = clock
        self.transport = ScriptedTransport(clock)
        self.directory = ScriptedDirectory([instance(number, service) for number in (1, 2, 3)])
        self.client = AsyncSmartClient(
            service,
            self.directory,
            policy="rotation",
            transport=self.transport,
            clock=clock,
            rng=random.Random(5),
            **options,
        )
        self.registry = CollectorRegistry(auto_describe=True)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"smartclient_{name}", {"service": self.client.service, **labels})

    def script(self, *steps: Reply | Fault) -> None:
        for node in NODES:
            self.transport.script(node, *steps)


@pytest.fixture
async def world(clock: ManualClock) -> AsyncIterator[World]:
    made = World(clock)
    collect(made.client, made.registry)
    yield made
    await made.client.close()


async def test_calls_and_attempts_are_counted_by_how_they_ended(world: World) -> None:
    world.transport.script(NODES[0], DEAD, Reply())
    for _ in range(6):
        await world.client.get("/")
    assert world.value("calls_total", outcome="ok") == 6
    assert world.value("attempts_total", outcome="ok") == 6
    assert world.value("attempts_total", outcome="connect_error") == 1
    assert world.value("retries_total") == 1
    assert world.value("calls_total", outcome="failed") == 0, "what has not happened is there as well"


async def test_every_way_a_call_can_end_has_its_word(world: World, clock: ManualClock) -> None:
    world.script(Reply(status=503))
    assert (await world.client.post("/")).status == 503
    world.script(Fault(outcome=Outcome.RESET))
    with pytest.raises(CallFailed):
        await world.client.post("/")
    world.script(HUNG)
    late = asyncio.ensure_future(world.client.post("/", timeout=1.0))
    left = asyncio.ensure_future(world.client.post("/"))
    await clock.advance(0.5)
    assert world.value("inflight_requests") == 2
    left.cancel()
    await clock.advance(1.0)
    await asyncio.gather(late, left, return_exceptions=True)
    world.directory.set([instance(1, health=Health.DRAINING)])
    await clock.settle()
    with pytest.raises(NoEndpoints):
        await world.client.get("/")
    ended = dict.fromkeys(("refused", "failed", "deadline", "cancelled", "no_endpoints"), 1)
    assert {end: world.value("calls_total", outcome=end) for end in ended} == ended
    attempts = dict.fromkeys(("server_error", "reset", "timeout", "cancelled"), 1)
    assert {outcome: world.value("attempts_total", outcome=outcome) for outcome in attempts} == attempts
    assert world.value("inflight_requests") == 0


async def test_a_streamed_answer_counts_once_when_it_ends(world: World) -> None:
    async with world.client.stream("GET", "/log") as reply:
        assert world.value("attempts_total", outcome="ok") == 0
        assert await reply.read() == b"ok"
    assert world.value("attempts_total", outcome="ok") == 1
    assert world.value("calls_total", outcome="ok") == 1


async def test_durations_are_a_histogram_of_few_buckets(world: World, clock: ManualClock) -> None:
    for seconds in (0.004, 0.2, 0.2, 7.0):
        world.script(Reply(after=seconds))
        call = asyncio.ensure_future(world.client.get("/"))
        await clock.advance(seconds)
        await call
    counts = [world.value("call_duration_seconds_bucket", le=str(bound)) for bound in SECONDS]
    assert (
        dict(zip(SECONDS, counts, strict=True)).items()
        >= {0.0025: 0, 0.005: 1, 0.1: 1, 0.25: 3, 5.0: 3, 10.0: 4}.items()
    )
    assert len(SECONDS) <= 20
    assert world.value("call_duration_seconds_bucket", le="+Inf") == world.value("call_duration_seconds_count") == 4
    assert world.value("call_duration_seconds_sum") == pytest.approx(7.404)


async def test_nodes_are_counted_by_state_in_the_words_of_the_registry_and_of_the_snapshot(
    world: World, clock: ManualClock
) -> None:
    world.directory.set(
        [
            instance(1),
            instance(2),
            instance(3),
            instance(4, health=Health.WARNING),
            instance(5, health=Health.DRAINING),
            instance(6, health=Health.CRITICAL),
        ]
    )
    world.transport.script(NODES[1], DEAD)
    world.transport.script(NODES[2], Reply(status=429))
    await asyncio.gather(*(world.client.get("/") for _ in range(20)))
    states = {state: world.value("endpoints", state=state) for state in STATES}
    assert states == {
        "passing": 1,
        "warning": 1,
        "critical": 1,
        "draining": 1,
        "cooling": 1,
        "ejected": 1,
        "probation": 0,
    }
    assert world.value("ejections_total") == 1


async def test_the_list_has_no_age_before_it_is_known_and_grows_old_without_its_registry(
    world: World, clock: ManualClock
) -> None:
    assert world.value("list_age_seconds") is None
    await world.client.ready()
    world.directory.fail()
    await clock.advance(42.0)
    assert world.value("list_age_seconds") == 42.0


async def test_the_budget_and_panic_are_told(world: World) -> None:
    await world.client.ready()
    assert world.value("retry_budget_left") == 10.0
    world.script(Reply(status=429))
    for _ in range(4):
        await world.client.post("/")
    assert world.value("panics_total") > 0


async def test_several_clients_share_the_families_and_those_of_one_service_add_up(
    world: World, clock: ManualClock
) -> None:
    twin, other = World(clock), World(clock, service="letters")
    for each in (twin, other):
        collect(each.client, world.registry)
    for each, calls in ((world, 1), (twin, 2), (other, 4)):
        for _ in range(calls):
            await each.client.get("/")
    assert world.value("calls_total", outcome="ok") == 3
    assert world.value("endpoints", state="passing") == 6
    assert world.registry.get_sample_value("smartclient_calls_total", {"service": "letters", "outcome": "ok"}) == 4
    names = [family.name for family in world.registry.collect()]
    assert len(names) == len(set(names))
    await twin.client.close()
    await other.client.close()


async def test_what_is_shown_is_valid_in_both_formats(world: World, clock: ManualClock) -> None:
    other = World(clock, service='odd "name"\\')
    collect(other.client, world.registry, per_endpoint=True)
    await world.client.get("/")
    await other.client.get("/")
    text = generate_latest(world.registry).decode()
    families = {family.name: family for family in parse(text)}
    assert families["smartclient_calls"].type == "counter"
    assert families["smartclient_call_duration_seconds"].type == "histogram"
    assert families["smartclient_endpoints"].type == "gauge"
    assert text.count("# TYPE smartclient_calls_total counter") == 1
    strict = openmetrics.generate_latest(world.registry).decode()
    assert {family.name for family in parse_openmetrics(strict)} == families.keys()
    await other.client.close()


async def test_no_series_for_each_node_unless_they_are_asked_for(world: World) -> None:
    await world.client.get("/")
    assert not any("node" in sample.labels for family in world.registry.collect() for sample in family.samples)
    collect(world.client, world.registry, per_endpoint=True)
    for _ in range(5):
        await world.client.get("/")
    for number, node in enumerate(NODES, 1):
        labels = {"node": f"digits-{number}", "endpoint": node}
        assert world.value("endpoint_attempts_total", outcome="ok", **labels) == 2
        assert world.value("endpoint_inflight_requests", **labels) == 0
        assert world.value("endpoint_latency_seconds", **labels) == 0.0


async def test_a_client_that_is_closed_forgotten_or_taken_out_is_shown_no_longer(clock: ManualClock) -> None:
    registry = CollectorRegistry()
    closed, forgotten, out = (World(clock, service=name) for name in ("closed", "forgotten", "out"))
    handles = [collect(each.client, registry) for each in (closed, forgotten, out)]

    def services() -> set[str]:
        return {sample.labels["service"] for family in registry.collect() for sample in family.samples}

    assert services() == {"closed", "forgotten", "out"}
    await closed.client.close()
    await forgotten.client.close()
    del forgotten.client
    gc.collect()
    assert services() == {"out"}
    for handle in handles:
        handle.close()
        handle.close()
    assert services() == set()
    await out.client.close()


def test_a_name_already_taken_is_refused_by_the_registry(clock: ManualClock) -> None:
    registry = CollectorRegistry()
    Counter("smartclient_retries", "Of somebody else.", registry=registry)
    client = AsyncSmartClient("digits", "static://127.0.0.1:1")
    for _ in range(2):
        with pytest.raises(ValueError, match="smartclient_retries"):
            collect(client, registry)


def test_a_blocking_client_is_scraped_from_any_thread_while_it_works(served) -> None:
    registry, done, seen = CollectorRegistry(), threading.Event(), []

    def scrape() -> None:
        while not done.is_set():
            ok = registry.get_sample_value("smartclient_calls_total", {"service": "digits", "outcome": "ok"})
            seen.append(ok)

    with SmartClient("digits", served.registry) as client:
        collect(client, registry)
        scraper = threading.Thread(target=scrape)
        scraper.start()
        try:
            for _ in range(200):
                assert client.get("/").ok
        finally:
            done.set()
            scraper.join()
        assert registry.get_sample_value("smartclient_calls_total", {"service": "digits", "outcome": "ok"}) == 200
    assert seen == sorted(seen), "a counter never goes back"


def test_scraping_a_blocking_client_that_was_never_used_starts_nothing(served) -> None:
    registry = CollectorRegistry()
    with SmartClient("digits", served.registry) as client:
        collect(client, registry)
        assert registry.get_sample_value("smartclient_calls_total", {"service": "digits", "outcome": "ok"}) == 0
        assert not any(thread.name == "smartclient digits" for thread in threading.enumerate())
