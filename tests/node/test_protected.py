"""A whole node behind tokens, TLS and a bound on its connections, as clients and a registry see it."""

import asyncio
import ssl

import aiohttp
import pytest

from node.errors import NodeError
from registry.directory import HttpCheck, TtlCheck
from smartclient import AsyncSmartClient
from smartclient.errors import CallFailed
from tests.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pairs(authority):
    """Certificate and key of a node, and of a client."""
    return authority.issue("node"), authority.issue("client")


@pytest.fixture
def tokens(tmp_path):
    users, admins = tmp_path / "users", tmp_path / "admins"
    users.write_text("user-1\n")
    admins.write_text("admin-1\n")
    return {"token_file": users, "admin_token_file": admins}


def trusting(authority, client=None):
    context = ssl.create_default_context(cafile=authority.certificate)
    if client:
        context.load_cert_chain(*client)
    return context


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


async def ask(session, node, path, headers=None, data=None):
    """Ask with POST when there is ``data``: status, headers, body."""
    method = "GET" if data is None else "POST"
    async with session.request(method, f"{node.url}{path}", headers=headers, data=data) as reply:
        return reply.status, reply.headers, await reply.json()


async def test_an_https_node_is_registered_and_asked_as_one(make_node, directory, authority, pairs, png):
    certificate, key = pairs[0]
    node = make_node(tls_certificate=certificate, tls_key=key)
    await node.start()
    (registration,) = directory.registrations.values()
    assert registration.check == HttpCheck(url=f"{node.url}/readyz", tls_skip_verify=True)
    assert node.url.startswith("https://127.0.0.1:")
    async with AsyncSmartClient("digits", directory, tls=trusting(authority)) as client:
        assert (await client.classify(png(140))).label == "5"


async def test_a_node_that_demands_certificates_reports_itself_and_serves_who_has_one(
    make_node, directory, authority, pairs, png
):
    certificate, key = pairs[0]
    node = make_node(tls_certificate=certificate, tls_key=key, tls_client_ca=authority.certificate)
    await node.start()
    (registration,) = directory.registrations.values()
    assert isinstance(registration.check, TtlCheck)
    async with AsyncSmartClient("digits", directory, tls=trusting(authority, pairs[1])) as client:
        assert (await client.classify(png(140))).label == "5"
    async with AsyncSmartClient("digits", directory, tls=trusting(authority), attempts=1) as client:
        with pytest.raises(CallFailed):
            await client.classify(png(140))


async def test_a_broken_certificate_is_told_before_anything_is_loaded(make_node, pairs, runtime):
    with pytest.raises(NodeError, match="is not that of the certificate"):
        make_node(tls_certificate=pairs[0][0], tls_key=pairs[1][1])
    assert runtime.batches == []


async def test_inference_takes_a_token_and_probes_do_not(make_node, session, png, tokens):
    node = make_node(**tokens)
    await node.start()
    status, headers, body = await ask(session, node, "/classify", data=png())
    assert (status, headers["WWW-Authenticate"], body["reason"]) == (401, "Bearer", "unauthorized")
    for token in ("user-1", "admin-1"):
        assert (await ask(session, node, "/classify", bearer(token), png()))[0] == 200
    for path in ("/healthz", "/readyz", "/load"):
        assert (await ask(session, node, path))[0] == 200


async def test_a_token_is_rotated_without_a_restart(make_node, session, png, tokens):
    node = make_node(**tokens)
    await node.start()
    for held, statuses in (("user-1\nuser-2", (200, 200)), ("user-2", (401, 200))):
        tokens["token_file"].write_text(held)
        answers = [(await ask(session, node, "/classify", bearer(token), png()))[0] for token in ("user-1", "user-2")]
        assert tuple(answers) == statuses


async def test_steering_is_off_without_admin_tokens_and_then_takes_one(make_node, session, tokens):
    unload = "/v2/repository/models/digits/unload"
    node = make_node()
    await node.start()
    status, _, body = await ask(session, node, unload, data=b"")
    assert (status, body["reason"]) == (403, "forbidden")
    assert "--admin-token-file" in body["error"]
    node = make_node(**tokens)
    await node.start()
    for headers, expected in ((None, 401), (bearer("user-1"), 403), (bearer("admin-2"), 401)):
        assert (await ask(session, node, unload, headers, b""))[0] == expected


async def test_connections_are_bounded_and_counted(make_node, session, png, until):
    node = make_node(max_connections=8)
    await node.start()
    opened = [await asyncio.open_connection("127.0.0.1", node.port) for _ in range(8)]
    for _, writer in opened:
        writer.write(b"POST /classify HTTP/1.1\r\nHost: node\r\nContent-Length: 100\r\n\r\n")
    await until(lambda: node.admission.requests == 8)
    async with session.post(f"{node.url}/classify", data=png()) as reply:
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert (await reply.json())["reason"] == "overloaded"
    async with session.get(f"{node.url}/readyz") as reply:
        assert reply.status == 200
    async with session.get(f"{node.url}/metrics") as reply:
        text = await reply.text()
    assert 'node_connections_ended_total{reason="refused"} 1.0' in text
    assert "node_connections 9.0" in text
    for _, writer in opened:
        writer.close()
    await until(lambda: node.connections.open == 0)
    async with aiohttp.ClientSession() as other, other.post(f"{node.url}/classify", data=png()) as reply:
        assert reply.status == 200
