"""A dashboard over a registry and nodes on real sockets: it shows them, drains them, and says what it cannot know."""

import asyncio
import socket
import time
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from registry import HttpCheck, Registration, TtlCheck, connect
from registry.consul.settings import consul_settings
from registry.dashboard.model import Kind
from registry.dashboard.service import Dashboard
from registry.embedded import EmbeddedRegistry
from registry.errors import ConfigurationError
from registry.model import Health
from registry.serving import server_tls, trusting
from registry.token import Token, Tokens
from tests.certificates import Authority
from tests.registry.dashboard.house import ADMIN, OPERATOR, House, until

pytestmark = pytest.mark.timeout(60)


class Node:
    """What a dashboard asks of a node: its load, and to drain."""

    def __init__(self):
        self.asked, self.draining, self.queue = [], False, 3

    @asynccontextmanager
    async def open(self):
        app = web.Application()
        app.router.add_get("/load", self._load)
        app.router.add_get("/healthz", self._load)
        app.router.add_route("*", "/admin/{verb}", self._admin)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _load(self, _):
        return web.json_response({"wait_ms": 12.5, "inflight": 4, "queue": self.queue, "rps": 40.0})

    async def _admin(self, request):
        self.asked.append((request.match_info["verb"], request.headers.get("Authorization")))
        self.draining = True
        return web.json_response({"state": "draining", "refusing": True, "held": {"requests": 0}})


def registration(number, port, **more):
    return Registration(
        **{
            "service": "digits",
            "id": f"digits-{number}",
            "address": "127.0.0.1",
            "port": port,
            "meta": {"load": "/load"},
            "check": TtlCheck(ttl=600),
            **more,
        }
    )


class Site(House):
    """A dashboard over a real registry, by the clock of the machine."""

    def __init__(self, address, folder, **options):
        file = folder / "operators"
        file.write_text(OPERATOR + "\n")
        self.cookie = self.csrf = ""
        self.shown = Dashboard(
            consul_settings(address, {}),
            port=0,
            **{"operators": Tokens(file), "admin_token": Token(ADMIN), "cluster": "lab", **options},
        )
        self.state = self.shown.state


@pytest.fixture
async def directory():
    async with EmbeddedRegistry() as registry:
        directory = connect(registry.url)
        directory.url = registry.url
        yield directory
        await directory.close()


async def test_nodes_appear_with_their_load_are_drained_and_events_say_who(directory, tmp_path) -> None:
    async with Node().open() as node, Site(directory.url, tmp_path).open() as site:
        async with site.follow("/instances") as stream:
            assert "parts" in await stream.next()
            for number in range(6):
                await directory.register(registration(number, node.port))
                await directory.beat(f"digits-{number}")
            while "digits-5" not in str(message := await stream.parts(10)):
                assert message is not None
        await until(lambda: site.state.loads.get("digits", "digits-1"), "a load", 10)
        row = next(each for each in (await site.get("/api/v1/instances")).json["rows"] if each["id"] == "digits-1")
        assert row["health"] == "passing"
        assert 3.0 in row.values()  # its queue
        await site.sign_in("ada")
        form = {"kind": "drain", "id": "digits/digits-1", "reason": "new disk", "csrf": site.csrf}
        answer = await site.post("/actions/drain", form)
        assert answer.headers["Location"] == "/orders/1"
        await until(lambda: site.state.drains.order("1").ended, "the order", 10)
        assert node.asked == [("drain", f"Bearer {ADMIN}")]
        text = (await site.get("/events")).text
        assert "ada drains digits-1: new disk" in text
        assert "digits-1 is drained" in text
        snapshot = site.shown.snapshot()
        assert (snapshot["services"], snapshot["instances"]) == (1, 6)


async def test_a_node_that_falls_ill_is_told_with_its_cause(directory, tmp_path) -> None:
    await directory.register(registration(1, 1, check=HttpCheck(url="http://127.0.0.1:1/healthz", interval=1.0)))
    async with Site(directory.url, tmp_path).open() as site:

        def health():
            found = site.state.source.fleet.member("digits", "digits-1")
            return found and found.health

        await until(lambda: health() is Health.CRITICAL, "that it is critical", 10)
        text = (await site.get("/instances/digits/digits-1")).text
        assert "critical" in text
        assert "connect" in text.lower()  # what the check says
        await directory.deregister("digits-1")
        await until(lambda: health() is None, "its end", 10)
        assert site.state.journal.newest(1)[0].kind is Kind.GONE
        gone = await site.get("/instances/digits/digits-1")
        assert gone.status == 200
        assert "gone" in gone.text


async def test_a_registry_that_is_away_at_the_start_is_told_and_comes(tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with Site(f"consul://127.0.0.1:{port}", tmp_path).open() as site:
        await until(lambda: site.state.source.fleet.registry.error, "a first failure", 10)
        text = (await site.get("/")).text
        assert "The registry has not answered yet." in text
        assert "no data yet" in text
        async with site.follow("/about") as stream:
            first = await stream.parts()
            assert "not answered yet" in first["parts"]["notice"]
            async with EmbeddedRegistry(port=port):
                while "notice" not in (message := await stream.parts(15))["parts"]:
                    pass
                assert "<p" not in message["parts"]["notice"]
                assert site.state.source.fleet.registry.live


async def test_only_the_services_asked_for_are_shown(directory, tmp_path) -> None:
    for name in ("digits", "cats", "dogs"):
        await directory.register(registration(1, 1, service=name, id=f"{name}-1"))
    async with Site(directory.url, tmp_path, only=("d*",)).open() as site:
        await until(lambda: len(site.state.source.fleet.services) == 2, "both", 10)
        assert "cats" not in (await site.get("/")).text
        assert "d*" in (await site.get("/about")).text


async def test_it_serves_tls(tmp_path) -> None:
    authority = Authority(tmp_path)
    site = Site("consul://127.0.0.1:1", tmp_path, tls=server_tls(*authority.issue("site")))
    async with site.shown, aiohttp.ClientSession() as session:
        url = site.shown.url
        assert url.startswith("https://127.0.0.1:")
        trust = trusting(authority.certificate)
        async with session.get(url, ssl=trust) as answer:
            assert answer.status == 200
        form, own = {"token": OPERATOR, "name": "ada"}, {"Origin": url}
        async with session.post(f"{url}/sign-in", data=form, headers=own, ssl=trust, allow_redirects=False) as answer:
            assert answer.headers["Set-Cookie"].endswith("; Secure")


async def test_a_port_in_use_is_one_line_and_leaves_nothing_behind(tmp_path) -> None:
    async with Site("consul://127.0.0.1:1", tmp_path).open() as site:
        port = int(site.shown.address.rpartition(":")[2])
        other = Dashboard(consul_settings("consul://127.0.0.1:1", {}), port=port)
        with pytest.raises(ConfigurationError, match="in use; choose another one with --port"):
            await other.__aenter__()
        assert other._tasks == []
        await other.state.close()


async def test_what_it_is_configured_with_is_told_without_secrets(tmp_path) -> None:
    async with Site("consul://127.0.0.1:1", tmp_path, floor=3).open() as site:
        text = (await site.get("/about")).text
        for words in ("consul://127.0.0.1:1", "with an operator token", "from anybody who reaches", "given"):
            assert words in text
        assert OPERATOR not in text
        assert ADMIN not in text


async def test_that_it_follows_the_fleet_no_longer_is_a_fault_that_can_be_waited_for(tmp_path) -> None:
    site = House(tmp_path)

    async def fail():
        raise ZeroDivisionError

    site.state.run = fail
    async with site.open():
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(site.shown.fault(), 5)


async def test_waiting_for_a_fault_ends_nothing(tmp_path) -> None:
    house = House(tmp_path)
    async with house.open():
        waiting = asyncio.ensure_future(house.shown.fault())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.sleep(0.01)
        assert not any(each.done() for each in house.shown._tasks)


async def test_it_ends_soon_with_streams_open_and_a_registry_that_hangs(directory, tmp_path) -> None:
    site = Site(directory.url, tmp_path)
    async with site.open():
        await until(lambda: site.state.source.fleet.registry.live, "the registry", 10)
        async with site.follow("/") as stream:
            await stream.next()
            began = time.monotonic()
            await site.shown.__aexit__()
            assert time.monotonic() - began < 2.5
            assert (await stream.rest())[-1] is None
