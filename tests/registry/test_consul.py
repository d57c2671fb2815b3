"""The Consul directory against a scripted agent: what real ones do rarely."""

import asyncio
import contextlib
import inspect
import json
import random
import socket
import traceback

import pytest
from aiohttp import web

from infra.consul.agent import free_port
from registry import Registration, TtlCheck, connect
from registry.consul import transport as consultransport
from registry.consul.directory import ConsulDirectory
from registry.consul.reads import REASK_EVERY
from registry.consul.settings import ConsulSettings
from registry.consul.transport import _here
from registry.errors import (
    ConfigurationError,
    InvalidAnswer,
    PermissionDenied,
    RegistrationRefused,
    RegistryError,
    RegistryUnavailable,
    UnknownInstance,
    Unsupported,
)
from registry.testing import ManualClock
from registry.token import Token

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
        answer = self.answers.get((request.method, request.path), lambda request: web.Response(status=404))(request)
        return await answer if inspect.isawaitable(answer) else answer

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
async def make(agent, clock):
    """Directories on the agent, with settings of the test's own."""
    made = []

    def make(**settings):
        directory = ConsulDirectory(ConsulSettings(port=agent.port, **settings), clock=clock, rng=random.Random(1))
        made.append(directory)
        return directory

    yield make
    for directory in made:
        await directory.close()


@pytest.fixture
def directory(make):
    return make(token=Token(TOKEN))


DIGITS = "/v1/health/service/digits"


async def test_lists_are_packed_for_the_way_over_a_link_only(agent, make, monkeypatch):
    agent.on(DIGITS, [entry(1)])
    await make(host="127.0.0.1").lookup("digits")
    monkeypatch.setattr("registry.consul.transport._here", lambda host: host != "127.0.0.1")
    await make(host="127.0.0.1").lookup("digits")
    assert "gzip" not in agent.asked[0].headers["Accept-Encoding"]
    assert "gzip" in agent.asked[1].headers["Accept-Encoding"]


@pytest.mark.parametrize(
    ("host", "here"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.5", False), ("consul", False)]
)
def test_which_hosts_are_this_machine(host, here):
    assert _here(host) is here


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


VIEW = "/v1/agent/health/service/name/digits"


async def test_an_empty_list_is_no_answer_to_who_may_not_see_the_service(agent, directory):
    agent.on(DIGITS, [])
    agent.on(VIEW, b"Permission denied", status=403)
    with pytest.raises(PermissionDenied, match="hides the instances of digits"):
        await directory.lookup("digits")
    watch = directory.watch("digits")
    with pytest.raises(PermissionDenied, match="hides"):
        await watch._read(index=0, stale=False)


@pytest.mark.parametrize(("status", "body"), [(404, b"[]"), (503, b"[]"), (500, b"No cluster leader"), (400, b"?")])
async def test_an_empty_list_is_one_unless_the_agent_refuses_to_speak_of_the_service(agent, directory, status, body):
    agent.on(DIGITS, [])
    agent.on(VIEW, body, status=status)
    assert (await directory.lookup("digits")).instances == ()


async def test_a_watch_asks_no_second_question_about_an_empty_list_until_it_confirms_one(agent, directory):
    agent.on(DIGITS, [])
    read = directory.watch("digits")._read
    assert [(await read(index=0, stale=stale)).calls for stale in (True, False)] == [1, 2]
    assert [request.path for request in agent.asked] == [DIGITS, DIGITS, VIEW]


async def test_an_agent_is_not_asked_about_another_datacenters_service(agent, make):
    agent.on(DIGITS, [])
    agent.on(VIEW, b"Permission denied", status=403)
    assert (await make(dc="dc2").lookup("digits")).instances == ()


# --- what the address and the environment ask for


async def test_the_datacenter_is_asked_for_where_it_matters(agent, make):
    directory = make(dc="dc2")
    agent.on(DIGITS, [entry(1)])
    agent.on("/v1/agent/self", {"Config": {"Datacenter": "dc2"}})
    agent.on("/v1/agent/service/register", method="PUT")
    snapshot = await directory.lookup("digits")
    await directory.register(ME)
    assert snapshot.source == directory.source == f"consul://127.0.0.1:{agent.port}?dc=dc2"
    assert [request.path for request in agent.asked if "dc" in request.query] == [DIGITS]


async def test_checks_and_names_of_services_are_those_of_the_datacenter_and_asked_of_any_server(agent, make):
    agent.on(DIGITS, [entry(1)])
    agent.on("/v1/catalog/services", {"photos": [], "digits": ["a"]})
    directory = make(dc="dc2")
    assert await directory.checks("digits") == {"d1": ()}
    assert await directory.services() == ("digits", "photos")
    assert agent.queries() == [{"dc": "dc2", "stale": ""}] * 2


async def test_a_datacenter_nobody_knows_is_one_clear_line_and_may_come_back(agent, make):
    agent.on(DIGITS, b"No path to datacenter", status=500)
    with pytest.raises(RegistryUnavailable, match="knows no way to datacenter 'dc9'; check dc in the address"):
        await make(dc="dc9").lookup("digits")


async def test_an_agent_of_another_datacenter_takes_no_registration(agent, make):
    agent.on("/v1/agent/self", {"Config": {"Datacenter": "dc1"}})
    with pytest.raises(RegistrationRefused, match="registers in dc1, not in dc2; name an agent of dc2"):
        await make(dc="dc2").register(ME)
    assert writes(agent) == []


async def test_who_may_not_ask_for_the_agents_datacenter_registers_all_the_same(agent, make):
    agent.on("/v1/agent/self", b"Permission denied", status=403)
    agent.on("/v1/agent/service/register", method="PUT")
    await make(dc="dc2").register(ME)
    assert writes(agent) == ["service/register"]


async def test_the_namespace_goes_with_every_call(agent, make):
    directory = make(namespace="team")
    agent.on(DIGITS, [entry(1)])
    held(agent)
    await directory.lookup("digits")
    await directory.register(ME)
    assert {query.get("ns") for query in agent.queries()} == {"team"}
    assert directory.source.endswith("?namespace=team")


async def test_a_consul_without_namespaces_is_noticed_once_and_asked_without(agent, make, caplog):
    directory = make(namespace="team")
    refusal = 'Bad request: Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature'
    agent.answers["GET", DIGITS] = lambda request: (
        web.Response(status=400, text=refusal) if "ns" in request.query else web.json_response([entry(1)])
    )
    found = await asyncio.gather(*[directory.lookup("digits") for _ in range(3)])
    assert [len(each.instances) for each in found] == [1, 1, 1]
    await directory.lookup("digits")
    assert "ns" not in agent.queries()[-1]
    assert [record.message.partition(" ")[2] for record in caplog.records] == [
        "has no namespaces; team is left out from now on"
    ]


async def test_cached_reads_say_so_and_their_age_counts(agent, make):
    directory = make(cached=True)
    agent.on(DIGITS, [entry(1)], Age="3", X_Consul_LastContact="500")
    assert (await directory.lookup("digits")).stale_for == 3.5
    assert agent.queries() == [{"passing": "1", "stale": "", "cached": ""}]


async def test_what_confirms_is_neither_cached_nor_stale(agent, make):
    directory = make(cached=True)
    agent.on(DIGITS, [entry(1)], Age="30")
    await directory.lookup("digits")
    await directory.watch("digits")._read(index=0, stale=False)
    assert agent.queries()[1:] == [{"passing": "1"}, {"passing": "1"}]


async def test_a_reading_says_how_many_calls_it_took(agent, directory):
    agent.on(DIGITS, [entry(1)], X_Consul_LastContact="60000")
    watch = directory.watch("digits")
    assert [(await watch._read(index=0, stale=True)).calls for _ in range(2)] == [2, 1]


async def test_zone_version_and_metadata_are_filtered_here(agent, directory):
    several = [entry(number, Meta={"zone": zone, "rack": "1"}) for number, zone in ((1, "a"), (2, "b"), (3, "a"))]
    agent.on(DIGITS, several)
    found = await directory.lookup("digits", zone="a", meta={"rack": "1"})
    assert [each.id for each in found.instances] == ["d1", "d3"]
    assert (await directory.lookup("digits", version="1")).instances == ()


# --- errors


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (500, b"No cluster leader", RegistryUnavailable, "No cluster leader"),
        (429, b"Your IP is issuing too many concurrent connections", RegistryUnavailable, "too many"),
        (403, b"Permission denied", PermissionDenied, "CONSUL_HTTP_TOKEN"),
        (401, b"ACL disabled", PermissionDenied, "ACL disabled"),
        (400, b"Invalid tag", ConfigurationError, "Invalid tag"),
        (404, b"not here", InvalidAnswer, "is the address right"),
        (302, b"", InvalidAnswer, "answered 302, as Consul would not"),
        (400, b"Client sent an HTTP request to an HTTPS server.", ConfigurationError, "write https://"),
        (403, b"\x1b[2Jgone\r\nmore", PermissionDenied, r"access: \\x1b\[2Jgone; "),
        (500, b"\xff" * 9_000_000, RegistryUnavailable, "cannot answer now"),
        (500, b"", RegistryUnavailable, "no reason given"),
        (200, b"<html>hello</html>", InvalidAnswer, "cannot be read"),
        (200, b'[{"Node":', InvalidAnswer, "cannot be read"),
    ],
)
async def test_what_goes_wrong_is_told_in_the_packages_own_errors(agent, directory, status, body, error, words):
    agent.on(DIGITS, body, status=status)
    with pytest.raises(error, match=words) as caught:
        await directory.lookup("digits")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


async def test_a_redirect_is_not_followed_for_it_would_carry_the_token_away(agent, directory):
    agent.on(DIGITS, status=302, Location=f"http://127.0.0.1:{agent.port}/elsewhere")
    with pytest.raises(InvalidAnswer):
        await directory.lookup("digits")
    assert [request.path for request in agent.asked] == [DIGITS]


async def test_the_token_is_sent_and_never_told(agent, directory, monkeypatch):
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "another")  # py-consul would prefer this one
    agent.on(DIGITS, f"no rights for {TOKEN}".encode(), status=403)
    with pytest.raises(PermissionDenied) as caught:
        await directory.lookup("digits")
    assert agent.asked[0].headers["X-Consul-Token"] == TOKEN
    assert (
        TOKEN
        not in f"{caught.value!r} {directory.source} {directory.snapshot()} {ConsulSettings(token=Token(TOKEN))!r}"
    )


async def test_a_token_file_that_changed_is_used_with_the_next_call(agent, make, tmp_path):
    path = tmp_path / "token"
    path.write_text("one")
    directory = make(token=Token(path=path))
    agent.on(DIGITS, [entry(1)])
    await directory.lookup("digits")
    path.write_text("two")
    await directory.lookup("digits")
    assert [request.headers["X-Consul-Token"] for request in agent.asked] == ["one", "two"]


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 429, 500, 503])
async def test_no_error_and_no_log_holds_a_token_that_the_server_repeats(agent, directory, caplog, status):
    caplog.set_level("DEBUG")
    for path in (DIGITS, VIEW, "/v1/agent/self", "/v1/agent/health/service/id/d1", "/v1/agent/service/register",
                 "/v1/agent/check/pass/service:d1", "/v1/agent/service/maintenance/d1"):  # fmt: skip
        for method in ("GET", "PUT"):
            agent.on(path, f'"{TOKEN}" {TOKEN}'.encode(), status=status, method=method)
    told = []
    for call in (
        directory.lookup("digits"), directory.register(ME), directory.registered(ME), directory.beat("d1"),
        directory.maintenance("d1", True), directory.deregister("d1"),
    ):  # fmt: skip
        try:
            await call
        except RegistryError as error:
            told += traceback.format_exception(error)
    assert told
    assert TOKEN not in "".join(told) + caplog.text


async def test_an_answer_beyond_all_bounds_is_refused_while_it_is_read(agent, directory, monkeypatch):
    monkeypatch.setattr(consultransport, "LARGEST_ANSWER", 1 << 20)
    written = 0

    async def endless(request):
        nonlocal written
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b" " * 65536)
            written += 65536

    agent.answers["GET", DIGITS] = endless
    with pytest.raises(InvalidAnswer, match="larger than 1 MB"):
        await directory.lookup("digits")
    assert written < 16 << 20


async def test_an_answer_that_announces_too_much_is_not_read_at_all(agent, directory):
    async def announce(request):
        answer = web.StreamResponse()
        answer.content_length = consultransport.LARGEST_ANSWER + 1
        await answer.prepare(request)
        while True:  # until nobody listens any more
            await answer.write(b" ")
            await asyncio.sleep(0.01)

    agent.answers["GET", DIGITS] = announce
    with pytest.raises(InvalidAnswer, match="larger than 256 MB"):
        await directory.lookup("digits")


async def test_what_swallows_packets_is_given_up_sooner_than_what_thinks(monkeypatch):
    monkeypatch.setattr(consultransport, "CONNECT_WITHIN", 0.2)
    with socket.socket() as full, contextlib.ExitStack() as others:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # until its queue is full, and the kernel drops what comes
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        directory = connect(f"127.0.0.1:{full.getsockname()[1]}")
        with pytest.raises(RegistryUnavailable, match="no connection within 5 s"):
            await directory.lookup("digits")
        await directory.close()


@pytest.mark.parametrize("index", ["x", "-1", "", "1e3", "9" * 21, "9" * 5000, str(2**64), "٣"])
async def test_an_index_that_is_none_counts_as_none(agent, directory, index):
    agent.on(DIGITS, [entry(1)], X_Consul_Index=index)
    assert (await directory.lookup("digits")).index == 0


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


async def test_another_that_took_the_id_in_the_same_moment_is_noticed(agent, directory):
    def taken(request):
        held(agent, Port=9002)  # theirs came after ours
        return web.Response()

    agent.answers["PUT", "/v1/agent/service/register"] = taken
    with pytest.raises(RegistrationRefused, match=r"127\.0\.0\.1:9002, which is alive"):
        await directory.register(ME)


async def test_a_registration_is_known_only_while_it_is_ours(agent, directory):
    assert not await directory.registered(ME)
    held(agent)
    assert await directory.registered(ME)
    held(agent, status="critical")
    assert await directory.registered(ME)
    held(agent, status="critical", Port=9002)
    assert not await directory.registered(ME)
    held(agent, Port=9002)
    with pytest.raises(RegistrationRefused, match="choose another id"):
        await directory.registered(ME)


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
