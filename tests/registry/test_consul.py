"""The Consul directory against a scripted agent: what real ones do rarely."""

import asyncio
import json
import random

import pytest
from aiohttp import web

from infra.consul.agent import free_port
from registry import Registration, TtlCheck, connect
from registry.consul import REASK_EVERY, ConsulDirectory
from registry.consulhttp import ConsulSettings
from registry.errors import (
    ConfigurationError,
    InvalidAnswer,
    PermissionDenied,
    RegistrationRefused,
    RegistryUnavailable,
    UnknownInstance,
    Unsupported,
)
from registry.testing import ManualClock

TOKEN = "c0ffee-token"  # no secret of anything
ME = Registration(service="digits", id="d1", address="127.0.0.1", port=9001, check=TtlCheck())


def entry(number, **service):
    return {
        "Node": {"Node": "n"},
        "Service": {"ID": f"d{number}", "Service": "digits", "Port": 1} | service,
        "Checks": [],
    }


class Agent:
    """Answers by path with what the test put there, and remembers what it was asked."""

    def __init__(self):
        self.answers = {}
        self.asked = []

    def on(self, path, body=b"", *, status=200, method="GET", **headers):
        if not isinstance(body, bytes):
            body = json.dumps(body, separators=(",", ":")).encode()  # as Go writes it
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[method, path] = lambda request: web.Response(status=status, body=body, headers=headers)

    async def handle(self, request):
        await request.read()
        self.asked.append(request)
        answer = self.answers.get((request.method, request.path), lambda request: web.Response(status=404))
        return answer(request)

    def queries(self):
        return [dict(request.query) for request in self.asked]


@pytest.fixture
async def agent():
    agent = Agent()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", agent.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    agent.port = runner.addresses[0][1]
    yield agent
    await runner.cleanup()


class CountingClock(ManualClock):
    turns = 0

    async def sleep(self, seconds):
        self.turns += 1
        await super().sleep(seconds)


@pytest.fixture
def clock():
    return CountingClock()


@pytest.fixture
async def directory(agent, clock):
    settings = ConsulSettings(port=agent.port, token=TOKEN)
    directory = ConsulDirectory(settings, clock=clock, rng=random.Random(1))
    yield directory
    await directory.close()


DIGITS = "/v1/health/service/digits"


async def test_look_ups_are_stale_and_filtered_where_consul_can(agent, directory):
    agent.on(DIGITS, [entry(1)], X_Consul_Index="7", X_Consul_LastContact="1500")
    snapshot = await directory.lookup("digits", tag="t")
    assert agent.queries() == [{"passing": "1", "tag": "t", "stale": ""}]
    assert (snapshot.index, snapshot.stale_for, snapshot.source) == (7, 1.5, directory.source)
    await directory.lookup("digits", passing_only=False)
    assert agent.queries()[1] == {"stale": ""}


async def test_an_answer_too_old_is_asked_of_the_leader_once_and_not_too_often(agent, directory, clock):
    agent.on(DIGITS, [entry(1)], X_Consul_LastContact="60000")
    await directory.lookup("digits")
    assert [("stale" in query) for query in agent.queries()] == [True, False]
    await directory.lookup("digits")
    assert len(agent.asked) == 3
    await clock.advance(REASK_EVERY)
    await directory.lookup("digits")
    assert len(agent.asked) == 5


async def test_without_a_leader_the_old_answer_is_given_with_its_age(agent, directory):
    agent.answers["GET", DIGITS] = lambda request: (
        web.Response(body=json.dumps([entry(1)]).encode(), headers={"X-Consul-LastContact": "60000"})
        if "stale" in request.query
        else web.Response(status=500, text="No cluster leader")
    )
    snapshot = await directory.lookup("digits")
    assert snapshot.stale_for == 60.0
    assert len(snapshot.instances) == 1


async def test_a_leader_unknown_is_no_reason_to_have_no_list(agent, directory):
    agent.on(DIGITS, [entry(1)], X_Consul_KnownLeader="false")
    assert len((await directory.lookup("digits")).instances) == 1


async def test_an_empty_list_that_access_control_made_is_told(agent, directory):
    agent.on(DIGITS, [], X_Consul_Results_Filtered_By_ACLs="true")
    with pytest.raises(PermissionDenied, match="service:read"):
        await directory.lookup("digits")


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (500, b"No cluster leader", RegistryUnavailable, "No cluster leader"),
        (429, b"Your IP is issuing too many concurrent connections", RegistryUnavailable, "too many"),
        (403, b"Permission denied", PermissionDenied, "CONSUL_HTTP_TOKEN"),
        (401, b"ACL disabled", PermissionDenied, "ACL disabled"),
        (400, b"Invalid tag", ConfigurationError, "Invalid tag"),
        (404, b"not here", InvalidAnswer, "is the address right"),
        (200, b"<html>hello</html>", InvalidAnswer, "cannot be read"),
        (200, b'[{"Node":', InvalidAnswer, "cannot be read"),
    ],
)
async def test_what_goes_wrong_is_told_in_the_packages_own_errors(agent, directory, status, body, error, words):
    agent.on(DIGITS, body, status=status)
    with pytest.raises(error, match=words):
        await directory.lookup("digits")


async def test_the_token_is_sent_and_never_told(agent, directory, monkeypatch):
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "another")  # py-consul would prefer this one
    agent.on(DIGITS, f"no rights for {TOKEN}".encode(), status=403)
    with pytest.raises(PermissionDenied) as caught:
        await directory.lookup("digits")
    assert agent.asked[0].headers["X-Consul-Token"] == TOKEN
    assert TOKEN not in f"{caught.value!r} {directory.source} {directory.snapshot()} {ConsulSettings(token=TOKEN)!r}"


async def test_nobody_there_is_one_clear_line(agent):
    directory = connect(f"127.0.0.1:{free_port()}")
    with pytest.raises(RegistryUnavailable, match=r"connection refused.*twostep registry") as caught:
        await directory.lookup("digits")
    assert "\n" not in str(caught.value)
    await directory.close()


async def test_what_does_not_speak_http_is_told():
    async def gibberish(reader, writer):
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        writer.close()

    server = await asyncio.start_server(gibberish, "127.0.0.1", 0)
    directory = connect(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(RegistryUnavailable, match="does not speak HTTP"):
        await directory.lookup("digits")
    await directory.close()
    server.close()
    await server.wait_closed()


async def test_tls_files_that_are_none_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("CONSUL_CACERT", str(tmp_path / "none.pem"))
    directory = connect("https://127.0.0.1:8501")
    with pytest.raises(ConfigurationError, match="TLS files"):
        await directory.lookup("digits")


async def test_a_large_answer_leaves_the_loop_its_turns(agent, directory, clock):
    agent.on(DIGITS, [entry(number, Meta={"k": "v" * 400}) for number in range(3000)])
    snapshot = await directory.lookup("digits")
    assert len(snapshot.instances) == 3000
    assert clock.turns > 8


HELD = {"Service": {"ID": "d1", "Service": "digits", "Address": "127.0.0.1", "Port": 9001}}


def held(agent, *, status="passing", **service):
    answer = {"Service": HELD["Service"] | service, "Checks": [{"CheckID": "service:d1", "Status": status}]}
    code = {"passing": 200, "warning": 429, "critical": 503}[status]
    agent.on("/v1/agent/health/service/id/d1", answer, status=code)
    agent.on("/v1/agent/service/register", method="PUT")
    agent.on("/v1/agent/service/deregister/d1", method="PUT")


def writes(agent):
    return [request.path.removeprefix("/v1/agent/") for request in agent.asked if request.method == "PUT"]


async def test_an_id_alive_at_another_address_is_refused_by_name(agent, directory):
    held(agent, Port=9002)
    with pytest.raises(RegistrationRefused, match=r"127\.0\.0\.1:9002, which is alive; choose another id"):
        await directory.register(ME)
    assert writes(agent) == []


async def test_a_restart_on_the_same_address_replaces(agent, directory):
    held(agent)
    await directory.register(ME)
    assert writes(agent) == ["service/register"]


@pytest.mark.parametrize("port", [9001, 9002])
async def test_a_critical_one_is_removed_first_for_its_status_would_be_inherited(agent, directory, port):
    held(agent, status="critical", Port=port)
    await directory.register(ME)
    assert writes(agent) == ["service/deregister/d1", "service/register"]


async def test_what_the_agent_refuses_of_a_registration_is_told(agent, directory):
    agent.on("/v1/agent/service/register", b"Invalid Service Meta", status=400, method="PUT")
    with pytest.raises(RegistrationRefused, match="Invalid Service Meta"):
        await directory.register(ME)


async def test_something_that_is_no_consul_takes_no_registration(agent, directory):
    with pytest.raises(InvalidAnswer, match="is the address right"):
        await directory.register(ME)


@pytest.mark.parametrize("status", [404, 500])
async def test_a_beat_of_a_forgotten_instance_says_so_with_old_agents_and_new(agent, directory, status):
    agent.on("/v1/agent/check/pass/service:d1", b"no such check", status=status, method="PUT")
    with pytest.raises(UnknownInstance, match="d1 is not registered"):
        await directory.beat("d1")


async def test_a_beat_for_a_check_that_takes_none_says_so(agent, directory):
    held(agent)
    agent.on("/v1/agent/check/pass/service:d1", b"does not have associated TTL", status=500, method="PUT")
    with pytest.raises(Unsupported, match="TtlCheck"):
        await directory.beat("d1")


async def test_maintenance_returns_when_look_ups_have_stopped_naming_it(agent, directory, clock):
    held(agent)
    agent.on("/v1/agent/service/maintenance/d1", method="PUT")
    agent.on(DIGITS, [entry(1), entry(2)])
    draining = asyncio.ensure_future(directory.maintenance("d1", True))
    await until(lambda: clock.sleepers)
    agent.on(DIGITS, b"No cluster leader", status=500)
    await clock.advance(0.06)
    await until(lambda: clock.sleepers)
    assert not draining.done()
    agent.on(DIGITS, [entry(2)])
    await clock.advance(0.06)
    await draining
    assert agent.queries()[-1] == {"passing": "1"}


async def test_deregistering_waits_no_longer_than_two_seconds(agent, directory, clock):
    held(agent)
    agent.on(DIGITS, [entry(1)])
    leaving = asyncio.ensure_future(directory.deregister("d1"))
    start = clock.monotonic()
    while not leaving.done():
        await asyncio.sleep(0.001)
        await clock.advance(0.05)
    await leaving
    assert 1.9 < clock.monotonic() - start < 2.5


async def test_closing_ends_a_watch_that_waits(agent, directory):
    watch = directory.watch("digits")
    agent.on(DIGITS, [entry(1)], X_Consul_Index="5")
    await anext(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    await directory.close()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)
