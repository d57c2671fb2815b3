"""The source over the embedded registry and a real Consul, and over servers that do what those do rarely."""

import asyncio
import json
import random
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from infra.consul.agent import free_port
from registry import Registration, TtlCheck, connect
from registry.consul.settings import ConsulSettings, consul_settings
from registry.dashboard import source as module
from registry.dashboard.model import Kind
from registry.dashboard.source import Source
from registry.embedded import EmbeddedRegistry
from registry.model import Health
from registry.testing import ManualClock
from registry.timing import SystemClock
from registry.token import Token

TOKEN = "c0ffee-token"  # no secret of anything
REGISTRY = pytest.mark.parametrize("kind", ["embedded", pytest.param("consul", marks=pytest.mark.consul)])


class Seen:
    """A source at work, and all it has said."""

    def __init__(self, settings, *, clock=None, **more):
        self.events, self.fleets = [], []
        self.source = Source(
            settings, clock=clock or SystemClock(), rng=random.Random(1), on_change=self._changed, **more
        )

    def _changed(self, fleet, events):
        self.fleets.append(fleet)
        self.events += events

    @property
    def fleet(self):
        return self.source.fleet

    def words(self, kind=None):
        return [each.words for each in self.events if kind in {None, each.kind}]

    def health(self, service):
        found = self.fleet.services.get(service)
        return None if found is None else {each.id: each.health for each in found.members}


@asynccontextmanager
async def watching(settings, **more):
    seen = Seen(settings, **more)
    running = asyncio.create_task(seen.source.run())
    try:
        yield seen
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await seen.source.close()


async def until(condition, what, seconds=15.0):
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not within {seconds:.0f} s: {what}"
        await asyncio.sleep(0.02)


def settings_of(address):
    return consul_settings(address, {})


def registration(number, service="digits"):
    return Registration(
        service=service, id=f"{service}-{number}", address="127.0.0.1", port=9000 + number, check=TtlCheck(ttl=600)
    )


@pytest.fixture
async def address(kind, request):
    if kind == "consul":
        yield request.getfixturevalue("consul_agent").address
    else:
        async with EmbeddedRegistry() as registry:
            yield registry.address


@pytest.fixture
async def directory(address):
    made = connect(address)
    yield made
    await made.close()


@REGISTRY
async def test_an_instance_appears_fails_drains_comes_back_and_goes(address, directory):
    await directory.register(registration(1, "fold"))
    try:
        # A pattern, for others use the same Consul.
        async with watching(settings_of(address), only=("fold*",)) as seen:
            await until(lambda: seen.health("fold"), "the first list")
            assert seen.events == []
            assert not seen.fleet.services["fold"].members[0].witnessed

            await directory.register(registration(2, "fold"))
            await until(lambda: len(seen.health("fold")) == 2, "the second instance")
            assert seen.words() == ["fold-2 registered at 127.0.0.1:9002"]

            http = directory._http
            await http.put("/v1/agent/check/fail/service:fold-2", [("note", "connection refused")])
            await until(lambda: seen.health("fold")["fold-2"] is Health.CRITICAL, "the failure")
            (said,) = seen.words(Kind.HEALTH)
            assert said.startswith("fold-2 is critical: check service:fold-2")
            assert said.endswith("is critical: connection refused")

            await directory.maintenance("fold-1", on=True, reason="new disk")
            await until(lambda: seen.health("fold")["fold-1"] is Health.DRAINING, "the drain")
            assert seen.words(Kind.HEALTH)[1] == "fold-1 is draining: in maintenance: new disk"

            await directory.maintenance("fold-1", on=False)
            await until(lambda: seen.health("fold")["fold-1"] is Health.PASSING, "the end of the drain")
            assert seen.words(Kind.HEALTH)[2].startswith("fold-1 is passing again after ")

            await directory.deregister("fold-1")
            await directory.deregister("fold-2")
            await until(lambda: seen.health("fold") == {}, "an empty service")
            assert [each.instance for each in seen.events if each.kind is Kind.GONE] == ["fold-1", "fold-2"]
            assert seen.fleet.services["fold"].live
    finally:
        await directory.deregister("fold-1")
        await directory.deregister("fold-2")


@REGISTRY
async def test_a_service_that_appears_later_is_news(address, directory):
    async with watching(settings_of(address), only=("later",)) as seen:
        await until(lambda: seen.source._names is not None, "the first list of services")
        await directory.register(registration(1, "later"))
        try:
            await until(lambda: seen.health("later"), "the new service")
            assert seen.words() == ["later-1 registered at 127.0.0.1:9001"]
            assert seen.fleet.registry.live
            assert seen.fleet.registry.leader.startswith("127.0.0.1:")
            assert list(seen.fleet.services) == ["later"]
        finally:
            await directory.deregister("later-1")


@pytest.mark.consul
async def test_consuls_own_service_is_followed_when_it_is_named(consul_agent):
    for only, found in (((), False), (("*",), False), (("consul",), True)):
        async with watching(settings_of(consul_agent.address), only=only) as seen:
            await until(lambda seen=seen: seen.source._names is not None, "the list of services")
            assert ("consul" in seen.source._followed) is found


async def test_a_registry_that_dies_is_lost_and_comes_back(monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.1)
    port = free_port()
    async with watching(ConsulSettings(port=port)) as seen:
        async with EmbeddedRegistry(port=port):
            async with connect_to(port) as directory:
                await directory.register(registration(1))
            await until(lambda: seen.health("digits") and seen.fleet.registry.live, "the first list")
        await until(lambda: not seen.fleet.registry.live, "the loss")
        assert seen.words(Kind.REGISTRY_LOST)[-1].startswith("registry lost, lists stay as they were: no answer from")
        await until(lambda: not seen.fleet.services["digits"].live, "the service's own watch to notice")
        assert seen.health("digits") == {"digits-1": Health.PASSING}
        assert "no answer" in seen.fleet.services["digits"].error
        assert seen.fleet.registry.heard_at is not None
        async with EmbeddedRegistry(port=port):
            await until(lambda: seen.fleet.registry.live, "the return")
            assert seen.words(Kind.REGISTRY_BACK)[-1].startswith("registry back after ")
            assert len(seen.words(Kind.REGISTRY_BACK)) == len(seen.words(Kind.REGISTRY_LOST))


@asynccontextmanager
async def connect_to(port):
    directory = connect(f"127.0.0.1:{port}")
    try:
        yield directory
    finally:
        await directory.close()


class Scripted:
    """A server that answers what the test put there, by path; counts questions."""

    def __init__(self):
        self.leader, self.services, self.lists, self.asked = "127.0.0.1:8300", {}, {}, []
        self.hang, self.fail, self.index = False, 0, 1

    async def handle(self, request):
        self.asked.append(request.path)
        if self.hang:
            await asyncio.Event().wait()
        if self.fail:
            self.fail -= 1
            return web.Response(status=500, text=f"no cluster leader {TOKEN}")
        if request.path == "/v1/status/leader":
            return self._answer(self.leader)
        while int(request.query.get("index", 0)) >= self.index:
            await asyncio.sleep(0.01)
        if request.path == "/v1/catalog/services":
            return self._answer(self.services)
        return self._answer(self.lists.get(request.path.rpartition("/")[2], []))

    def _answer(self, what):
        # Written as Go writes it.
        body = json.dumps(what, separators=(",", ":")).encode()
        return web.Response(body=body, headers={"X-Consul-Index": str(self.index)})


@pytest.fixture
async def scripted():
    server = Scripted()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.settings = ConsulSettings(port=runner.addresses[0][1], token=Token(TOKEN))
    yield server
    await runner.cleanup()


def entry(key, node="n1", output="", status="passing", pad=""):
    return {
        "Node": {"Node": node, "Address": "127.0.0.1"},
        "Service": {"ID": key, "Service": "digits", "Port": 1, "Meta": {"pad": pad}},
        "Checks": [{"CheckID": f"c-{node}", "Name": "c", "Status": status, "Output": output, "ServiceID": key}],
    }


async def beat(seen, clock, what, condition):
    """Let heartbeats go by until something is so."""
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up, what
        await clock.advance(0.25)
        await asyncio.sleep(0.005)


async def test_one_failure_is_no_outage_and_two_are_told_once(scripted):
    clock = ManualClock()
    async with watching(scripted.settings, clock=clock) as seen:
        await beat(seen, clock, "the first answer", lambda: seen.fleet.registry.live and seen.source._names is not None)
        scripted.fail = 1
        await beat(seen, clock, "the failure to be used up", lambda: not scripted.fail)
        asked = len(scripted.asked)
        await beat(seen, clock, "beats after it", lambda: len(scripted.asked) >= asked + 3)
        assert seen.events == []

        scripted.fail = 8
        await beat(seen, clock, "the return", lambda: seen.words(Kind.REGISTRY_BACK))
        assert [each.kind for each in seen.events] == [Kind.REGISTRY_LOST, Kind.REGISTRY_BACK]
        assert "cannot answer now" in seen.events[0].words
        assert TOKEN not in str(seen.fleets) + str(seen.events)


async def test_a_registry_that_hangs_is_lost_too(scripted, monkeypatch):
    monkeypatch.setattr(module, "BEAT_WITHIN", 0.1)
    monkeypatch.setattr(module, "CONFIRM_WITHIN", 0.1)
    clock = ManualClock()
    async with watching(scripted.settings, clock=clock) as seen:
        await beat(seen, clock, "the first answer", lambda: seen.fleet.registry.live)
        heard_at, scripted.hang = seen.fleet.registry.heard_at, True
        await beat(seen, clock, "the loss", lambda: not seen.fleet.registry.live)
        assert "nothing within 0.1 s" in seen.fleet.registry.error
        assert seen.fleet.registry.heard_at >= heard_at
        scripted.hang = False
        await beat(seen, clock, "the return", lambda: seen.words(Kind.REGISTRY_BACK))


async def test_a_registry_without_a_leader_is_live_and_says_so(scripted):
    scripted.leader = ""
    clock = ManualClock()
    async with watching(scripted.settings, clock=clock) as seen:
        await beat(seen, clock, "an answer", lambda: seen.fleet.registry.live)
        assert (seen.fleet.registry.leader, seen.events) == ("", [])
        assert seen.fleet.registry.error.startswith("it has no leader now")


async def test_a_version_is_for_what_changed_and_not_for_the_time(scripted):
    scripted.services, scripted.lists = {"digits": []}, {"digits": [entry("d1")]}
    clock = ManualClock()
    async with watching(scripted.settings, clock=clock) as seen:
        await beat(seen, clock, "the list", lambda: seen.health("digits"))
        await beat(seen, clock, "a beat", lambda: seen.fleet.services["digits"].live)
        before, heard_at = seen.fleet, seen.fleet.registry.heard_at
        await beat(seen, clock, "more beats", lambda: seen.fleet.registry.heard_at > heard_at + 4)
        assert seen.fleet.version == before.version
        assert seen.fleet.services["digits"] is before.services["digits"]

        scripted.lists, scripted.index = {"digits": [entry("d1", output="another")]}, 2
        await beat(seen, clock, "the change", lambda: "another" in str(seen.fleet.services["digits"].members))
        assert seen.fleet.version > before.version
        assert seen.events == []


async def test_checks_go_with_their_machine_where_ids_collide(scripted):
    # So long that the answer is decoded in several steps.
    nodes = [f"n{number:03}" for number in range(400)]
    digits = [entry("web", node, output=f"of {node}", pad="x" * 500) for node in nodes]
    scripted.services, scripted.lists = {"digits": []}, {"digits": digits}
    async with watching(scripted.settings) as seen:
        await until(lambda: seen.health("digits"), "the list")
        members = seen.fleet.services["digits"].members
        assert [each.id for each in members] == [f"web@{node}" for node in nodes]
        assert [each.checks[0].output for each in members] == [f"of {node}" for node in nodes]
        assert type(members[0].instance).__name__ == "Instance"


async def test_services_beyond_the_bound_are_counted_and_get_the_place_of_those_that_left(scripted):
    scripted.services = {"a": [], "b": [], "c": [], "with/slash": []}
    clock = ManualClock()
    async with watching(scripted.settings, clock=clock, most_services=2) as seen:
        await beat(seen, clock, "two services", lambda: set(seen.fleet.services) == {"a", "b"})
        assert seen.fleet.unfollowed == 2
        assert not any("slash" in path for path in scripted.asked)

        scripted.services, scripted.index = {"b": [], "c": [], "with/slash": []}, 2
        await beat(seen, clock, "the third", lambda: set(seen.fleet.services) == {"b", "c"})
        assert seen.fleet.unfollowed == 1
        assert seen.events == []


async def test_a_service_that_left_is_shown_empty_for_a_day(scripted):
    scripted.services, scripted.lists = {"digits": [], "other": []}, {"digits": [entry("d1")]}
    clock = ManualClock()
    async with watching(scripted.settings, clock=clock) as seen:
        await beat(seen, clock, "the list", lambda: seen.health("digits"))
        scripted.services, scripted.lists, scripted.index = {"other": []}, {}, 2
        await beat(seen, clock, "nothing left of it", lambda: seen.health("digits") == {})
        assert seen.words()[0].startswith("d1 is gone; it was passing for ")
        await beat(seen, clock, "it has left", lambda: seen.source._followed["digits"].left is not None)
        clock._now += module.KEPT
        await beat(seen, clock, "the end of the day", lambda: "digits" not in seen.fleet.services)
        assert "other" in seen.fleet.services


async def test_one_service_that_cannot_be_read_says_so_and_the_others_go_on(scripted):
    scripted.services = {"digits": [], "other": []}
    scripted.lists = {"digits": {"not": "a list"}, "other": [entry("o1")]}
    clock = ManualClock()
    async with watching(scripted.settings, clock=clock) as seen:
        await beat(seen, clock, "both", lambda: set(seen.fleet.services) == {"digits", "other"})
        assert (seen.fleet.services["digits"].live, seen.fleet.services["other"].live) == (False, True)
        assert "cannot be read" in seen.fleet.services["digits"].error


async def test_a_list_of_services_hidden_by_access_control_is_told(scripted, monkeypatch):
    answer = scripted._answer

    def hiding(what):
        reply = answer(what)
        reply.headers["X-Consul-Results-Filtered-By-ACLs"] = "true"
        return reply

    monkeypatch.setattr(scripted, "_answer", hiding)
    clock = ManualClock()
    async with watching(scripted.settings, clock=clock) as seen:
        await beat(seen, clock, "a word about it", lambda: "service:read" in seen.fleet.registry.error)
        assert seen.fleet.registry.live
