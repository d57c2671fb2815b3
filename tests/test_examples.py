"""The clients of ``docs/examples``, run as a stranger would run them: over real services, with nodes that fail."""

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from infra.consul.agent import free_port
from registry import Registration, connect
from registry.embedded import EmbeddedRegistry
from registry.lookup.service import LookupService
from registry.model import Health
from registry.testing import ScriptedDirectory, instance
from registry.token import Token

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLES = DOCS / "examples"
TOKEN = "c0ffee-token"  # no secret of anything


class FakeNode:
    """Classifies everything as what it was sent; ``status`` makes it refuse."""

    def __init__(self, name):
        self.name = name
        self.status = 200
        self.asked = []

    async def handle(self, request):
        body = await request.read()
        self.asked.append(dict(request.headers))
        if self.status != 200:
            return web.json_response({"error": "not now", "reason": "overloaded"}, status=self.status)
        prediction = {"label": body.decode(), "index": 0, "score": 0.5}
        return web.json_response({"node": self.name, "results": [{"name": "", "predictions": [prediction]}]})

    @asynccontextmanager
    async def running(self):
        app = web.Application()
        app.router.add_post("/classify", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        self.address = f"127.0.0.1:{self.port}"
        yield self
        await runner.cleanup()


@pytest.fixture
async def nodes():
    async with FakeNode("n1").running() as one, FakeNode("n2").running() as two:
        yield one, two


@pytest.fixture
def upstream(nodes):
    """A directory that knows both nodes, and one that is no use."""
    known = [instance(number, port=node.port) for number, node in enumerate(nodes)]
    return ScriptedDirectory([*known, instance(9, health=Health.CRITICAL)])


@pytest.fixture
async def service(upstream):
    async with LookupService(upstream, port=0) as service:
        yield service


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f"image {number}" for number in range(4)]
    for path in paths:
        path.write_text(path.name)
    return [str(path) for path in paths]


@pytest.fixture
def node_example(nodejs):
    return [nodejs, str(EXAMPLES / "lookup.mjs")]


@pytest.fixture
def shell_example(curl, jq):
    return ["bash", str(EXAMPLES / "lookup.sh")]


@pytest.fixture(params=["node", "shell"])
def classify(request):
    """How each of the two is told to classify."""
    if request.param == "node":
        return [*request.getfixturevalue("node_example"), "classify"]
    return request.getfixturevalue("shell_example")


async def start(command, registry, **environment):
    return await asyncio.create_subprocess_exec(
        *command,
        env={"PATH": os.environ["PATH"], "TWOSTEP_REGISTRY": registry} | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # ``node`` may be a script that starts the real one
    )


async def run(command, registry, **environment):
    process = await start(command, registry, **environment)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


async def test_the_vectors_come_out_as_they_should_in_another_language(node_example, tmp_path):
    vectors = DOCS / "protocol-vectors.json"
    assert await run([*node_example, "vectors", str(vectors)], "") == (0, "all as they should be\n", "")
    changed = json.loads(vectors.read_text())
    changed["streams"][0]["steps"][0]["index"] += 1
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    status, out, _ = await run([*node_example, "vectors", str(tmp_path / "changed.json")], "")
    assert (status, out) == (1, f"wrong: {changed['streams'][0]['name']}\n")


async def test_images_go_to_the_nodes_in_turn(classify, service, nodes, images):
    status, out, err = await run([*classify, "digits", *images], service.url)
    assert (status, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[1] for line in lines] == [f"image {number}" for number in range(4)]
    assert [len(node.asked) for node in nodes] == [2, 2]
    assert lines[0][3] == lines[2][3] != lines[1][3] == lines[3][3]


async def test_a_node_that_cannot_is_passed_over_and_told_which_try_it_is(classify, service, nodes, images):
    nodes[0].status = 503
    status, out, _ = await run([*classify, "digits", *images], service.url)
    assert status == 0
    assert [line.split("\t")[3] for line in out.splitlines()] == ["n2"] * 4
    assert {asked["x-envoy-attempt-count"] for asked in nodes[1].asked} <= {"1", "2"}
    assert "2" in {asked["x-envoy-attempt-count"] for asked in nodes[1].asked}


async def test_an_image_that_is_at_fault_is_not_sent_again(classify, service, nodes, images):
    for node in nodes:
        node.status = 422
    status, out, err = await run([*classify, "digits", images[0]], service.url)
    assert (status, out) == (1, "")
    assert "not now" in err
    assert sum(len(node.asked) for node in nodes) == 1


async def test_a_look_up_service_that_is_away_is_passed_over(classify, service, images):
    registry = f"lookup://127.0.0.1:{free_port()},{service.address}"
    for _ in range(2):
        assert (await run([*classify, "digits", images[0]], registry))[0] == 0


async def test_when_nobody_answers_it_says_so_in_a_line(classify, images):
    status, out, err = await run([*classify, "digits", images[0]], f"lookup://127.0.0.1:{free_port()}")
    assert (status, out) == (1, "")
    assert "digits" in err.splitlines()[-1]


async def test_a_token_is_sent_and_asked_for(classify, upstream, images):
    async with LookupService(upstream, port=0, token=Token(TOKEN)) as service:
        assert (await run([*classify, "digits", images[0]], service.url, TWOSTEP_LOOKUP_TOKEN=TOKEN))[0] == 0
        status, _, err = await run([*classify, "digits", images[0]], service.url)
        assert status == 1
        assert "token" in err


@pytest.mark.parametrize("arguments", [[], ["classify"], ["classify", "digits"], ["dance", "digits"]])
async def test_node_usage(node_example, arguments):
    status, out, err = await run([*node_example, *arguments], "")
    assert (status, out) == (2, "")
    assert err.startswith("usage: ")


async def test_shell_usage(shell_example):
    status, out, err = await run(shell_example, "lookup://h")
    assert (status, out) == (2, "")
    assert err.startswith("usage: ")
    assert (await run([*shell_example, "digits"], "nothing://h"))[0] == 2


async def test_node_lists_every_health(node_example, service, nodes):
    status, out, _ = await run([*node_example, "list", "digits"], service.url)
    assert status == 0
    assert out.splitlines() == [f"digits-0\t{nodes[0].address}\tpassing", f"digits-1\t{nodes[1].address}\tpassing"]


async def test_shell_lists_the_passing_nodes(shell_example, service, nodes, upstream):
    upstream.set([instance(1, port=80, address="::1"), instance(2, port=443, meta={"scheme": "https"})])
    status, out, err = await run([*shell_example, "digits"], service.url)
    assert (status, out, err) == (0, "http://[::1]:80\nhttps://127.0.0.1:443\n", "")
    status, out, err = await run([*shell_example, "nobody"], service.url)
    assert (status, out, err) == (1, "", "lookup.sh: no node of nobody is passing\n")


@pytest.mark.parametrize("kind", ["embedded", pytest.param("consul", marks=pytest.mark.consul)])
async def test_shell_asks_consul_itself(request, shell_example, kind, nodes, images):
    async with EmbeddedRegistry() as embedded:
        consul = kind == "consul"
        url = f"consul://{request.getfixturevalue('consul_agent').address}" if consul else embedded.url
        directory = connect(url)
        for number, node in enumerate(nodes):
            await directory.register(
                Registration(service="example", id=f"example-{number}", address="127.0.0.1", port=node.port)
            )
        async with asyncio.timeout(20):
            while len((await directory.lookup("example")).instances) < 2:
                await asyncio.sleep(0.02)
        status, out, err = await run([*shell_example, "example"], url)
        assert (status, sorted(out.split()), err) == (0, sorted(f"http://{node.address}" for node in nodes), "")
        assert (await run([*shell_example, "example", *images], url))[0] == 0
        for number in range(2):
            await directory.deregister(f"example-{number}")
        await directory.close()


async def test_node_follows_from_one_service_to_the_next_and_keeps_its_list(node_example, upstream):
    one, two = LookupService(upstream, port=0), LookupService(upstream, port=0)
    await one.__aenter__()
    await two.__aenter__()
    process = await start([*node_example, "watch", "digits"], f"lookup://{one.address},{two.address}")

    async def told(what, stream):
        async with asyncio.timeout(30):
            while what not in (line := (await stream.readline()).decode()):
                assert line, f"it ended before it said {what!r}"

    try:
        await told("2 instances", process.stdout)
        first, second = (one, two) if one.snapshot()["readers"] else (two, one)
        await first.__aexit__()
        upstream.set([instance(1), instance(2), instance(3)])
        await told("3 instances", process.stdout)
        await second.__aexit__()
        await told("keeping the last list", process.stderr)
        upstream.set([instance(number) for number in range(5)])
        async with LookupService(upstream, port=int(second.address.split(":")[1])):
            await told("5 instances", process.stdout)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
