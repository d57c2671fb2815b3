"""The parts of ``bench node``: load generator, pipelines, servers as processes, and what is made of the figures.

The whole is run over servers that only answer; the engines, LitServe and mosec are not installed here, and how fast
anything is, is not a test's business.
"""

import ast
import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from click.testing import CliRunner
from PIL import Image

from infra.bench import bare, environments, standing
from infra.bench import node as node_bench
from infra.bench.bare import Engine, Pipeline
from infra.bench.cli import bench
from infra.bench.closed import MOST_FAILURES, Outcome, Tally, Turn, rate
from infra.bench.pressure import Pressure
from infra.bench.processes import child_of, usage
from infra.bench.rivals import frozen
from infra.bench.servers import Server
from infra.consul.agent import free_port
from infra.fleet import FleetError
from node.images import decode
from node.preprocessing import Preprocessing

RIVALS = Path(frozen.__file__).parent
BODIES = [b"image %d" % number * 1000 for number in range(4)]


def plain(index: int, score: float = 0.5) -> dict[str, object]:
    return {"index": index, "score": score}


def of_node(index: int) -> dict[str, object]:
    return {"model": "m", "results": [{"name": "", "predictions": [{"label": "x", **plain(index)}]}]}


@asynccontextmanager
async def served(answer: Callable[[bytes], web.StreamResponse]) -> AsyncIterator[int]:
    async def classify(request: web.Request) -> web.StreamResponse:
        if request.content_type == "multipart/form-data":
            return answer((await request.post())["request"].file.read())
        return answer(await request.read())

    app = web.Application(client_max_size=2**24)
    app.router.add_post("/classify", classify)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield site._server.sockets[0].getsockname()[1]
    await asyncio.sleep(0.05)  # connections that nobody waited for are taken and let go
    await runner.cleanup()


async def press(answer: Callable[[bytes], web.StreamResponse], form: str, **turn: float) -> Outcome:
    asked = {"clients": 4, "warm": 0.1, "seconds": 0.3} | turn
    async with served(answer) as port:
        return await asyncio.to_thread(Pressure(Turn(port=port, form=form, **asked), BODIES).run)


@pytest.mark.parametrize(("form", "wrap"), [("node", of_node), ("raw", plain), ("multipart", plain)])
async def test_every_image_arrives_whole_in_the_form_the_server_wants(form: str, wrap: Callable) -> None:
    seen: list[int] = []

    def answer(body: bytes) -> web.Response:
        seen.append(BODIES.index(body))
        return web.json_response(wrap(seen[-1]))

    outcome = await press(answer, form)
    assert (outcome.failed, outcome.other) == (0, 0)
    assert outcome.answered == len(seen) > 20
    assert max(seen.count(each) for each in range(4)) - min(seen.count(each) for each in range(4)) <= 4
    assert outcome.rate > 0
    assert 0 < len(outcome.milliseconds) < outcome.answered
    assert outcome.cpu > 0


async def test_another_class_than_the_images_own_is_counted() -> None:
    outcome = await press(lambda body: web.json_response(plain(1)), "raw")
    assert outcome.failed == 0
    assert outcome.answered * 0.6 < outcome.other < outcome.answered * 0.9


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda _: web.json_response(plain(1), status=503), "503"),
        (lambda _: web.json_response(plain(1000)), "no class of 1000"),
        (lambda _: web.json_response(plain(1, 0.0)), "no score"),
        (lambda _: web.json_response({"score": 0.5}), "index"),
        (lambda _: web.Response(text="ok"), "JSON is malformed"),
    ],
)
async def test_what_is_no_right_answer_is_no_throughput(answer: Callable, words: str) -> None:
    outcome = await press(answer, "raw")
    assert (outcome.answered, outcome.rate) == (0, 0.0)
    assert outcome.failed >= MOST_FAILURES  # and then it gives up
    assert words in outcome.first_failure


async def test_a_connection_that_is_closed_is_made_anew() -> None:
    count = 0

    def answer(body: bytes) -> web.Response:
        nonlocal count
        count += 1
        reply = web.json_response(plain(BODIES.index(body)))
        if count % 50 == 0:
            reply.force_close()
        return reply

    outcome = await press(answer, "raw", seconds=0.2)
    assert outcome.answered > outcome.failed > 0
    assert "connection" in outcome.first_failure


def test_a_rate_is_taken_from_burst_to_burst() -> None:
    bursts = [float(second) for second in range(10) for _ in range(32)]
    assert rate(bursts, 1.9, 5.1) == 32.0
    assert rate(bursts, 2.0, 5.9) == 32.0
    assert rate([], 0.0, 1.0) == 0.0
    assert rate([0.5], 1.0, 2.0) == 0.0
    assert rate([1.5, 2.0], 1.0, 3.0) == 2.0


def test_a_turn_counts_once_every_client_has_had_an_answer() -> None:
    tally = Tally(Turn(clients=2, warm=1.0, seconds=3.0), 10.0)
    tally.answered(10.5, 10.0, first=True)
    tally.answered(11.5, 10.5, first=False)
    tally.answered(14.0, 10.0, first=True)  # a slow server's last first answer
    assert tally.end == 17.0
    tally.answered(14.5, 14.0, first=False)
    tally.answered(16.0, 14.5, first=False, own=False)
    tally.answered(17.5, 16.0, first=False)  # under way at the end
    tally.failure("one")
    tally.failure("two")
    assert tally.outcome(0.5) == Outcome(
        rate=1.0, milliseconds=[500.0, 1500.0], answered=6, other=1, cpu=0.5, failed=2, first_failure="one"
    )


def jpeg(level: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (448, 448), (level, level, level)).save(out, "JPEG")
    return out.getvalue()


@pytest.mark.parametrize("clients", [1, 8])
def test_a_bare_pipeline_classifies_what_it_decodes(clients: int) -> None:
    sizes = []

    def run(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        return np.eye(3, dtype=np.float32)[np.rint(batch.mean(axis=(1, 2, 3)) / 100).astype(int)]

    pipeline = Pipeline(Engine(run, np.dtype(np.uint8), {}), [jpeg(0), jpeg(100), jpeg(200)], threads=2)
    outcome = pipeline.take(Turn(clients=clients, warm=0.05, seconds=0.2))
    assert outcome.answered == sum(sizes) > clients
    assert outcome.other == 0
    assert outcome.rate > 0
    assert max(sizes) <= clients


def test_the_rivals_see_the_pixels_that_a_node_sees() -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize((1600, 1200))
    out = io.BytesIO()
    picture.save(out, "JPEG")
    ours = decode(out.getvalue(), Preprocessing(height=frozen.SIDE, width=frozen.SIDE))
    assert np.array_equal(frozen.decode(out.getvalue()), ours)
    assert Preprocessing(height=frozen.SIDE, width=frozen.SIDE) == bare.WANTED


def test_what_runs_in_an_environment_of_its_own_needs_nothing_of_ours() -> None:
    allowed = {"litserve", "mosec", "fastapi", "numpy", "PIL", "tensorflow", *sys.stdlib_module_names}
    for name in ("frozen", "litserve_app", "mosec_app"):
        for found in ast.walk(ast.parse((RIVALS / f"{name}.py").read_text())):
            names = [found.module] if isinstance(found, ast.ImportFrom) else []
            names += [alias.name for alias in found.names] if isinstance(found, ast.Import) else []
            for each in names:
                assert each.startswith("infra.bench.rivals") or each.partition(".")[0] in allowed, (name, each)
    for package in ("infra", "infra/bench", "infra/bench/rivals"):  # run on the way there
        assert "import" not in (RIVALS.parents[2] / package / "__init__.py").read_text()


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(command)
    yield running
    running.kill()
    running.wait()


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="what processes use is read from /proc")
def test_a_kept_group_ends_with_its_keeper_even_while_it_is_stopped() -> None:
    workers = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); time.sleep(60)"
    stubborn = "import signal, time; signal.signal(signal.SIGHUP, signal.SIG_IGN); time.sleep(60)"
    keeper = (sys.executable, "-P", "-m", "infra.bench.keeper", sys.executable, "-c", workers, stubborn)
    with process(*keeper) as keeping:
        until(lambda: child_of(keeping.pid) is not None)
        session = child_of(keeping.pid)
        until(lambda: child_of(session) is not None)
        assert usage(session).resident > 5_000_000
        os.killpg(session, signal.SIGSTOP)
        keeping.send_signal(signal.SIGTERM)
        keeping.wait(10)
    until(lambda: usage(session).resident == 0)


def test_an_environment_is_made_once_for_a_list_of_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[list[str]] = []

    def run(command: list[str], failure: str) -> None:
        if "venv" in command:
            Path(command[-1]).mkdir()
        else:
            installed.append(command[-3:])

    monkeypatch.setenv("TWOSTEP_CACHE", str(tmp_path))
    monkeypatch.setattr(environments, "_run", run)
    pythons = {environments.python_with("rival", [version]) for version in ("rival==1", "rival==1", "rival==2")}
    assert pythons == {tmp_path / "bench" / "rival" / "bin" / "python"}
    assert installed == [["rival==1", *environments.same_engines()], ["rival==2", *environments.same_engines()]]
    assert [each.partition("==")[0] for each in environments.same_engines()] == ["pillow", "tensorflow-cpu"]


def test_what_cannot_be_installed_is_said_in_a_line() -> None:
    with pytest.raises(FleetError, match=r"^rival cannot be installed: no such thing; leave it out with --only"):
        environments._run(
            [sys.executable, "-c", "raise SystemExit('pip:\\nno such thing')"], "rival cannot be installed"
        )


def arm(name: str, *rates: float, lone: tuple[float, ...] = (), **fields: object) -> standing.Arm:
    return standing.Arm(
        name,
        outcomes=[Outcome(rate=each, milliseconds=[10.0, each], answered=100, other=1, cpu=1.0) for each in rates],
        lone=[Outcome(rate=1.0, milliseconds=[each], answered=50, cpu=1.0) for each in lone],
        cpu=3.0,
        others=0.5,
        wall=5.0,
        **fields,
    )


SERVER = {"ready": 2.04, "resident": 50_400_000, "idle_percent": 0.123, "client_cpu": 0.35}
MEASURED = [
    arm("bare_tensorflow", 100.0, 50.0, 80.0, lone=(10.0, 20.0, 10.0)),
    arm("node_tensorflow", 90.0, 50.0, 60.0, lone=(11.0, 21.0, 10.5), about={"runtime": "tensorflow"}, **SERVER),
    arm("node_auto", 300.0, 100.0, 200.0, about={"runtime": "onnx"}, ready_again=1.0, **SERVER),
    arm("node_int8", 400.0, 200.0, 300.0, about={"runtime": "litert int8", "agreement": "best class"}, **SERVER),
    arm("litserve", 50.0, 50.0, 50.0, **SERVER | {"idle_percent": 9.0}),
    arm("mosec", 60.0, 40.0, 80.0, **SERVER),
]


def test_ratios_are_medians_of_the_rounds_ratios() -> None:
    result = standing.summary(MEASURED)
    assert result["images_per_s"]["node_auto"] == 200.0
    assert result["ratios"] == {
        "node_tensorflow / bare_tensorflow": 0.9,
        "node_auto / rival": 2.5,  # mosec's median is higher than LitServe's
        "node_int8 / rival": 5.0,
    }
    assert result["lone_ratios"] == {"node_tensorflow": 1.05}
    assert result["lone_ratio"] == 1.05
    assert result["lone_ms"] == {"bare_tensorflow": 10.0, "node_tensorflow": 11.0}


def test_every_figure_is_by_arm_and_of_all_turns() -> None:
    result = standing.summary(MEASURED, clients=32)
    names = [each.name for each in MEASURED]
    for key in ("images_per_s", "p50_ms", "p99_ms", "cpu_s_per_1000", "failed", "other_class", "rounds"):
        assert list(result[key]) == names
    for key in ("rss_mb", "start_to_ready_s", "idle_cpu_percents"):
        assert list(result[key]) == names[1:]  # servers
    assert result["clients"] == 32
    assert result["p50_ms"]["node_auto"] == 10.0
    assert result["p99_ms"]["node_auto"] == 300.0
    assert result["cpu_s_per_1000"]["node_auto"] == 10.0
    assert result["cpu_s_per_1000"]["node_tensorflow"] == round(3000 / 450, 2)  # a lone client's images, too
    assert result["rss_mb"]["mosec"] == 50
    assert result["start_again_s"] == {"node_auto": 1.0}
    assert result["idle_cpu_percent"] == 0.12  # the nodes'
    assert result["auto_runtime"] == "onnx"
    assert result["other_class"]["mosec"] == 0.01
    assert result["others_percent"] == round(10 / standing.cores(), 1)
    assert result["client_cpu_ms"] == round(5 * 350 / (4 * 300 + 450), 3)


def test_the_report_has_a_line_for_every_arm_and_aim() -> None:
    shown = standing.as_text(standing.summary(MEASURED, image_kb=246, clients=32, seconds=4.0))
    lines = shown.splitlines()
    assert lines[0].endswith("JPEGs of 246 kB, 32 clients; medians of 3 rounds of 4 s")
    assert [line.split()[0] for line in lines[2:8]] == [
        *("node_int8", "node_auto", "bare_tensorflow", "node_tensorflow", "mosec", "litserve")
    ]
    assert "litert int8" in lines[2]
    assert "node_tensorflow / bare_tensorflow" in shown
    assert "0.90   (aim: at least 0.9)" in shown
    assert "1.05   (aim: at most 1.1; 11 ms)" in shown
    assert "node_int8: best class" in shown
    assert "failed" not in shown
    busy = standing.summary([arm("bare_fastest", 5.0, client_cpu=0.0)], image_kb=1, clients=32, seconds=1.0)
    assert "other processes took 40 % of the machine" in standing.as_text(busy | {"others_percent": 40.0})
    assert max(map(len, lines)) < 120


def test_arms_that_were_left_out_are_missed_by_nobody() -> None:
    result = standing.summary([arm("bare_fastest", 5.0)], image_kb=1, clients=32, seconds=1.0)
    assert (result["ratios"], result["lone_ratio"], result["client_cpu_ms"]) == ({}, None, None)
    assert "bare_fastest" in standing.as_text(result)


STUB = """
    import json, sys, threading
    from aiohttp import web

    async def classify(request):
        body = await request.read()
        return web.json_response(ANSWER)

    async def metrics(request):
        return web.Response(text='node_model_info{model="m",runtime="stub",version="1"} 1.0')

    app = web.Application()
    app.router.add_post("/classify", classify)
    app.router.add_get("/metrics", metrics)
    if BUSY:
        threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
    web.run_app(app, host="127.0.0.1", port=PORT, print=None)
"""


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """Servers that only answer, in the place of the real ones."""
    started: list[Server] = []

    def start(name: str, folder: Path, logs: Path) -> Server:
        port = free_port()
        form = "node" if name.startswith("node_") else "raw"
        answer = of_node(1) if form == "node" else plain(1)
        facts = {"ANSWER": answer, "PORT": port, "BUSY": name == "mosec"}
        code = "\n".join(f"{key} = {value!r}" for key, value in facts.items()) + textwrap.dedent(STUB)
        started.append(Server(name, form, port, [sys.executable, "-c", code], logs / name))
        return started[-1]

    def make(module: str, folder: Path) -> None:
        for number, body in enumerate(BODIES):
            (folder / f"{number}.jpg").write_bytes(body)

    monkeypatch.setattr(node_bench, "start", start)
    monkeypatch.setattr(node_bench, "_make", make)
    return started


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform != "linux", reason="what processes use is read from /proc")
def test_arms_take_turns_and_one_that_burns_while_idle_is_stopped_meanwhile(
    stubs: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = node_bench.Effort
    monkeypatch.setattr(node_bench, "Effort", lambda **given: whole(warm=0.1, lone=0.1, idle=1.0, **given))
    only = [part for name in ("node_auto", "mosec") for part in ("--only", name)]
    arguments = ["node", "--rounds", "2", "--seconds", "0.5", *only]
    done = CliRunner(catch_exceptions=False).invoke(bench, [*arguments, "--json"])
    result = json.loads(done.stdout)
    assert [server.name for server in stubs] == ["node_auto", "node_auto", "mosec"]  # the node again, having chosen
    assert list(result["images_per_s"]) == ["node_auto", "mosec"]
    assert result["auto_runtime"] == "stub"
    assert all(len(each) == 2 for each in result["rounds"].values())
    assert result["failed"] == {"node_auto": 0, "mosec": 0}
    assert 0.6 < result["other_class"]["node_auto"] < 0.9
    assert result["idle_cpu_percents"]["mosec"] > 20 > result["idle_cpu_percents"]["node_auto"]
    assert result["ratios"]["node_auto / rival"] > 0
    assert min(result["start_to_ready_s"].values()) > 0
    assert result["rss_mb"]["mosec"] > 10
    assert 0 <= result["others_percent"] <= 100
    assert "round 2 of 2" in done.stderr
    shown = CliRunner(catch_exceptions=False).invoke(bench, arguments).stdout
    assert "node_auto / rival" in shown
    assert not any(server._keeper.running for server in stubs)


@pytest.mark.e2e
def test_a_server_that_ends_at_once_is_named_with_its_last_words(tmp_path: Path) -> None:
    server = Server(
        "broken", "raw", free_port(), [sys.executable, "-c", "raise SystemExit('no model')"], tmp_path / "log"
    )
    with pytest.raises(FleetError, match="broken ended with 1: no model"):
        server.ready(b"")
    server.stop()


@pytest.mark.tensorflow
@pytest.mark.timeout(300)
def test_random_weights_are_made_to_decide_and_the_frozen_graph_says_the_same(tmp_path: Path) -> None:
    code = """
        import sys, numpy as np, keras
        from pathlib import Path
        from infra.bench import weights
        from infra.bench.rivals.frozen import SIDE

        keras.utils.set_random_seed(1)
        layers = keras.layers
        given = keras.Input((SIDE, SIDE, 3))
        x = layers.BatchNormalization()(layers.Conv2D(8, 3, strides=4)(given))
        x = layers.GlobalAveragePooling2D()(layers.add([x, layers.BatchNormalization()(layers.ReLU(6.0)(x))]))
        network = keras.Model(given, layers.Dense(10, activation="softmax")(x))
        pixels = keras.Input((SIDE, SIDE, 3))
        model = keras.Model(pixels, network(layers.Rescaling(1 / 127.5, offset=-1)(pixels)))
        pictures = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3)).repeat(56, 1).repeat(56, 2).astype(np.uint8)
        weights.decide(model, pictures)
        scores = model(pictures.astype(np.float32)).numpy()
        assert scores.argmax(axis=1).tolist() == [0, 1, 2], scores
        assert scores.max(axis=1).min() > 0.5, scores
        folder = Path(sys.argv[1])
        (folder / "frozen.pb").write_bytes(weights.freeze(model))
        np.savez(folder / "said.npz", pictures=pictures, scores=scores)
        weights.write_samples(folder / "samples", pictures)
        assert len(list((folder / "samples").iterdir())) == 3 * weights.SHADES
    """
    rival = """
        import sys, numpy as np
        from pathlib import Path
        from infra.bench.rivals.frozen import load

        folder = Path(sys.argv[1])
        said = np.load(folder / "said.npz")
        assert np.allclose(load(folder / "frozen.pb")(said["pictures"]), said["scores"], atol=1e-4)
    """
    for each in (code, rival):
        command = [sys.executable, "-P", "-c", textwrap.dedent(each), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
