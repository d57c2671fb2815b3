"""Nodes that speak https: whom the client trusts, what it shows, and what it says when that will not do."""

import random
import shutil
import ssl

import pytest
from aiohttp import web

from registry.testing import ManualClock, ScriptedDirectory, instance
from smartclient import AsyncSmartClient, SmartClient
from smartclient.aiohttp_transport import AiohttpTransport
from smartclient.errors import BadOption
from smartclient.stats import Outcome
from smartclient.tls import from_environment
from smartclient.transport import Request, TransportFailure
from smartclient.wire.exchange import Exchange
from tests.certificates import Authority

GET = Request(method="GET", target="/")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pairs(authority):
    """Certificate and key of a node, and of a client."""
    return authority.issue("node"), authority.issue("client")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Set the variables of TLS; None leaves one out."""

    def put(cacert=None, cert=None, key=None):
        for name, value in (("CACERT", cacert), ("CLIENT_CERT", cert), ("CLIENT_KEY", key)):
            if value is None:
                monkeypatch.delenv(f"TWOSTEP_{name}", raising=False)
            else:
                monkeypatch.setenv(f"TWOSTEP_{name}", str(value))

    put()
    return put


@pytest.fixture
async def serve(authority, pairs):
    """Start a node that speaks https; its port."""
    started = []

    async def start(pair=pairs[0], *, demanding=False):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*pair)
        if demanding:
            context.load_verify_locations(authority.certificate)
            context.verify_mode = ssl.CERT_REQUIRED

        async def answer(request):
            shown = request.transport.get_extra_info("peercert")
            return web.Response(text=dict(name for (name,) in shown["subject"])["commonName"] if shown else "nobody")

        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        started.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        return runner.addresses[0][1]

    yield start
    for runner in started:
        await runner.cleanup()


@pytest.fixture(params=["short way", "session"])
async def ask(request, monkeypatch):
    """Ask a node over a transport made of the environment of now, or of a context."""
    if request.param == "session":
        monkeypatch.setattr(Exchange, "of", lambda *_: None)

    async def send(port, *, tls=None, fresh=False):
        transport = AiohttpTransport(connect_within=2.0, tls=tls)
        try:
            answer = await transport.send(
                f"https://127.0.0.1:{port}", GET, {}, within=5.0, connect_within=2.0, fresh=fresh
            )
            return answer.body
        finally:
            await transport.close()

    return send


@pytest.mark.parametrize("fresh", [False, True])
async def test_an_authority_of_ones_own_is_trusted_when_named(serve, ask, environment, authority, fresh):
    port = await serve()
    environment(authority.certificate)
    assert await ask(port, fresh=fresh) == b"nobody"


async def test_a_context_goes_before_the_environment(serve, ask, environment, authority, tmp_path):
    port = await serve()
    environment(Authority(tmp_path, "stranger").certificate)
    assert await ask(port, tls=ssl.create_default_context(cafile=authority.certificate)) == b"nobody"


async def test_a_certificate_is_shown_to_nodes_that_demand_one(serve, ask, environment, authority, pairs):
    port = await serve(demanding=True)
    environment(authority.certificate, *pairs[1])
    assert await ask(port) == b"client"


async def test_without_the_certificate_a_demanding_node_cannot_be_asked(serve, ask, environment, authority):
    port = await serve(demanding=True)
    environment(authority.certificate)
    with pytest.raises(TransportFailure) as caught:
        await ask(port)
    assert caught.value.outcome in {Outcome.CONNECT_ERROR, Outcome.RESET}


async def test_an_unknown_authority_is_no_connection_and_says_what_to_do(serve, ask):
    with pytest.raises(
        TransportFailure, match=r"certificate is refused: .*; give its authority in TWOSTEP_CACERT"
    ) as e:
        await ask(await serve())
    assert e.value.outcome is Outcome.CONNECT_ERROR


async def test_a_certificate_for_another_address_says_so(serve, ask, environment, authority):
    port = await serve(authority.issue("elsewhere", holds="IP:10.0.0.1"))
    environment(authority.certificate)
    with pytest.raises(TransportFailure, match=r"not valid for '127\.0\.0\.1'.*; it must hold the registered address"):
        await ask(port)


async def test_a_node_registered_as_https_is_asked_so(serve, environment, authority, pairs):
    port = await serve(demanding=True)
    environment(authority.certificate, *pairs[1])
    directory = ScriptedDirectory([instance(1, port=port, meta={"scheme": "https"})])
    async with AsyncSmartClient("digits", directory, clock=ManualClock(), rng=random.Random(1)) as client:
        assert (await client.get("/")).body == b"client"


async def test_the_option_reaches_the_connections(serve, authority):
    directory = ScriptedDirectory([instance(1, port=await serve(), meta={"scheme": "https"})])
    tls = ssl.create_default_context(cafile=authority.certificate)
    async with AsyncSmartClient("digits", directory, tls=tls) as client:
        assert (await client.get("/")).body == b"nobody"


def test_the_option_is_for_the_clients_own_transport():
    tls = ssl.create_default_context()
    with SmartClient("digits", "static://127.0.0.1:9001", tls=tls) as client:
        assert not client.closed
    with pytest.raises(BadOption, match="give it to the transport you hand in"):
        AsyncSmartClient("digits", "static://127.0.0.1:9001", tls=tls, transport=AiohttpTransport(connect_within=1.0))


def test_nothing_in_the_environment_is_nothing_of_ours():
    assert from_environment({}) is None
    assert from_environment({"TWOSTEP_CACERT": "", "TWOSTEP_CLIENT_CERT": "", "TWOSTEP_CLIENT_KEY": ""}) is None


def test_a_certificate_and_its_key_may_share_a_file(pairs, tmp_path):
    both = tmp_path / "both.pem"
    both.write_text("".join(path.read_text() for path in pairs[1]))
    assert from_environment({"TWOSTEP_CLIENT_CERT": str(both)}) is not None


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"KEY": "key"}, "TWOSTEP_CLIENT_KEY is of no use alone; give the certificate in TWOSTEP_CLIENT_CERT"),
        ({"CACERT": "none"}, "TWOSTEP_CACERT=.*none cannot be used: No such file"),
        ({"CACERT": "key"}, "TWOSTEP_CACERT=.*key cannot be used: .*give PEM files"),
        ({"CERT": "cert", "KEY": "none"}, "TWOSTEP_CLIENT_CERT=.*cert with TWOSTEP_CLIENT_KEY=.*none cannot be used"),
        ({"CERT": "cert", "KEY": "other"}, "cannot be used: .*MISMATCH"),
        ({"CERT": "cert"}, "the key without a password"),
    ],
)
def test_what_is_wrong_with_the_files_is_one_line_that_names_them(environment, pairs, tmp_path, names, words):
    for name, source in (("cert", pairs[1][0]), ("key", pairs[1][1]), ("other", pairs[0][1])):
        shutil.copy(source, tmp_path / name)
    given = {name.lower(): tmp_path / value for name, value in names.items()}
    environment(**given)
    with pytest.raises(BadOption, match=words) as caught:
        AsyncSmartClient("digits", "static://127.0.0.1:9001")
    assert "\n" not in str(caught.value)
