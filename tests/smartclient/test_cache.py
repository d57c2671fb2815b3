import asyncio
import random

import pytest

from registry.errors import ConfigurationError, PermissionDenied, RegistryUnavailable
from registry.model import Health, Snapshot
from registry.testing import ManualClock, ScriptedDirectory, ScriptedWatch, instance
from smartclient.cache import DiscoveryCache
from smartclient.errors import RegistryGone, RegistryRefused


class Cached:
    """A cache over a scripted directory, and what it published."""

    def __init__(self, clock: ManualClock, directory: ScriptedDirectory | None = None) -> None:
        self.directory = directory or ScriptedDirectory([instance(1), instance(2)])
        self.published: list[tuple[str, ...]] = []
        self.cache = DiscoveryCache(self.directory, "digits", self._publish, clock=clock, rng=random.Random(1))

    def _publish(self, snapshot: Snapshot) -> None:
        self.published.append(tuple(each.id for each in snapshot.instances))


@pytest.fixture
async def cached(clock: ManualClock):
    made = Cached(clock)
    yield made
    await made.cache.close()


async def test_the_first_load_asks_once_and_then_watches(cached: Cached, clock: ManualClock) -> None:
    for _ in range(3):
        await cached.cache.load()
    assert cached.directory.lookups == 1
    await clock.settle()
    cached.directory.set([instance(3)])
    await clock.settle()
    assert cached.published[0] == ("digits-1", "digits-2")
    assert cached.published[-1] == ("digits-3",)
    assert cached.directory.lookups == 1


async def test_callers_at_the_same_time_share_one_question(cached: Cached) -> None:
    await asyncio.gather(*(cached.cache.load() for _ in range(50)))
    assert cached.directory.lookups == 1


async def test_one_caller_giving_up_does_not_disturb_the_others(clock: ManualClock) -> None:
    class Slow(ScriptedDirectory):
        async def lookup(self, service: str, **filters: object) -> Snapshot:
            await clock.sleep(1.0)
            return await super().lookup(service, **filters)

    made = Cached(clock, Slow([instance(1)]))
    first, second = asyncio.create_task(made.cache.load()), asyncio.create_task(made.cache.load())
    await clock.settle()
    first.cancel()
    await clock.advance(1.0)
    assert (await second).instances
    assert first.cancelled()
    assert made.directory.lookups == 1
    await made.cache.close()


async def test_an_outage_at_the_start_surfaces_with_address_and_next_step(cached: Cached) -> None:
    cached.directory.fail(RegistryUnavailable("connection refused"))
    with pytest.raises(RegistryGone, match=r"'digits'.*scripted.*connection refused.*TWOSTEP_REGISTRY") as caught:
        await cached.cache.load()
    assert isinstance(caught.value.__cause__, RegistryUnavailable)
    assert caught.value.retryable
    cached.directory.heal()
    assert (await cached.cache.load()).instances


@pytest.mark.parametrize("error", [PermissionDenied("no"), ConfigurationError("bad")])
async def test_a_refusal_at_the_start_is_told_as_one(cached: Cached, error: Exception) -> None:
    cached.directory.fail(error)
    with pytest.raises(RegistryRefused):
        await cached.cache.load()


async def test_once_known_the_list_stands_however_long_the_registry_is_gone(cached: Cached, clock: ManualClock) -> None:
    await cached.cache.load()
    await clock.settle()
    cached.directory.fail()
    await clock.advance(86_400.0)
    assert len((await cached.cache.load()).instances) == 2
    shown = cached.cache.snapshot()
    assert shown["age_s"] == 86_400.0
    assert not shown["live"]
    assert shown["last_error"] == "scripted outage"
    cached.directory.set([instance(9)])
    cached.directory.heal()
    await clock.settle()
    assert cached.published[-1] == ("digits-9",)


async def test_a_watch_that_gives_up_is_begun_again(clock: ManualClock) -> None:
    class Fragile(ScriptedDirectory):
        watches = 0

        def watch(self, service: str, **filters: object) -> ScriptedWatch:
            self.watches += 1
            if self.watches <= 3:
                raise_at_once = super().watch(service, **filters)
                raise_at_once.__class__ = type("Broken", (ScriptedWatch,), {"__anext__": _unavailable})
                return raise_at_once
            return super().watch(service, **filters)

    async def _unavailable(self: ScriptedWatch) -> Snapshot:
        raise RegistryUnavailable("gone")

    made = Cached(clock, Fragile([instance(1)]))
    await made.cache.load()
    await clock.advance(10.0)
    made.directory.set([instance(2)])
    await clock.settle()
    assert made.published[-1] == ("digits-2",)
    assert made.directory.watches == 4
    await made.cache.close()


async def test_all_instances_are_asked_for_not_only_passing_ones(clock: ManualClock) -> None:
    made = Cached(clock, ScriptedDirectory([instance(1), instance(2, health=Health.CRITICAL)]))
    await made.cache.load()
    assert set(made.published) == {("digits-1", "digits-2")}
    await made.cache.close()


async def test_closing_ends_the_watch_but_not_the_directory(cached: Cached, clock: ManualClock) -> None:
    await cached.cache.load()
    await clock.settle()
    await cached.cache.close()
    before = len(cached.published)
    cached.directory.set([])
    await clock.settle()
    assert len(cached.published) == before
    assert not (await cached.directory.lookup("digits")).instances
