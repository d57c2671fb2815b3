"""Versions that replace each other under load: no request fails, no answer is mixed, nothing is left behind."""

import asyncio
from collections import Counter

import aiohttp
import pytest

from node.config import NodeConfig
from node.errors import ModelError, NodeError
from node.repository import Model, Wanted
from node.server import NodeServer
from tests.node.versioned import Opener, add_version, publish_next

CLIENTS = 8


@pytest.fixture
def opener():
    fake = Opener()
    yield fake
    fake.gate.set()


@pytest.fixture
async def make(model, opener, directory):
    made = []

    async def node(*, wanted=None, **options):
        models = (Model(path=model, wanted=wanted or Wanted()),)
        config = NodeConfig(models=models, port=0, id="digits-a1b2", drain_grace=0.05, **options)
        node = NodeServer(config, open=opener, directory=directory)
        made.append(node)
        await node.start()
        return node

    yield node
    for each in made:
        await each.stop()


class Load:
    """Clients that ask again as soon as they are answered; ``versions`` counts the answers by version."""

    def __init__(self, node, data, query=""):
        self.url = f"{node.url}/classify{query}"
        self.data = data
        self.versions = Counter()
        self.statuses = Counter()
        self.wrong = []
        self.failed = []
        self._over = False
        self._tasks = []

    async def __aenter__(self):
        self._tasks = [asyncio.ensure_future(self._client()) for _ in range(CLIENTS)]
        return self

    async def __aexit__(self, *exception):
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _client(self):
        async with aiohttp.ClientSession() as session:
            while not self._over:
                try:
                    async with session.post(self.url, data=self.data) as reply:
                        self._note(reply.status, await reply.json())
                except aiohttp.ClientError as error:
                    self.failed.append(repr(error))

    def _note(self, status, body):
        self.statuses[status] += 1
        if status == 200:
            computed = body["results"][0]["predictions"][0]["label"]
            self.versions[body["version"]] += 1
            if computed != body["version"]:
                self.wrong.append((body["version"], computed))

    def answered_by(self, version, times=CLIENTS):
        return self.versions[version] >= times


async def test_swaps_under_load_fail_nothing_and_mix_nothing(make, model, opener, png, until):
    node = await make()
    async with Load(node, png()) as load:
        await until(lambda: load.answered_by("1"))
        for version in range(2, 7):
            add_version(model, version)
            await node.repository.load()
            await until(lambda version=version: load.answered_by(str(version)))
    assert load.failed == []
    assert load.wrong == []
    assert set(load.statuses) == {200}
    assert set(load.versions) == {"1", "2", "3", "4", "5", "6"}
    await until(lambda: sum(opener.only(str(version)).closes for version in range(1, 6)) == 5)
    assert [opener.only(str(version)).closes for version in range(1, 7)] == [1, 1, 1, 1, 1, 0]
    assert [opener.only(str(version)).late for version in range(1, 7)] == [0] * 6
    assert len(node._compute._queues) == 1


async def test_the_old_version_answers_while_the_new_one_loads_and_warms(make, model, opener, png, until):
    node = await make()
    gate = opener.hold("2")
    async with Load(node, png()) as load:
        add_version(model, 2)
        loading = asyncio.ensure_future(node.repository.load())
        await until(lambda: ("digits", "2") in opener.asked)
        before = load.versions["1"]
        await until(lambda: load.answered_by("1", before + 10 * CLIENTS))
        assert node.lifecycle.ready
        gate.set()
        await loading
        await until(lambda: load.answered_by("2"))
    assert (load.failed, load.wrong, set(load.statuses)) == ([], [], {200})


async def test_a_broken_version_is_refused_under_load_and_the_old_one_goes_on(make, model, opener, session, png, until):
    node = await make()
    async with Load(node, png()) as load:
        add_version(model, 2)
        opener.refuse("2")
        with pytest.raises(ModelError):
            await node.repository.load()
        add_version(model, 3)
        (model / "3" / "model.keras").write_bytes(b"damaged on its way")
        with pytest.raises(ModelError, match="sha256"):
            await node.repository.load()
        before = load.versions["1"]
        await until(lambda: load.answered_by("1", before + 10 * CLIENTS))
    assert (load.failed, load.wrong, set(load.versions), set(load.statuses)) == ([], [], {"1"}, {200})
    assert opener.only("1").closes == 0
    async with session.post(f"{node.url}/classify?version=3", data=png()) as reply:
        assert reply.status == 404
        assert "sha256 differs" in (await reply.json())["error"]


async def test_a_pinned_version_answers_itself_or_not_at_all(make, model, png, until):
    node = await make()
    async with Load(node, png(), "?version=1") as pinned, Load(node, png()) as load:
        await until(lambda: pinned.answered_by("1"))
        for version in (2, 3):
            add_version(model, version)
            await node.repository.load()
            await until(lambda version=version: load.answered_by(str(version)))
        await until(lambda: pinned.statuses[404] >= CLIENTS)
    assert (pinned.failed, pinned.wrong) == ([], [])
    assert set(pinned.statuses) == {200, 404}
    assert set(pinned.versions) == {"1"}


async def test_two_versions_side_by_side_each_answer_for_themselves(make, model, png, until):
    add_version(model, 2)
    node = await make(wanted=Wanted(latest=2))
    async with Load(node, png(), "?version=1") as old, Load(node, png(), "?version=2") as new:
        await until(lambda: old.answered_by("1", 40) and new.answered_by("2", 40))
        add_version(model, 3)
        await node.repository.load()
        before = new.versions["2"]
        await until(lambda: new.answered_by("2", before + 40) and old.statuses[404] > 0)
    assert (old.wrong, new.wrong, old.failed, new.failed) == ([], [], [], [])
    assert set(new.statuses) == {200}


async def test_the_old_model_is_freed_only_after_its_last_request(make, model, opener, session, png, until):
    node = await make()
    old = opener.only("1")
    old.gate.clear()
    runs = len(old.batches)

    async def ask():
        async with session.post(f"{node.url}/classify", data=png()) as reply:
            return reply.status, (await reply.json())["version"]

    running = asyncio.ensure_future(ask())
    await until(lambda: len(old.batches) > runs)
    queued = asyncio.ensure_future(ask())
    await until(lambda: node.repository.find().batcher.depth == 1)
    add_version(model, 2)
    loading = asyncio.ensure_future(node.repository.load())
    await until(lambda: opener.opened["2"])
    assert old.closes == 0
    old.gate.set()
    await loading
    assert await running == (200, "1")
    assert await queued == (200, "1")
    await until(lambda: old.closes == 1)
    assert old.late == 0


async def test_the_registry_hears_of_the_new_version(make, model, directory, until):
    node = await make()
    assert directory.registrations["digits-a1b2"].version == "1"
    add_version(model, 2)
    await node.repository.load()
    await until(lambda: directory.registrations["digits-a1b2"].version == "2")
    add_version(model, 3)
    directory.fail()
    await node.repository.load()
    assert directory.registrations["digits-a1b2"].version == "2"
    assert node.repository.find().version == "3"
    directory.heal()
    await until(lambda: directory.registrations["digits-a1b2"].version == "3")


async def test_a_swap_does_not_bring_a_drained_node_back(make, model, directory):
    node = await make()
    await node._aside.step("an operator says so")
    add_version(model, 2)
    await node.repository.load()
    await asyncio.gather(*node._tasks)
    assert (await directory.lookup("digits")).instances == ()
    await node._aside.back()
    (instance,) = (await directory.lookup("digits")).instances
    assert instance.version == "2"


class TestWatching:
    async def test_published_versions_are_loaded_and_swapped_under_load(self, make, model, opener, png, until):
        node = await make(watch=0.02)
        async with Load(node, png()) as load:
            for version in (2, 3, 4):
                assert publish_next(model).name == str(version)
                await until(lambda version=version: load.answered_by(str(version)))
        assert (load.failed, load.wrong, set(load.statuses)) == ([], [], {200})
        await until(lambda: [opener.only(str(version)).closes for version in (1, 2, 3, 4)] == [1, 1, 1, 0])

    async def test_a_version_published_while_the_node_starts_is_not_missed(self, model, opener, make, until):
        gate = opener.hold("1")
        starting = asyncio.ensure_future(make(watch=0.02))
        await until(lambda: opener.asked)
        add_version(model, 2)
        gate.set()
        node = await starting
        await until(lambda: node.repository.find().version == "2")

    async def test_a_broken_one_is_refused_once_and_tried_again_when_mended(self, make, model, opener, until, caplog):
        node = await make(watch=0.02)
        opener.refuse("2")
        add_version(model, 2)
        await until(lambda: ("digits", "2") in opener.asked)
        await asyncio.sleep(0.2)
        assert opener.asked.count(("digits", "2")) == 1
        assert caplog.text.count("digits version 2 is not served: version 2 is broken") == 1
        assert node.repository.find().version == "1"
        opener.broken.clear()
        (model / "2" / "README").write_text("mended")
        await until(lambda: node.repository.find().version == "2")

    async def test_an_older_version_that_is_whole_is_served_while_a_newer_one_is_copied(
        self, make, model, opener, until
    ):
        node = await make(watch=0.05)
        half = model / "3"
        half.mkdir()
        add_version(model, 2)
        copying = True

        async def copy():
            size = 0
            while copying:
                size += 1
                (half / "model.keras").write_bytes(b"x" * size)
                await asyncio.sleep(0.005)

        task = asyncio.ensure_future(copy())
        await until(lambda: node.repository.find().version == "2")
        copying = False
        await task
        assert ("digits", "3") not in opener.asked

    async def test_trouble_of_any_kind_does_not_end_the_watching(self, make, model, opener, until):
        node = await make(watch=0.02)
        opener.refuse("2", MemoryError("no room"))
        add_version(model, 2)
        await until(lambda: ("digits", "2") in opener.asked)
        opener.refuse("3", NodeError("no"))
        add_version(model, 3)
        await until(lambda: ("digits", "3") in opener.asked)
        add_version(model, 4)
        await until(lambda: node.repository.find().version == "4")

    async def test_without_it_nothing_is_loaded_by_itself(self, make, model, opener):
        await make()
        add_version(model, 2)
        await asyncio.sleep(0.1)
        assert opener.asked == [("digits", "1")]
