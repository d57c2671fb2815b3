"""The client against this project's own node, whole: tokens, several models and versions, tensors, https."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from node.config import NodeConfig
from node.images import encode_png
from node.models import ModelSource
from node.repository import Model, Wanted
from node.server import NodeServer
from node.testing import ScriptedRuntime, write_model
from registry.testing import ScriptedDirectory
from smartclient import AccessDenied, AsyncSmartClient, BadInput, SmartClient
from tests.certificates import Authority

ROOT = Path(__file__).parents[2]
PNG = encode_png(np.full((8, 8, 1), 140, np.uint8))  # level 140 is class 5
PIXELS = np.full((2, 8, 8, 1), 140, np.uint8)


class Shifted(ScriptedRuntime):
    """Calls every picture by the number of its version, so that an answer tells which one it came from."""

    def __init__(self, version: int) -> None:
        super().__init__()
        self.version = version

    def run(self, inputs):
        outputs = super().run(inputs)
        outputs["scores"][:] = 0.0
        outputs["scores"][:, self.version] = 1.0
        return outputs


def opened(source: ModelSource) -> ScriptedRuntime:
    return ScriptedRuntime() if source.name == "digits" else Shifted(int(source.version))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("TWOSTEP_NODE_TOKEN", "TWOSTEP_NODE_TOKEN_FILE", "TWOSTEP_CACERT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """The file of tokens that a node takes."""
    path = tmp_path / "tokens"
    path.write_text("first\nsecond\n")
    return path


@pytest.fixture
def models(tmp_path: Path) -> tuple[Model, ...]:
    """``digits``, and versions 1 and 2 of ``cats & dogs``."""
    digits, cats = write_model(tmp_path / "digits"), tmp_path / "cats & dogs"
    write_model(cats, version=1)
    write_model(cats, version=2)
    return Model(path=digits), Model(path=cats, wanted=Wanted(latest=2))


@pytest.fixture
def directory() -> ScriptedDirectory:
    return ScriptedDirectory()


@pytest.fixture
async def serve(models, directory: ScriptedDirectory) -> AsyncIterator[Callable[..., Awaitable[NodeServer]]]:
    """Start a node that registers in ``directory``."""
    started = []

    async def start(**options: object) -> NodeServer:
        settings = {"models": models, "service": "digits", "port": 0, "drain_grace": 0.05} | options
        started.append(NodeServer(NodeConfig(**settings), open=opened, directory=directory))
        await started[-1].start()
        return started[-1]

    yield start
    for node in started:
        await node.stop()


def client_of(directory: ScriptedDirectory, **options: object) -> AsyncSmartClient:
    return AsyncSmartClient("digits", directory, rng=random.Random(1), timeout=10.0, **options)


@pytest.mark.parametrize("binary", [True, False])
async def test_tensors_go_there_and_back_with_the_token(serve, directory, token: Path, binary: bool) -> None:
    node = await serve(token_file=token)
    async with client_of(directory, token="first") as client:
        unnamed = await client.predict(PIXELS, binary=binary)
        named = await client.predict({"pixels": PIXELS}, outputs=["scores"], binary=binary)
        cats = await client.predict({"pixels": PIXELS}, model="cats & dogs", version="1", binary=binary)
    for result in (unnamed, named):
        assert result.output.shape == (2, 10)
        assert result.output.dtype == np.float32
        assert result.output.argmax(axis=1).tolist() == [5, 5]
        assert (result.model, result.version, result.node, result.attempts) == ("digits", "1", node.id, 1)
    assert (cats.model, cats.version) == ("cats & dogs", "1")
    assert cats.output.argmax(axis=1).tolist() == [1, 1]


async def test_a_model_and_a_version_are_asked_for_by_name(serve, directory) -> None:
    node = await serve()
    async with client_of(directory) as client:
        first = await client.classify(PNG)
        newest = await client.classify(PNG, model="cats & dogs", top=1)
        older = await client.classify(PNG, model="cats & dogs", version="1")
        many = [each.result async for each in client.classify_many([PNG] * 3, model="cats & dogs", version="1")]
    assert (first.model, first.version, first.label) == ("digits", "1", "5")
    assert (newest.model, newest.version, newest.label) == ("cats & dogs", "2", "2")
    assert (older.model, older.version, older.label, older.node) == ("cats & dogs", "1", "1", node.id)
    assert {(each.model, each.version, each.label) for each in many} == {("cats & dogs", "1", "1")}


async def test_a_model_that_is_not_there_is_one_line_with_its_name_and_the_nodes(serve, directory) -> None:
    node = await serve()
    async with client_of(directory) as client:
        for call in (
            client.classify(PNG, model="birds"),
            client.predict({"pixels": PIXELS}, model="birds"),
            client.predict(PIXELS, model="birds"),
        ):
            with pytest.raises(BadInput) as caught:
                await call
            assert str(caught.value) == (
                f"{node.id}: there is no model 'birds' here; this node has digits, cats & dogs"
            )
            assert (caught.value.status, caught.value.reason, caught.value.node) == (404, "not_found", node.id)
        with pytest.raises(BadInput, match=rf"^{node.id}: cats & dogs has no version '9' here; it has 1, 2$"):
            await client.classify(PNG, model="cats & dogs", version="9")


async def test_while_one_node_lacks_a_version_the_other_answers(serve, directory, models) -> None:
    digits, cats = models
    lacking = await serve(models=(digits, Model(path=cats.path, wanted=Wanted(latest=1))))
    having = await serve()
    async with client_of(directory, policy="rotation") as client:
        results = [await client.classify(PNG, model="cats & dogs", version="1") for _ in range(6)]
        tensors = await client.predict(PIXELS, model="cats & dogs", version="1")
        endpoints = client.snapshot()["balancer"]["endpoints"]
    assert {each.node for each in (*results, tensors)} == {having.id}
    assert {each["id"]: (each["state"], each["failed"]) for each in endpoints} == {
        lacking.id: ("closed", 0),
        having.id: ("closed", 0),
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [("", "this node asks for a token"), ("third", "the token is none of those this node takes")],
)
async def test_without_a_token_the_node_takes_it_is_told_what_to_set(serve, directory, token, given, said) -> None:
    nodes = [await serve(token_file=token) for _ in range(2)]
    async with client_of(directory, token=given) as client:
        for call in (client.classify(PNG), client.predict(PIXELS), client.predict({"pixels": PIXELS})):
            with pytest.raises(
                AccessDenied, match=rf"^digits-\w+ refuses access: {said}.*; set TWOSTEP_NODE"
            ) as caught:
                await call
            assert (caught.value.status, caught.value.reason) == (401, "unauthorized")
            assert caught.value.node in {node.id for node in nodes}
        assert client.snapshot()["calls"]["retries"] == 0
        assert (await client.get("/readyz")).status == 200, "nobody was left out, and probes need no token"


async def test_a_token_is_replaced_on_both_sides_while_all_goes_on(
    serve, directory, token, environment, tmp_path
) -> None:
    await serve(token_file=token)
    mine = tmp_path / "mine"
    mine.write_text("first")
    environment.setenv("TWOSTEP_NODE_TOKEN_FILE", str(mine))
    async with client_of(directory) as client:
        assert (await client.classify(PNG)).label == "5"
        token.write_text("second\n")
        with pytest.raises(AccessDenied):
            await client.classify(PNG)
        mine.write_text("second")
        assert (await client.classify(PNG)).label == "5"


async def test_the_blocking_client_over_https(serve, directory, token, environment, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.issue("node")
    node = await serve(token_file=token, tls_certificate=certificate, tls_key=key)
    assert node.url.startswith("https://")
    environment.setenv("TWOSTEP_CACERT", str(authority.certificate))
    environment.setenv("TWOSTEP_NODE_TOKEN", "second")

    def work() -> list[object]:
        with SmartClient("digits", ScriptedDirectory(listed), timeout=10.0) as client:
            best = client.classify(PNG, model="cats & dogs", version="1")
            [many] = client.classify_many([PNG], model="cats & dogs")
            tensors = client.predict(PIXELS, model="cats & dogs")
            return [best.label, many.result.label, *tensors.output.argmax(axis=1).tolist()]

    listed = (await directory.lookup("digits")).instances
    assert await asyncio.to_thread(work) == ["1", "2", 2, 2]


async def infer(*arguments: object, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run ``twostep infer`` as a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TWOSTEP", "CONSUL"))}
    command = [sys.executable, "-m", "infra.cli", "infer", *map(str, arguments)]
    environment = kept | {name: str(value) for name, value in variables.items()}
    return await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


async def test_the_command_asks_for_a_model_with_the_environments_token(serve, token: Path, tmp_path: Path) -> None:
    node = await serve(token_file=token)
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "mine").write_text("second\n")
    given = ("digits", tmp_path / "a.png", "--registry", f"static://127.0.0.1:{node.port}", "--json", "--explain")
    named = ("--model", "cats & dogs", "--version", "1")
    done = await infer(*given, *named, TWOSTEP_NODE_TOKEN_FILE=tmp_path / "mine", TWOSTEP_NODE_TOKEN="stale")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["version"], answer["label"]) == ("cats & dogs", "1", "1")


async def test_the_command_says_in_one_line_what_access_takes(serve, token: Path, tmp_path: Path) -> None:
    node = await serve(token_file=token)
    (tmp_path / "a.png").write_bytes(PNG)
    given = ("digits", tmp_path / "a.png", "--registry", f"static://127.0.0.1:{node.port}")
    done = await infer(*given, "--json", TWOSTEP_NODE_TOKEN="wrong-one")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["reason"] == "unauthorized"
    assert answer["error"].endswith("; set TWOSTEP_NODE_TOKEN_FILE to a file with a token it takes")
    done = await infer(*given, TWOSTEP_NODE_TOKEN_FILE=tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: TWOSTEP_NODE_TOKEN_FILE: the token file ")
    assert "Traceback" not in done.stderr + answer["error"]
    assert "wrong-one" not in answer["error"]
