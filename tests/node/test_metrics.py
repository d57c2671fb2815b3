"""What a node tells Prometheus: every promised name, nothing without bound, in a form that ``promtool`` accepts."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from node.errors import ModelError
from node.metrics import Metrics
from node.repository import Model, Wanted
from node.testing import write_model
from tests.node.versioned import add_version
from tests.support import missing

ROOT = Path(__file__).parents[2]
NAMES = {
    "node_requests_total": ("counter", {"model", "version", "code"}),
    "node_request_duration_seconds": ("histogram", set()),
    "node_queue_wait_seconds": ("histogram", {"model"}),
    "node_decode_seconds": ("histogram", set()),
    "node_inference_seconds": ("histogram", {"model"}),
    "node_batch_size": ("histogram", {"model"}),
    "node_queue_depth": ("gauge", set()),
    "node_inflight_requests": ("gauge", set()),
    "node_rejected_total": ("counter", {"reason"}),
    "node_ready": ("gauge", set()),
    "node_draining": ("gauge", set()),
    "node_model_info": ("gauge", {"model", "version", "runtime"}),
    "node_model_load_seconds": ("gauge", {"model", "version"}),
    "node_registry_sync_failures_total": ("counter", set()),
}


@pytest.fixture(scope="session")
def promtool() -> str:
    """Path of Prometheus' own checker; where there is none, Debian's package is unpacked into the cache."""
    cached = ROOT / ".cache" / "prometheus" / "promtool"
    if found := shutil.which("promtool") or (str(cached) if cached.exists() else ""):
        return found
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        missing("promtool", "install Prometheus, it comes with it")
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
        unpack(Path(folder)).rename(cached)
    return str(cached)


def unpack(work: Path) -> Path:
    """Take ``promtool`` out of the package without installing it: nothing is started, no system file changes."""
    (work / "lists" / "partial").mkdir(parents=True)
    (work / "archives" / "partial").mkdir(parents=True)
    own = ["apt-get", "-qq", "-o", f"Dir::State::Lists={work}/lists", "-o", f"Dir::Cache={work}"]
    own += ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    said = ""
    for command in (["apt-get", "-qq", "download"], [*own, "update"], [*own, "download"]):
        what = ["prometheus"] if command[-1] == "download" else []
        done = subprocess.run([*command, *what], cwd=work, capture_output=True, text=True, timeout=120, check=False)
        said = done.stderr.strip() or said
        if packages := list(work.glob("prometheus_*.deb")):
            subprocess.run(["dpkg-deb", "-x", packages[0], work / "unpacked"], check=True, timeout=120)
            return work / "unpacked" / "usr" / "bin" / "promtool"
    return missing("promtool", f"apt-get install prometheus ({said.splitlines()[-1] if said else 'no such package'})")


async def check(promtool, text):
    """What ``promtool check metrics`` says, and its exit status: 1 for what cannot be read, 3 for bad manners."""
    done = await asyncio.to_thread(
        subprocess.run,
        [promtool, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr, done.returncode


@pytest.fixture
def scrape(session):
    async def get(node):
        async with session.get(f"{node.url}/metrics") as reply:
            assert reply.status == 200
            assert reply.content_type == "text/plain"
            return await reply.text()

    return get


@pytest.fixture
def post(session):
    async def send(node, data, path="/classify", **headers):
        async with session.post(node.url + path, data=data, headers=headers) as reply:
            await reply.read()
            return reply.status

    return send


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(text):
    """Every sample's value by its name and the values of its labels, in the order of the labels' names."""
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels) if key != "le")): sample.value
        for family in families(text).values()
        for sample in family.samples
    }


async def busy(node, post, png):
    """Have a bit of everything happen."""
    assert await post(node, png()) == 200
    assert await post(node, b"no picture") == 422
    assert await post(node, png(), **{"x-envoy-expected-rq-timeout-ms": "0"}) == 504
    assert await post(node, b"x" * 100_001) == 413
    assert await post(node, png(), "/classify?model=cats") == 404
    node.admission._max_requests = 0
    assert await post(node, png()) == 503
    node.admission._max_requests = 512
    node.intake.refusing = True
    assert await post(node, png()) == 503
    node.intake.refusing = False


async def test_every_promised_metric_is_there_with_its_type_and_labels(make_node, post, png, scrape):
    node = make_node(max_body=100_000)
    await node.start()
    await busy(node, post, png)
    found = families(await scrape(node))
    for name, (kind, labels) in NAMES.items():
        family = found[name.removesuffix("_total")]
        assert family.type == kind, name
        assert family.documentation, name
        (kept,) = {frozenset(sample.labels) - {"le"} for sample in family.samples}
        assert kept == labels, name
        assert kind != "counter" or {sample.name for sample in family.samples} == {name}, name


async def test_the_exposition_passes_promtool(make_node, post, png, scrape, promtool):
    node = make_node(max_body=100_000)
    await node.start()
    await busy(node, post, png)
    assert await check(promtool, await scrape(node)) == ("", 0)


async def test_a_fresh_node_passes_too(promtool):
    assert await check(promtool, Metrics().text().decode()) == ("", 0)


async def test_promtool_would_have_complained(promtool):
    said, status = await check(promtool, "# HELP node_time_ms Time.\n# TYPE node_time_ms counter\nnode_time_ms 1\n")
    assert (status, "_total" in said) == (3, True)
    assert (await check(promtool, "node_time{ 1\n"))[1] == 1


async def test_requests_are_counted_by_what_answered_them_and_refusals_by_reason(make_node, post, png, scrape):
    node = make_node(max_body=100_000)
    await node.start()
    await busy(node, post, png)
    text = await scrape(node)
    counted = {key[1:]: value for key, value in samples(text).items() if key[0] == "node_requests_total"}
    assert counted == {
        ("200", "digits", "1"): 1,
        ("422", "digits", "1"): 1,
        ("504", "", ""): 1,
        ("413", "", ""): 1,
        ("404", "", ""): 1,
        ("503", "", ""): 2,
    }
    refused = {key[1]: value for key, value in samples(text).items() if key[0] == "node_rejected_total"}
    assert refused == {"queue_full": 1, "deadline": 1, "too_large": 1, "bad_image": 1, "draining": 1}


async def test_names_that_clients_invent_are_no_labels(make_node, post, png, scrape):
    node = make_node()
    await node.start()
    for number in range(20):
        assert await post(node, png(), f"/classify?model=m{number}&version={number}") == 404
        assert await post(node, png(), f"/classify?version={number + 100}") == 404
    counted = [key for key in samples(await scrape(node)) if key[0] == "node_requests_total"]
    assert counted == [("node_requests_total", "404", "", "")]


async def test_batches_and_waits_are_measured(node, post, png, scrape, runtime, until, queued):
    runtime.gate.clear()
    before = len(runtime.batches)
    first = asyncio.ensure_future(post(node, png()))
    await until(lambda: len(runtime.batches) > before)
    others = [asyncio.ensure_future(post(node, png())) for _ in range(3)]
    await until(lambda: queued(node) == 3)
    now = samples(await scrape(node))
    assert (now[("node_queue_depth",)], now[("node_inflight_requests",)]) == (3, 4)
    runtime.gate.set()
    await asyncio.gather(first, *others)
    await until(lambda: node.admission.requests == 0)
    after = samples(await scrape(node))
    assert (after[("node_queue_depth",)], after[("node_inflight_requests",)]) == (0, 0)
    assert (after[("node_batch_size_count", "digits")], after[("node_batch_size_sum", "digits")]) == (2, 4)
    assert after[("node_inference_seconds_count", "digits")] == 2
    assert after[("node_queue_wait_seconds_count", "digits")] == 4
    assert after[("node_queue_wait_seconds_sum", "digits")] > 0
    assert after[("node_decode_seconds_count",)] == 4
    assert after[("node_request_duration_seconds_count",)] == 4


async def test_ready_and_draining_follow_the_nodes_life(make_node, scrape, runtime, until):
    runtime.gate.clear()
    node = make_node()
    starting = asyncio.ensure_future(node.start())
    await until(lambda: runtime.batches)
    seen = []

    async def look():
        now = samples(await scrape(node))
        seen.append((now[("node_ready",)], now[("node_draining",)]))

    await look()
    runtime.gate.set()
    await starting
    await look()
    await node._aside.step("")
    await look()
    await node._aside.back()
    await look()
    assert seen == [(0, 0), (1, 0), (0, 1), (1, 0)]


async def test_versions_come_and_go(make_node, model, scrape, until):
    write_model(model, version=2)
    node = make_node(models=(Model(path=model, wanted=Wanted(latest=2)),))
    await node.start()

    async def served():
        return {key[1:] for key in samples(await scrape(node)) if key[0] == "node_model_info"}

    assert await served() == {("digits", "scripted", "1"), ("digits", "scripted", "2")}
    add_version(model, 3)
    await node.repository.load()
    assert await served() == {("digits", "scripted", "2"), ("digits", "scripted", "3")}
    seconds = {key[2] for key in samples(await scrape(node)) if key[0] == "node_model_load_seconds"}
    assert seconds == {"2", "3"}
    await node.repository.unload("digits")
    assert await served() == set()


async def test_what_cannot_be_loaded_is_counted(node, model, scrape):
    add_version(model, 2)
    (model / "2" / "model.keras").write_bytes(b"damaged")
    with pytest.raises(ModelError):
        await node.repository.load()
    assert samples(await scrape(node))[("node_model_load_failures_total", "digits")] == 1


async def test_failed_calls_to_the_registry_are_counted(node, directory, scrape, until):
    directory.fail()
    await node._aside.step("")
    assert samples(await scrape(node))[("node_registry_sync_failures_total",)] >= 1
    directory.heal()


def test_two_nodes_in_one_process_count_for_themselves():
    one, other = Metrics(), Metrics()
    one.answered("digits", "1", 200, 0.1)
    assert "node_requests_total{" in one.text().decode()
    assert "node_requests_total{" not in other.text().decode()


def test_a_counter_kept_elsewhere_is_read_when_somebody_asks():
    metrics, kept = Metrics(), {"a": 1.0}
    metrics.counter("node_things", "Things.", "kind", lambda: kept)
    assert 'node_things_total{kind="a"} 1.0' in metrics.text().decode()
    kept["a"], kept["b"] = 2.0, 5.0
    assert 'node_things_total{kind="a"} 2.0' in metrics.text().decode()
    assert 'node_things_total{kind="b"} 5.0' in metrics.text().decode()
