import asyncio
import random

import msgspec
import pytest

from registry import Health, HttpCheck, Registrar, Registration, TtlCheck
from registry.errors import PermissionDenied, RegistrationRefused, RegistryUnavailable
from registry.registration import DEREGISTER_WITHIN, ENTER_WITHIN
from registry.testing import ManualClock, ScriptedDirectory

ME = Registration(service="digits", id="d1", address="127.0.0.1", port=9001, check=HttpCheck(url="http://127.0.0.1/"))
WITH_TTL = Registration(service="digits", id="d1", address="127.0.0.1", port=9001, check=TtlCheck(ttl=15))
OTHER = Registration(service="digits", id="d1", address="127.0.0.1", port=9002)


class Directory(ScriptedDirectory):
    """Also remembers what was called, and can hang."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def register(self, registration):
        self.calls.append("register")
        await self.gate.wait()
        self._raise_if_failing()
        held = self.registrations.get(registration.id)
        if held is not None and held.port != registration.port and registration != OTHER:
            raise RegistrationRefused(f"d1 now belongs to 127.0.0.1:{held.port}")
        await super().register(registration)

    async def beat(self, instance_id, note=""):
        self.calls.append("beat")
        await super().beat(instance_id, note)

    async def maintenance(self, instance_id, on, reason=""):
        self.calls.append(f"maintenance {on} {reason}".strip())
        await super().maintenance(instance_id, on, reason)

    async def deregister(self, instance_id):
        self.calls.append("deregister")
        await self.gate.wait()
        await super().deregister(instance_id)

    async def health(self):
        found = (await self.lookup("digits", passing_only=False)).instances
        return found[0].health if found else None


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def directory():
    return Directory()


def registrar(directory, clock, registration=ME, **options):
    return Registrar(directory, registration, clock=clock, rng=random.Random(1), **options)


async def test_registered_inside_and_gone_outside(directory, clock):
    async with registrar(directory, clock) as mine:
        assert await directory.registered(ME)
        state = mine.snapshot()
        assert (state.registered, state.failures, state.synced_at) == (True, 0, clock.time())
    assert not await directory.registered(ME)


async def test_a_refused_registration_is_raised_and_nothing_goes_on(directory, clock):
    directory.fail(RegistrationRefused("d1 is somebody else"))
    with pytest.raises(RegistrationRefused):
        async with registrar(directory, clock):
            pytest.fail("must not get here")
    assert clock.sleepers == 0


async def test_a_missing_permission_is_raised(directory, clock):
    directory.fail(PermissionDenied("no"))
    with pytest.raises(PermissionDenied):
        async with registrar(directory, clock):
            pytest.fail("must not get here")


async def test_a_registry_that_is_away_is_tried_again_in_the_background(directory, clock):
    counted = []
    directory.fail()
    async with registrar(directory, clock, on_failure=lambda: counted.append(1)) as mine:
        await clock.advance(30)
        assert not mine.snapshot().registered
        assert mine.snapshot().last_error == "scripted outage"
        assert mine.failures == len(counted) >= 6
        directory.heal()
        await clock.advance(5)
        assert await directory.registered(ME)
        assert mine.snapshot().last_error == ""


async def test_a_registry_down_for_a_minute_at_the_start_has_the_instance_within_a_beat_of_its_return(directory, clock):
    directory.fail()
    async with registrar(directory, clock, beat=5) as mine:
        await clock.advance(60)
        assert not mine.snapshot().registered
        directory.heal()
        await clock.advance(5)
        assert mine.snapshot().registered


async def test_entering_takes_no_longer_than_its_bound_when_the_registry_swallows_everything(directory, clock, caplog):
    directory.gate.clear()
    mine = registrar(directory, clock)
    entering = asyncio.ensure_future(mine.__aenter__())
    await clock.advance(ENTER_WITHIN - 0.1)
    assert not entering.done()
    await clock.advance(0.2)
    await entering
    assert "d1 is not registered yet: no answer within 5 s" in caplog.text
    directory.gate.set()
    await clock.advance(0.1)
    assert mine.snapshot().registered
    assert directory.calls == ["register"]
    await mine.__aexit__(None, None, None)


async def test_a_refusal_that_comes_after_entering_is_logged_as_an_error(directory, clock, caplog):
    directory.gate.clear()
    entering = asyncio.ensure_future((mine := registrar(directory, clock)).__aenter__())
    await clock.advance(ENTER_WITHIN + 0.1)
    await entering
    directory.fail(RegistrationRefused("d1 is somebody else"))
    directory.gate.set()
    await clock.advance(0.1)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert mine.snapshot().last_error == "d1 is somebody else"
    directory.heal()
    await mine.__aexit__(None, None, None)


async def test_leaving_before_the_first_answer_ends_everything(directory, clock):
    directory.gate.clear()
    mine = registrar(directory, clock)
    entering = asyncio.ensure_future(mine.__aenter__())
    await clock.advance(ENTER_WITHIN + 0.1)
    await entering
    await mine.__aexit__(None, None, None)
    directory.gate.set()
    await clock.advance(60)
    assert directory.registrations == {}
    assert clock.sleepers == 0


async def test_a_cancelled_entering_leaves_nothing_behind(directory, clock):
    directory.gate.clear()
    entering = asyncio.ensure_future(registrar(directory, clock).__aenter__())
    await clock.settle()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    directory.gate.set()
    await clock.advance(60)
    assert directory.registrations == {}
    assert clock.sleepers == 0


@pytest.mark.parametrize("mine", [ME, WITH_TTL])
async def test_an_id_taken_over_is_noticed_at_the_next_beat_and_never_fought_for(directory, clock, caplog, mine):
    async with registrar(directory, clock, mine, beat=5) as registered:
        await directory.register(OTHER)
        directory.calls.clear()
        await clock.advance(5)
        assert not registered.snapshot().registered
        assert [(record.levelname, "9002" in record.message) for record in caplog.records] == [("ERROR", True)]
        assert directory.registrations["d1"] == OTHER
        assert "beat" not in directory.calls


async def test_leaving_leaves_alone_who_has_taken_the_id_over(directory, clock):
    async with registrar(directory, clock):
        await directory.register(OTHER)
    assert directory.registrations["d1"] == OTHER
    assert "deregister" not in directory.calls


async def test_when_the_other_is_gone_the_id_is_ours_again(directory, clock):
    async with registrar(directory, clock, beat=5) as mine:
        await directory.register(OTHER)
        await clock.advance(30)
        directory.forget("d1")
        await clock.advance(5)
        assert directory.registrations["d1"] == ME
        assert mine.snapshot().last_error == ""


@pytest.mark.parametrize(("ttl", "warned"), [(14.9, True), (15, False)])
async def test_a_ttl_a_loaded_agent_could_miss_is_warned_of(directory, clock, caplog, ttl, warned):
    async with registrar(directory, clock, msgspec.structs.replace(WITH_TTL, check=TtlCheck(ttl=ttl))):
        pass
    assert ("a loaded registry needs 15 s or more" in caplog.text) is warned


async def test_what_the_registry_forgot_is_registered_again_within_a_beat(directory, clock):
    async with registrar(directory, clock, beat=5):
        directory.forget("d1")
        await clock.advance(5)
        assert await directory.registered(ME)


async def test_a_ttl_is_beaten_three_times_over(directory, clock):
    async with registrar(directory, clock, WITH_TTL, beat=60):
        await clock.advance(15)
        assert directory.calls.count("beat") == 3
        directory.forget("d1")
        await clock.advance(5)
        assert await directory.registered(ME)


async def test_an_http_check_is_not_beaten(directory, clock):
    async with registrar(directory, clock):
        await clock.advance(60)
    assert directory.calls == ["register", "deregister"]


async def test_maintenance_takes_it_out_and_back_in(directory, clock):
    async with registrar(directory, clock) as mine:
        assert await mine.maintenance(True, "stopping")
        assert await directory.health() is Health.DRAINING
        assert "maintenance True stopping" in directory.calls
        await clock.advance(60)
        assert await directory.health() is Health.DRAINING
        assert await mine.maintenance(False)
        assert await directory.health() is Health.PASSING


async def test_maintenance_in_an_outage_is_applied_when_the_registry_is_back(directory, clock):
    async with registrar(directory, clock) as mine:
        directory.fail()
        assert not await mine.maintenance(True)
        assert mine.snapshot().maintenance
        directory.heal()
        await clock.advance(10)
        assert await directory.health() is Health.DRAINING


async def test_an_instance_out_of_service_is_not_put_back_because_it_was_forgotten(directory, clock):
    async with registrar(directory, clock) as mine:
        await mine.maintenance(True)
        directory.forget("d1")
        await clock.advance(60)
        assert await directory.health() is None
        await mine.maintenance(False)
        assert await directory.health() is Health.PASSING


async def test_maintenance_waits_for_a_registration_under_way(directory, clock):
    async with registrar(directory, clock) as mine:
        directory.forget("d1")
        directory.gate.clear()
        await clock.advance(5)
        draining = asyncio.ensure_future(mine.maintenance(True))
        await clock.settle()
        assert not draining.done()
        directory.gate.set()
        assert await draining
        assert await directory.health() is Health.DRAINING


NEWER = msgspec.structs.replace(ME, version="2")


async def test_an_update_is_in_the_registry_when_it_returns(directory, clock):
    async with registrar(directory, clock) as mine:
        assert await mine.update(NEWER)
        assert directory.registrations["d1"] == NEWER
        assert directory.calls == ["register", "register"]
        assert mine.snapshot().registered
        await clock.advance(60)
        assert directory.calls == ["register", "register"]


async def test_an_update_in_an_outage_is_said_when_the_registry_is_back(directory, clock):
    async with registrar(directory, clock) as mine:
        directory.fail()
        assert not await mine.update(NEWER)
        assert mine.snapshot().last_error == "scripted outage"
        await clock.advance(30)
        assert directory.registrations["d1"] == ME
        directory.heal()
        await clock.advance(5)
        assert directory.registrations["d1"] == NEWER


async def test_of_two_updates_in_an_outage_the_last_one_is_said(directory, clock):
    async with registrar(directory, clock) as mine:
        directory.fail()
        await mine.update(NEWER)
        await mine.update(msgspec.structs.replace(ME, version="3"))
        directory.heal()
        await clock.advance(5)
        assert directory.registrations["d1"].version == "3"


async def test_an_update_does_not_bring_an_instance_back_into_service(directory, clock):
    async with registrar(directory, clock) as mine:
        await mine.maintenance(True)
        assert await mine.update(NEWER)
        await clock.advance(60)
        assert await directory.health() is Health.DRAINING
        await mine.maintenance(False)
        assert await directory.health() is Health.PASSING
        assert directory.registrations["d1"] == NEWER


async def test_an_update_waits_for_a_registration_under_way(directory, clock):
    directory.gate.clear()
    mine = registrar(directory, clock)
    entering = asyncio.ensure_future(mine.__aenter__())
    await clock.settle()
    updating = asyncio.ensure_future(mine.update(NEWER))
    await clock.settle()
    assert directory.calls == ["register"]
    assert not updating.done()
    directory.gate.set()
    await entering
    assert await updating
    assert directory.registrations["d1"] == NEWER
    await mine.__aexit__(None, None, None)


async def test_an_update_does_not_take_the_id_from_who_has_taken_it_over(directory, clock, caplog):
    async with registrar(directory, clock) as mine:
        await directory.register(OTHER)
        assert not await mine.update(NEWER)
        assert directory.registrations["d1"] == OTHER
        assert "d1 now belongs to 127.0.0.1:9002" in mine.snapshot().last_error
        directory.forget("d1")
        await clock.advance(10)
        assert directory.registrations["d1"] == NEWER


async def test_an_updated_instance_is_gone_after_leaving(directory, clock):
    async with registrar(directory, clock, WITH_TTL) as mine:
        await mine.update(msgspec.structs.replace(WITH_TTL, version="2"))
        await clock.advance(15)
        assert directory.calls.count("beat") == 3
    assert directory.registrations == {}


async def test_leaving_is_bounded_when_the_registry_hangs(directory, clock, caplog):
    mine = registrar(directory, clock)
    await mine.__aenter__()
    directory.gate.clear()
    leaving = asyncio.ensure_future(mine.__aexit__(None, None, None))
    await clock.advance(DEREGISTER_WITHIN - 0.1)
    assert not leaving.done()
    await clock.advance(0.2)
    await leaving
    assert "d1 was not deregistered: no answer within 5 s" in caplog.text


async def test_leaving_is_quiet_when_the_registry_is_away(directory, clock, caplog):
    async with registrar(directory, clock):
        directory.fail(RegistryUnavailable("refused"))
    assert "d1 was not deregistered: refused" in caplog.text


async def test_an_outage_is_logged_once_and_so_is_its_end(directory, clock, caplog):
    caplog.set_level("INFO")
    async with registrar(directory, clock):
        directory.fail()
        await clock.advance(120)
        directory.heal()
        await clock.advance(10)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
