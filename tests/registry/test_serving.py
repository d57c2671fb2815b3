"""Listening and TLS, with one line that helps for whatever cannot be."""

import asyncio
import logging
import re
import socket
import ssl

import aiohttp
import pytest
from aiohttp import web

from registry.connect import consul_of
from registry.errors import ConfigurationError
from registry.serving import ClientFaults, listen, reachable, server_tls, trusting
from tests.certificates import Authority


async def hello(_):
    return web.Response(text="hello")


def runner():
    app = web.Application()
    app.router.add_get("/", hello)
    return web.AppRunner(app, logger=logging.getLogger("served"))


@pytest.mark.parametrize(
    ("host", "said"),
    [("", "127.0.0.1:1"), ("0.0.0.0", "127.0.0.1:1"), ("::", "[::1]:1"), ("::1", "[::1]:1"), ("box", "box:1")],
)
def test_a_wildcard_is_reached_at_its_loopback(host: str, said: str) -> None:
    assert reachable(host, 1) == said


async def test_a_port_in_use_is_said_with_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = runner()
        with pytest.raises(ConfigurationError, match=rf"^port {port} on 127\.0\.0\.1 is in use; .*--port$"):
            await listen(found, "127.0.0.1", port)
        assert found.server is None  # nothing is left behind


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
async def test_a_host_that_is_not_ours_is_said(host: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^cannot listen on {re.escape(host)}:0: .+"):
        await listen(runner(), host, 0)


async def test_a_client_that_trusts_the_authority_reaches_the_server(tmp_path) -> None:
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    found = runner()
    await listen(found, "127.0.0.1", 0, tls=server_tls(*authority.issue("node")))
    url = f"https://127.0.0.1:{found.addresses[0][1]}/"
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(url, ssl=trusting(authority.certificate)) as answer:
                assert await answer.text() == "hello"
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(url, ssl=trusting(stranger.certificate))
    finally:
        await found.cleanup()


def test_tls_files_that_cannot_be_used_are_named(tmp_path, capfd) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("one")
    _, other = authority.issue("two")
    encrypted = authority.issue("three", password="longer-than-four")
    junk, gone = tmp_path / "junk", tmp_path / "gone"
    junk.write_text("no certificate")
    for pair, reason in (
        ((certificate, gone), "No such file"),
        ((certificate, other), "no pair in PEM format"),
        ((junk, key), "no pair in PEM format"),
        (encrypted, "the key without a password"),
    ):
        with pytest.raises(ConfigurationError, match=f"^certificate {pair[0]} and key {pair[1]} .*{reason}"):
            server_tls(*pair)
    for file, reason in ((gone, "No such file"), (junk, "no certificate in PEM"), (tmp_path, "")):
        with pytest.raises(ConfigurationError, match=f"^the authority {file} cannot be used: {reason}"):
            trusting(file)
    assert capfd.readouterr().err == ""  # nobody is asked for a password


def test_an_authority_is_trusted_alone(tmp_path) -> None:
    context = trusting(Authority(tmp_path).certificate)
    assert len(context.get_ca_certs()) == 1
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


async def test_bytes_that_are_no_http_are_one_quiet_line(caplog) -> None:
    logger = logging.getLogger("served")
    faults = ClientFaults()
    logger.addFilter(faults)
    caplog.set_level(logging.INFO)
    found = runner()
    await listen(found, "127.0.0.1", 0)
    try:
        with socket.create_connection(found.addresses[0]) as client:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nAuthorization: Bearer t0ken\x00\x1b[31m\r\n\r\n")
            assert b"400" in await loop.sock_recv(client, 100)
    finally:
        await found.cleanup()
        logger.removeFilter(faults)
    lines = [each for each in caplog.records if each.name == "served"]
    assert [each.levelno for each in lines] == [logging.INFO]
    assert lines[0].getMessage().startswith("a client sent what is no HTTP")
    assert lines[0].getMessage().isprintable()
    assert lines[0].exc_info is None
    assert "t0ken" not in caplog.text


def test_what_else_fails_is_logged_as_it_is() -> None:
    record = logging.LogRecord("x", logging.ERROR, "x", 1, "failed", (), (ValueError, ValueError(), None))
    assert ClientFaults().filter(record)


def test_a_consul_is_found_as_connect_finds_it(monkeypatch) -> None:
    for name in ("TWOSTEP_REGISTRY", "CONSUL_HTTP_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert consul_of().source == "consul://127.0.0.1:8500"
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "10.0.0.1:8501")
    assert consul_of().source == "consul://10.0.0.1:8501"
    monkeypatch.setenv("TWOSTEP_REGISTRY", "consul://10.0.0.2:8502")
    assert consul_of().source == "consul://10.0.0.2:8502"
    assert consul_of("https://c.example:1").source == "https://c.example:1"


@pytest.mark.parametrize(
    "address", ["lookup://10.0.0.1:8700", "lookup+https://10.0.0.1:8700", "static://10.0.0.1:9001"]
)
def test_a_list_of_instances_is_no_consul(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"list of instances only; give the Consul itself: consul://HOST:PORT"):
        consul_of(address)
