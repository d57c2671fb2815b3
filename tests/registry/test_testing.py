"""How to use the fakes in tests of your own."""

import asyncio

import pytest

from registry import Health, Registration
from registry.errors import RegistryUnavailable, UnknownInstance
from registry.testing import ManualClock, ScriptedDirectory, instance


async def test_manual_clock_wakes_sleepers_in_the_order_of_their_times():
    clock, woken = ManualClock(), []

    async def sleeper(seconds):
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3, 1, 2)]
    await clock.advance(2.5)
    assert woken == [(1, 1001.0), (2, 1002.0)]
    assert clock.sleepers == 1
    await clock.advance(1)
    await asyncio.gather(*tasks)
    assert clock.time() == 1_700_000_003.5


async def test_scripted_directory_says_what_it_was_told():
    directory = ScriptedDirectory([instance(1), instance(2, health=Health.CRITICAL)])
    assert [each.id for each in (await directory.lookup("digits")).instances] == ["digits-1"]
    assert len((await directory.lookup("digits", passing_only=False)).instances) == 2
    assert directory.lookups == 2


async def test_scripted_directory_fails_and_heals():
    directory = ScriptedDirectory()
    directory.fail()
    with pytest.raises(RegistryUnavailable):
        await directory.lookup("digits")
    directory.heal()
    assert (await directory.lookup("digits")).instances == ()


async def test_scripted_watch_gives_changes_and_is_quiet_in_an_outage():
    directory = ScriptedDirectory([instance(1)])
    watch = directory.watch("digits")
    assert len((await anext(watch)).instances) == 1
    waiting = asyncio.ensure_future(anext(watch))
    directory.fail()
    directory.set([instance(1), instance(2)])
    await asyncio.sleep(0)
    assert not waiting.done()
    assert not watch.status().live
    directory.heal()
    assert len((await waiting).instances) == 2


async def test_scripted_directory_forgets_a_registration():
    directory = ScriptedDirectory()
    me = Registration(service="digits", id="a", address="127.0.0.1", port=9001)
    await directory.register(me)
    assert await directory.registered(me)
    await directory.beat("a")
    directory.forget("a")
    assert not await directory.registered(me)
    with pytest.raises(UnknownInstance):
        await directory.beat("a")
