"""TLS of the node: what it serves, whom it demands certificates of, and how certificates are replaced."""

import asyncio
import logging
import shutil
import socket
import ssl
import threading

import pytest

from node.errors import NodeError
from node.tls import LOOK_EVERY, Certificates, server_context
from registry.testing import ManualClock
from tests.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pairs(authority):
    """Two pairs of certificate and key, and a client's."""
    return [authority.issue(name) for name in ("one", "two", "client")]


@pytest.fixture
def files(pairs, tmp_path):
    """A copy of the first pair, to be replaced."""
    return [shutil.copy(path, tmp_path / path.name) for path in pairs[0]]


def replace(files, pair):
    """Rename a pair into place, as tools that renew certificates do."""
    for path, source in zip(files, pair, strict=True):
        shutil.copy(source, path.with_suffix(".new")).replace(path)


def trusting(authority, client=None):
    context = ssl.create_default_context(cafile=authority.certificate)
    if client:
        context.load_cert_chain(*client)
    return context


def shake_hands(server, client):
    """Connect the two contexts over a socket pair; the common name the server showed, the version, the protocol."""
    here, there = socket.socketpair()
    here.settimeout(5)
    there.settimeout(5)

    def serve():
        try:
            with server.wrap_socket(there, server_side=True) as wrapped:
                wrapped.sendall(wrapped.recv(1))
        except OSError:
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname="127.0.0.1") as wrapped:
            wrapped.sendall(b"x")
            if wrapped.recv(1) != b"x":  # in TLS 1.3 a client learns only here that it was refused
                raise ConnectionError
            subject = dict(pair for (pair,) in wrapped.getpeercert()["subject"])
            return subject["commonName"], wrapped.version(), wrapped.selected_alpn_protocol()
    finally:
        here.close()
        thread.join()


def test_a_client_that_trusts_the_authority_is_served_in_http_1(authority, pairs):
    client = trusting(authority)
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert shake_hands(server_context(*pairs[0]), client) == ("one", "TLSv1.3", "http/1.1")


def test_tls_1_2_is_the_oldest_version_spoken(authority, pairs):
    client = trusting(authority)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shake_hands(server_context(*pairs[0]), client)[1] == "TLSv1.2"
    assert server_context(*pairs[0]).minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_client_without_a_certificate_is_refused_where_one_is_demanded(authority, pairs):
    server = server_context(*pairs[0], authority.certificate)
    assert shake_hands(server, trusting(authority, pairs[2]))[0] == "one"
    with pytest.raises(OSError):  # noqa: PT011 - an alert or a lost connection, as the two threads will have it
        shake_hands(server, trusting(authority))


def test_a_certificate_of_another_authority_is_refused(authority, pairs, tmp_path):
    stranger = Authority(tmp_path, "stranger").issue("client")
    with pytest.raises(OSError):  # noqa: PT011 - as above
        shake_hands(server_context(*pairs[0], authority.certificate), trusting(authority, stranger))


def test_what_is_wrong_with_the_files_is_one_line_with_the_next_step(authority, pairs, tmp_path):
    (certificate, key), (_, other) = pairs[:2]
    text, none = tmp_path / "text", tmp_path / "none"
    text.write_text("no PEM")
    locked = authority.issue("locked", password="secret")
    for files, words in (
        ((none, key), "none cannot be read: No such file or directory; give its path"),
        ((certificate, none), "none cannot be read: No such file or directory; give its path"),
        ((certificate, key, none), "none cannot be read: No such file or directory; give its path"),
        ((tmp_path, key), "cannot be read: Is a directory; give its path"),
        ((certificate, other), f"the key {other} is not that of the certificate {certificate}; give its own"),
        ((text, key), "cannot be used; give PEM files"),
        ((certificate, text), "cannot be used; give PEM files"),
        (locked, "its key without a password"),
        ((certificate, key, text), f"{text} holds no certificate; give the clients' authority as a PEM file"),
    ):
        with pytest.raises(NodeError) as caught:
            server_context(*files)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_flags_go_together(pairs, tmp_path):
    certificate, key = pairs[0]
    assert Certificates.from_files(None, None, None) is None
    for flags in ((None, key, None), (None, None, certificate)):
        with pytest.raises(NodeError, match="go with --tls-certificate; give it as well"):
            Certificates.from_files(*flags)
    both = tmp_path / "both.pem"
    both.write_text(certificate.read_text() + key.read_text())
    assert Certificates.from_files(both, None, None).demands_clients is False
    assert Certificates.from_files(certificate, key, certificate).demands_clients is True


def test_files_that_have_not_changed_are_not_read_again(files):
    certificates = Certificates(*files)
    before = certificates.context
    assert certificates.reload_if_changed() is False
    assert certificates.context is before


async def test_replaced_files_are_served_without_a_restart(authority, pairs, files):
    clock = ManualClock()
    certificates = Certificates(*files)
    looking = asyncio.create_task(certificates.keep_fresh(clock))
    replace(files, pairs[1])
    assert shake_hands(certificates.context, trusting(authority))[0] == "one"
    await clock.advance(LOOK_EVERY)
    assert shake_hands(certificates.context, trusting(authority))[0] == "two"
    assert certificates.reloads == 1
    looking.cancel()


def test_a_broken_pair_leaves_the_old_one_and_is_told_once(authority, pairs, files, caplog):
    certificates = Certificates(*files)
    for spoil, words in (
        (lambda: shutil.copy(pairs[1][1], files[1]), "is not that of the certificate"),  # the key came first
        (lambda: files[0].write_text("half a certif"), "give PEM files"),
        (files[1].unlink, "cannot be read: No such file"),
    ):
        caplog.clear()
        spoil()
        for _ in range(3):
            assert certificates.reload_if_changed() is False
        assert shake_hands(certificates.context, trusting(authority))[0] == "one"
        (said,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert "the old ones stand" in said.message
        assert words in said.message
    replace(files, pairs[1])
    assert certificates.reload_if_changed() is True
    assert shake_hands(certificates.context, trusting(authority))[0] == "two"


def test_an_authority_that_is_taken_out_is_trusted_no_more(authority, pairs, files, tmp_path):
    clients = Authority(tmp_path / "clients", "clients")
    client = clients.issue("client")
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(clients.certificate.read_text())
    certificates = Certificates(*files, trusted)
    assert shake_hands(certificates.context, trusting(authority, client))[0] == "one"
    trusted.write_text(authority.certificate.read_text())
    assert certificates.reload_if_changed() is True
    with pytest.raises(OSError):  # noqa: PT011 - as above
        shake_hands(certificates.context, trusting(authority, client))
    assert shake_hands(certificates.context, trusting(authority, pairs[2]))[0] == "one"
