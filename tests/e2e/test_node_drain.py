"""SIGTERM under a load that does not wait: no request fails, a second one hurries, and a model that hangs is no excuse.

The model is plain Python and takes 10 ms, so that a node is up at once. The load is open: requests begin when the
schedule says so, in their own time, through the smart client or through one that knows no more than HTTP/1.1.
"""

import asyncio
import random
import signal
import textwrap
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from infra.fleet import LocalFleet, Supervised, twostep
from node.images import encode_png
from smartclient import AsyncSmartClient
from smartclient.errors import ClientError
from tests.plain import Answer, Plain, poisson, post
from tests.support import wait_until

pytestmark = pytest.mark.e2e

GRACE = 30.0  # what orchestrators give before they kill
RATE, SECONDS, STOP_AT = 100.0, 6.0, 2.0
MODEL = """
    import threading
    import time

    import numpy as np

    inputs = [("pixels", "UINT8", (8, 8, 1))]
    outputs = [("scores", "FP32", (10,))]

    def load(folder):
        def run(batch):
            levels = batch["pixels"].reshape(len(batch["pixels"]), -1).mean(axis=1)
            if (levels == 255).any():
                threading.Event().wait()  # for ever
            time.sleep(3.0 if (levels == 200).any() else 0.01)
            return np.full((len(levels), 10), 0.1, np.float32)

        return run
"""


def image(level: int = 7) -> bytes:
    return encode_png(np.full((8, 8, 1), level, np.uint8))


REQUEST = post("/classify", image())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "plain"
    folder.mkdir()
    (folder / "model.py").write_text(textwrap.dedent(MODEL))
    return folder


@pytest.fixture
async def fleet(model: Path) -> AsyncIterator[LocalFleet]:
    with LocalFleet() as fleet:
        fleet.start_registry()
        for name in ("first", "second"):
            fleet.start_node(name, model, "--check-interval", "0.5")
        await fleet.wait_passing("plain", 2)
        yield fleet


def port(node: Supervised) -> int:
    return int(node.log.read_text().split("ready at http://127.0.0.1:")[1].split()[0])


async def stop_in_the_middle(fleet: LocalFleet) -> float:
    """End the first node while the load goes on; seconds until its process had ended."""
    await asyncio.sleep(STOP_AT)
    node, told = fleet.nodes.pop("first"), time.monotonic()
    node.send(signal.SIGTERM)
    while node.running:
        assert time.monotonic() - told < GRACE
        await asyncio.sleep(0.02)
    assert node.popen.returncode == 0, node.tail(10)
    return time.monotonic() - told


async def test_the_smart_client_loses_no_request(fleet: LocalFleet) -> None:
    failures: list[str] = []
    answered: list[tuple[float, str]] = []

    async with AsyncSmartClient("plain", registry=fleet.address) as client:
        await client.ready()

        async def ask(at: float) -> None:
            try:
                answered.append((at, (await client.classify(image())).node))
            except ClientError as error:
                failures.append(f"{at:.2f} s: {error}")

        async with asyncio.TaskGroup() as both:
            both.create_task(poisson(ask, rate=RATE, seconds=SECONDS, rng=random.Random(1)))
            stopping = both.create_task(stop_in_the_middle(fleet))
    assert failures == []
    assert len(answered) > 0.8 * RATE * SECONDS
    assert {node for at, node in answered if at < STOP_AT} == {"first", "second"}
    assert {node for at, node in answered if at > STOP_AT + stopping.result()} == {"second"}


class Static:
    """A client with a list of nodes and nothing else: it goes to the next when a node closes its connection."""

    def __init__(self, ports: list[int]) -> None:
        self._nodes = [Plain(port) for port in ports]
        self._now = 0

    async def ask(self, request: bytes) -> Answer:
        """Send a request; a node that says ``Connection: close`` is not asked again."""
        chosen = self._now
        answer = await self._nodes[chosen].ask(request)
        if answer.headers.get("connection") == "close" and chosen == self._now:
            self._now = (self._now + 1) % len(self._nodes)
        return answer

    async def close(self) -> None:
        for each in self._nodes:
            await each.close()


async def test_a_client_that_knows_only_connection_close_loses_no_request(fleet: LocalFleet) -> None:
    client = Static([port(fleet.nodes["first"]), port(fleet.nodes["second"])])
    answers: list[Answer] = []

    async def ask(at: float) -> None:
        answers.append(await client.ask(REQUEST))

    async with asyncio.TaskGroup() as both:
        both.create_task(poisson(ask, rate=RATE, seconds=SECONDS, rng=random.Random(2)))
        both.create_task(stop_in_the_middle(fleet))
    await client.close()
    assert [answer for answer in answers if answer.status != 200] == []
    assert len(answers) > 0.8 * RATE * SECONDS
    assert any(answer.headers.get("connection") == "close" for answer in answers)


@pytest.fixture
def lone(model: Path, tmp_path: Path) -> Iterator[Supervised]:
    """A node without a registry, ready."""
    node = Supervised("lone", twostep("node", "--model", str(model), "--port", "0", "--no-register"), tmp_path / "log")
    wait_until(lambda: "ready at" in node.log.read_text(), 30, "the node is ready")
    yield node
    if node.running:
        node.popen.kill()
        node.popen.wait()


async def hurried(node: Supervised, levels: Sequence[int]) -> tuple[int, float, list[Answer]]:
    """Ask for an image of each level, signal twice; the exit status, the seconds it took, and the answers."""
    async with Plain(port(node)) as client:
        asked = [asyncio.ensure_future(client.ask(post("/classify", image(level)))) for level in levels]
        await asyncio.sleep(0.5)
        told = time.monotonic()
        node.send(signal.SIGTERM)
        await asyncio.sleep(0.2)
        node.send(signal.SIGTERM)
        status = await asyncio.to_thread(node.wait, GRACE)
        took = time.monotonic() - told
        return status, took, await asyncio.gather(*asked)


async def test_a_second_signal_leaves_out_the_grace_and_what_is_queued(lone: Supervised) -> None:
    status, took, answers = await hurried(lone, [200, 200, 200])
    assert status == 0, lone.tail(10)
    assert took < 8.0  # the batch that ran has 2 s; the queue had 6 s of work, and the grace 1.5
    assert {answer.status for answer in answers} <= {200, 503}
    assert "Traceback" not in lone.log.read_text()


async def test_a_model_that_hangs_does_not_keep_the_process(lone: Supervised) -> None:
    status, took, answers = await hurried(lone, [255, 7])
    assert status == 0, lone.tail(10)
    assert took < 15.0
    assert {(answer.status, answer.headers["retry-after"]) for answer in answers} == {(503, "0")}
    assert "has not come back" in lone.log.read_text()


async def test_a_model_that_never_loads_does_not_keep_the_process(tmp_path: Path) -> None:
    (tmp_path / "stuck").mkdir()
    (tmp_path / "stuck" / "model.py").write_text("import time\n\ndef load(folder):\n    time.sleep(3600)\n")
    command = twostep("node", "--model", str(tmp_path / "stuck"), "--port", "0", "--no-register")
    node = Supervised("stuck", command, tmp_path / "log")
    try:
        wait_until(lambda: "loading" in node.log.read_text(), 30, "the node loads")
        node.send(signal.SIGTERM)
        assert await asyncio.to_thread(node.popen.wait, 15.0) == 0
    finally:
        node.popen.kill()
        node.popen.wait()
