"""The directory on look-up services over real sockets."""

import asyncio
import random
import socket
import ssl
import subprocess

import pytest

from registry import Registration, connect
from registry.errors import (
    ConfigurationError,
    InvalidAnswer,
    PermissionDenied,
    RegistryUnavailable,
    Unsupported,
)
from registry.lookup.client.address import lookup_settings
from registry.lookup.client.directory import LookupDirectory
from registry.lookup.client.lines import LARGEST
from registry.model import Health
from registry.query import Query
from registry.testing import ManualClock, instance
from registry.timing import SystemClock
from tests.registry.lookup_client.fake import TOKEN, FakeService, delta, heartbeat, listing, some, whole


class First(random.Random):
    """Begins with the first address."""

    def randrange(self, *_):
        return 0


def directory_at(*addresses, clock=None, options="", scheme="lookup", **environment):
    settings = lookup_settings(f"{scheme}://{','.join(addresses)}{options}", environment, First())
    return LookupDirectory(settings, clock=clock or SystemClock(), rng=First())


@pytest.fixture
async def service():
    async with FakeService(some(2)) as service:
        yield service


@pytest.fixture
async def directory(service):
    directory = directory_at(service.address)
    yield directory
    await directory.close()


@pytest.fixture
def nobody():
    """An address where nobody answers."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


# --- one look-up


async def test_a_list_is_given_as_it_was_sent(directory, service):
    full = instance(
        1, health=Health.WARNING, node="n", zone="z", version="2", weight=7, tags=("a", "b"),
        meta={"key": "Value", "zone": "z", "version": "2"},
    )  # fmt: skip
    service.listing = listing([instance(2), full, full], index=5, stale_for=1.5)
    snapshot = await directory.lookup("digits")
    assert snapshot.instances == (full, instance(2))
    assert (snapshot.index, snapshot.stale_for, snapshot.source) == (5, 1.5, f"lookup://{service.address}")
    assert service.asked[0].path == "/v1/lookup/digits"
    assert dict(service.asked[0].query) == {}


async def test_time_in_a_cache_on_the_way_counts_as_stale(directory, service):
    service.answers(listing(some(1), stale_for=0.5), Age="3")
    assert (await directory.lookup("digits")).stale_for == 3.5
    service.answers(listing(some(1), stale_for=0.5), Age="-1")
    assert (await directory.lookup("digits")).stale_for == 0.5


async def test_filters_are_sent_and_names_survive_the_address_line(directory, service):
    await directory.lookup(
        "a b?c%2Fä", tag="t&1", zone="z", version="v+1", meta={"k": "a:b", "l": ""}, passing_only=False
    )
    asked = service.asked[0]
    assert asked.match_info["path"] == "v1/lookup/a b?c%2Fä"
    assert sorted(asked.query.items()) == [
        ("meta", "k:a:b"), ("meta", "l:"), ("passing", "0"), ("tag", "t&1"), ("version", "v+1"), ("zone", "z"),
    ]  # fmt: skip


async def test_a_subset_is_asked_for_by_name(service):
    directory = directory_at(service.address, options="?limit=3&client=me")
    await directory.lookup("digits")
    await anext(directory.watch("digits"))
    assert [dict(asked.query) for asked in service.asked] == [{"limit": "3", "client": "me"}] * 2
    await directory.close()


async def test_a_large_list_is_made_in_turns_with_others(service):
    class Counting(SystemClock):
        turns = 0

        async def sleep(self, seconds):
            self.turns += 1
            await super().sleep(seconds)

    service.listing = listing(some(3000))
    clock = Counting()
    directory = directory_at(service.address, clock=clock)
    assert (await directory.lookup("digits")).instances == some(3000)
    assert clock.turns == 5
    await directory.close()


async def test_a_service_name_that_is_none_is_refused_before_anybody_is_asked(directory, service):
    for ask in (directory.lookup, directory.watch):
        with pytest.raises(ConfigurationError, match="service name"):
            await ask("a/b")
    assert service.asked == []


# --- several addresses


async def test_look_ups_go_round_and_one_that_is_down_is_passed_over(service, nobody):
    async with FakeService(some(3)) as other:
        directory = directory_at(service.address, other.address, nobody)
        found = [len((await directory.lookup("digits")).instances) for _ in range(5)]
        assert found == [2, 3, 2, 2, 3]
        await directory.close()


async def test_one_that_failed_is_left_alone_for_a_while_and_one_that_answers_again_is_not(service):
    async with FakeService(some(3)) as other:
        directory = directory_at(service.address, other.address)
        service.answers(b"", 503)
        for _ in range(4):
            assert len((await directory.lookup("digits")).instances) == 3
        assert len(service.asked) == 1
        service.answer = None
        other.answers(b"", 503)
        asked = len(other.asked)
        for _ in range(4):
            assert len((await directory.lookup("digits")).instances) == 2
        assert len(other.asked) == asked + 1
        await directory.close()


async def test_one_that_refuses_is_no_reason_not_to_ask_the_next(service):
    async with FakeService() as other:
        other.answers(b'{"error": "no token", "reason": "unauthorized"}', 401)
        directory = directory_at(other.address, service.address)
        assert len((await directory.lookup("digits")).instances) == 2
        await directory.close()


async def test_when_all_fail_the_error_names_each_once_and_the_next_step(service, nobody):
    service.answers(b'{"error": "no list yet", "reason": "unavailable"}', 503, Retry_After="1")
    directory = directory_at(nobody, service.address)
    with pytest.raises(RegistryUnavailable) as caught:
        await directory.lookup("digits")
    assert str(caught.value) == (
        f"lookup://{nobody},{service.address}: no answer from {nobody} (connection refused); "
        f"{service.address} cannot answer now: no list yet (503); "
        "check the address, or start one with: twostep registry lookup"
    )
    assert len(service.asked) == 1
    await directory.close()


async def test_an_error_that_may_pass_goes_before_one_that_will_not(service, nobody):
    service.answers(b"", 401)
    directory = directory_at(service.address, nobody)
    with pytest.raises(RegistryUnavailable, match="Unauthorized"):
        await directory.lookup("digits")
    await directory.close()


async def test_one_that_says_nothing_is_given_up_for_the_next(service, monkeypatch):
    monkeypatch.setattr("registry.lookup.client.services.ANSWER_WITHIN", 0.3)

    async def swallow(reader, writer):
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
    address = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    directory = directory_at(address, service.address)
    assert len((await directory.lookup("digits")).instances) == 2
    await directory.close()
    directory = directory_at(address)
    with pytest.raises(RegistryUnavailable, match=r"nothing within 0\.3 s"):
        await directory.lookup("digits")
    await directory.close()
    silent.close()


async def test_all_addresses_together_have_one_bound(nobody, service):
    class Late(ManualClock):
        def monotonic(self):
            self._now += 8.0
            return super().monotonic()

    directory = directory_at(nobody, nobody.replace(".1:", ".2:"), service.address, clock=Late())
    with pytest.raises(RegistryUnavailable) as caught:
        await directory.lookup("digits")
    assert service.asked == []
    assert "nothing within" not in str(caught.value)
    await directory.close()


# --- refusals


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (401, PermissionDenied, "TWOSTEP_LOOKUP_TOKEN"),
        (403, PermissionDenied, "TWOSTEP_LOOKUP_TOKEN"),
        (400, ConfigurationError, "what is wrong"),
        (404, ConfigurationError, "what is wrong"),
        (405, InvalidAnswer, "is the address right"),
        (302, InvalidAnswer, "is the address right"),
        (429, RegistryUnavailable, "what is wrong"),
        (500, RegistryUnavailable, "what is wrong"),
        (503, RegistryUnavailable, "what is wrong"),
    ],
)
async def test_a_refusal_is_one_clear_line_and_never_shows_the_token(service, status, error, said):
    directory = directory_at(service.address, TWOSTEP_LOOKUP_TOKEN=TOKEN)
    service.answers(
        b'{"error": "what is wrong with c0ffee-token\\u001b[31m\\nline two", "reason": "x"}', status, Location="/"
    )
    for ask in (directory.lookup("digits"), directory._services.stream(Query("digits"))):
        with pytest.raises(error, match=said) as caught:
            await ask
        text = str(caught.value)
        assert TOKEN not in text
        assert text.isprintable()
        assert service.address in text
    assert len(service.asked) == 2
    await directory.close()


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>hello</html>", b"[]", b"null", b'{"service": "digits"}', b"\xff\xfe", listing(some(2))[:-5],
     listing(some(2)).replace(b"9000", b'"9000"'), listing(some(2)).replace(b"9000", b"9" * 30)],
    ids=["nothing", "html", "list", "null", "half", "no utf-8", "truncated", "wrong type", "huge number"],
)  # fmt: skip
async def test_an_answer_that_is_none_is_told_in_one_line(directory, service, body):
    service.answers(body)
    with pytest.raises(InvalidAnswer, match="is the address right") as caught:
        await directory.lookup("digits")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("headers", [{"Content-Encoding": "gzip"}, {"Content-Encoding": "deflate"}])
async def test_an_answer_that_is_not_packed_as_it_says_is_no_answer(directory, service, headers):
    service.answers(b"not packed at all", **headers)
    with pytest.raises(RegistryUnavailable, match=r"connection broke|speak HTTP"):
        await directory.lookup("digits")


async def test_an_answer_too_large_is_given_up_while_it_is_read(directory, service, monkeypatch):
    monkeypatch.setattr("registry.lookup.client.http.LARGEST", LARGEST >> 8)
    service.answers(b"[" * (LARGEST >> 6))
    with pytest.raises(InvalidAnswer, match="more than"):
        await directory.lookup("digits")


# --- token and TLS


async def test_a_token_is_sent_and_followed_when_its_file_is_replaced(service, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    directory = directory_at(service.address, TWOSTEP_LOOKUP_TOKEN_FILE=str(tmp_path / "token"))
    await directory.lookup("digits")
    (tmp_path / "token").write_text("another-one")
    await directory.lookup("digits")
    sent = [asked.headers.get("Authorization") for asked in service.asked]
    assert sent == [f"Bearer {TOKEN}", "Bearer another-one"]
    await directory.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


async def test_tls_trusts_the_authority_it_was_given_and_no_other(certificate, nobody):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*map(str, certificate))
    async with FakeService(some(2), tls=context) as service:
        directory = directory_at(service.address, scheme="lookup+https", TWOSTEP_LOOKUP_CACERT=str(certificate[0]))
        assert len((await directory.lookup("digits")).instances) == 2
        assert len((await anext(directory.watch("digits"))).instances) == 2
        await directory.close()
        for scheme, said in (("lookup+https", "TLS failed.*certificate"), ("lookup", "400|broke|speak HTTP")):
            directory = directory_at(service.address, scheme=scheme)
            with pytest.raises((RegistryUnavailable, ConfigurationError), match=said) as caught:
                await directory.lookup("digits")
            assert str(caught.value).isprintable()
            await directory.close()


# --- watching


async def test_a_watch_follows_a_stream_and_goes_to_the_next_address_when_it_breaks(service):
    async with FakeService(some(2)) as other:
        directory = directory_at(service.address, other.address)
        watch = directory.watch("digits", zone="z")
        async with asyncio.timeout(20):
            assert (await anext(watch)).instances == some(2)
            service.send(delta(instance(2)))
            assert (await anext(watch)).instances == some(3)
            other.greeting = whole(some(4))
            await service.__aexit__()
            assert (await anext(watch)).instances == some(4)
        assert [asked.path for asked in service.asked] == ["/v1/lookup/digits/stream"]
        assert [dict(asked.query) for asked in other.asked] == [{"zone": "z"}]
        await directory.close()


async def test_a_watch_keeps_its_list_while_all_are_gone_and_catches_up(service):
    directory = directory_at(service.address)
    watch = directory.watch("digits")
    async with asyncio.timeout(30):
        assert (await anext(watch)).instances == some(2)
        await service.__aexit__()
        waiting = asyncio.ensure_future(anext(watch))
        while "connection refused" not in watch.status().last_error:
            await asyncio.sleep(0.01)
        assert not waiting.done()
        assert not watch.status().live
        async with FakeService(some(3), port=service.port):
            assert (await waiting).instances == some(3)
        assert watch.status().live
    await directory.close()


async def test_a_fall_after_a_reconnection_is_asked_about_at_another_address(service, monkeypatch):
    monkeypatch.setattr("registry.lookup.client.stream.HOLD_AFTER_RESET", 0.2)
    async with FakeService(some(10)) as other:
        directory = directory_at(other.address, service.address)
        watch = directory.watch("digits")
        async with asyncio.timeout(30):
            assert (await anext(watch)).instances == some(10)
            service.greeting = whole(())
            other.listing = listing(())
            other.send(None)
            assert (await anext(watch)).instances == ()
        assert [asked.path for asked in other.asked] == ["/v1/lookup/digits/stream", "/v1/lookup/digits"]
        await directory.close()


async def test_there_may_be_more_watches_than_aiohttp_has_connections_by_itself(directory):
    watches = [directory.watch(f"digits-{number}") for number in range(101)]
    async with asyncio.timeout(30):
        await asyncio.gather(*map(anext, watches))


async def test_a_watch_that_is_dropped_leaves_no_connection_behind(directory, service):
    watch = directory.watch("digits")
    await anext(watch)
    assert service.readers == 1
    del watch
    async with asyncio.timeout(20):
        while service.readers:
            service.send(heartbeat())
            await asyncio.sleep(0.01)


async def test_closing_the_directory_ends_its_watches(directory, service):
    watch = directory.watch("digits")
    await anext(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    assert directory.snapshot() == {"source": directory.source, "watches": 1}
    await directory.close()
    with pytest.raises(StopAsyncIteration):
        await waiting


# --- writing


async def test_what_writes_is_refused_with_the_next_step(directory, service):
    me = Registration(service="digits", id="d1", address="127.0.0.1", port=9001)
    for call in (
        directory.register(me),
        directory.registered(me),
        directory.beat("d1"),
        directory.maintenance("d1", True),
        directory.deregister("d1"),
    ):
        with pytest.raises(Unsupported, match=r"d1.*--registry consul://127\.0\.0\.1:8500"):
            await call
    assert service.asked == []


async def test_connect_leads_here(service):
    directory = connect(f"lookup://{service.address}")
    assert len((await directory.lookup("digits")).instances) == 2
    await directory.close()
