"""What was acknowledged is on the disk, whatever happens next."""

import asyncio
import contextlib
import json
import logging
import random
import resource
import shutil
import signal
import subprocess
import threading

import aiohttp
import pytest

from infra.fleet import twostep
from registry.embedded import EmbeddedRegistry, store
from registry.testing import ManualClock
from tests.support import missing

BEAT = {"Name": "digits", "ID": "d1", "Port": 9001, "Check": {"TTL": "60s", "Status": "passing"}}


@pytest.fixture
def writes(monkeypatch):
    """The states written so far; ``writes.gate`` holds writing up while it is not set."""

    class Writes(list):
        gate = threading.Event()

    written, write = Writes(), store.write
    written.gate.set()

    def slowly(path, state):
        written.append(state)
        written.gate.wait(30)
        write(path, state)

    monkeypatch.setattr(store, "write", slowly)
    yield written
    written.gate.set()


@contextlib.asynccontextmanager
async def serving(file, **options):
    async with (
        EmbeddedRegistry(file=file, **options) as registry,
        aiohttp.ClientSession(f"http://{registry.address}", connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield registry, session


async def put(session, path, body=None, method="PUT"):
    data = body if isinstance(body, bytes | None) else json.dumps(body)
    async with session.request(method, path, data=data) as reply:
        return reply.status, await reply.text()


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_write_is_answered_once_it_is_in_the_file(tmp_path):
    file = tmp_path / "registry.json"

    def names(kind):
        return {record.get("id") or record["key"] for record in json.loads(file.read_text())[kind]}

    async with serving(file) as (_, session):
        assert await put(session, "/v1/agent/service/register", BEAT) == (200, "")
        assert (names("services"), names("checks")) == ({"d1"}, {"service:d1"})
        assert (await put(session, "/v1/agent/service/maintenance/d1?enable=true"))[0] == 200
        assert "_service_maintenance:d1" in names("checks")
        assert (await put(session, "/v1/agent/check/register", {"Name": "c", "TTL": "1h"}))[0] == 200
        assert "c" in names("checks")
        assert (await put(session, "/v1/kv/key", b"value"))[0] == 200
        assert names("pairs") == {"key"}
        assert (await put(session, "/v1/kv/key", method="DELETE"))[0] == 200
        assert names("pairs") == set()
        assert (await put(session, "/v1/agent/check/warn/service:d1"))[0] == 200
        (check,) = (each for each in json.loads(file.read_text())["checks"] if each["id"] == "service:d1")
        assert check["status"] == "warning"
        assert (await put(session, "/v1/agent/service/deregister/d1"))[0] == 200
        assert names("services") == set()
        assert [path.name for path in tmp_path.iterdir()] == ["registry.json"]


async def test_many_writes_share_one_file_and_reads_wait_for_none(tmp_path, writes):
    async with serving(tmp_path / "registry.json") as (registry, session):
        before = len(writes)
        writes.gate.clear()
        first = asyncio.ensure_future(put(session, "/v1/kv/first", b"1"))
        await until(lambda: len(writes) == before + 1)
        rest = [asyncio.ensure_future(put(session, f"/v1/kv/k{number}", b"1")) for number in range(50)]
        await until(lambda: registry.snapshot()["keys"] == 51)
        async with asyncio.timeout(20), session.get("/v1/kv/k49?raw") as reply:
            assert await reply.text() == "1"
        assert not any(write.done() for write in (first, *rest))
        writes.gate.set()
        assert {status for status, _ in await asyncio.gather(first, *rest)} == {200}
        assert len(writes) == before + 2


async def test_a_beat_waits_for_the_file_that_is_being_written_and_for_no_other(tmp_path, writes):
    async with serving(tmp_path / "registry.json") as (registry, session):
        await put(session, "/v1/agent/service/register", BEAT)
        before = len(writes)
        writes.gate.clear()
        change = asyncio.ensure_future(put(session, "/v1/kv/a", b"1"))
        await until(lambda: len(writes) == before + 1)
        beat = asyncio.ensure_future(put(session, "/v1/agent/check/pass/service:d1?note=beat"))
        await until(lambda: registry._core.catalog.checks["service:d1"].output == "beat")
        assert not beat.done()
        writes.gate.set()
        async with asyncio.timeout(20):
            assert [(await change)[0], (await beat)[0]] == [200, 200]
        assert len(writes) == before + 1


async def test_an_index_that_a_reader_saw_is_not_given_out_again_after_a_crash(tmp_path, writes):
    file, left = tmp_path / "registry.json", tmp_path / "left.json"
    async with serving(file) as (registry, session):
        await put(session, "/v1/kv/a", b"1")
        writes.gate.clear()
        unkept = [asyncio.ensure_future(put(session, f"/v1/kv/{number}", b"2")) for number in range(20)]
        await until(lambda: registry.snapshot()["keys"] == 21)
        seen = registry.snapshot()["index"]
        shutil.copy(file, left)
        writes.gate.set()
        await asyncio.gather(*unkept)
    async with serving(left) as (registry, session):
        assert registry.snapshot()["keys"] == 1
        assert registry.snapshot()["index"] >= seen
        async with session.get(f"/v1/kv/?recurse&index={seen}&wait=1s") as reply:
            assert int(reply.headers["X-Consul-Index"]) >= seen


async def test_a_beat_that_changes_nothing_writes_nothing_and_silence_is_written_unasked(tmp_path, writes):
    clock = ManualClock()
    async with serving(tmp_path / "registry.json", clock=clock) as (_, session):
        await put(session, "/v1/agent/service/register", BEAT)
        await clock.advance(1)
        before = len(writes)
        for _ in range(3):
            assert (await put(session, "/v1/agent/check/pass/service:d1?note=fine"))[0] == 200
            await clock.advance(1)
        assert len(writes) == before
        await clock.advance(70)
        await until(lambda: len(writes) > before)
        assert writes[-1].checks[0].status == "critical"


async def test_while_it_cannot_be_kept_a_change_is_refused_and_the_registry_goes_on(tmp_path, caplog):
    file = tmp_path / "folder" / "registry.json"
    file.parent.mkdir()
    async with serving(file) as (_, session):
        assert (await put(session, "/v1/kv/a", b"1"))[0] == 200
        file.parent.rename(tmp_path / "elsewhere")
        with caplog.at_level(logging.WARNING):
            for number in range(3):
                status, text = await put(session, f"/v1/kv/b{number}", b"1")
                assert status == 500
                assert text == f"the change is made but not kept: {file} cannot be written: No such file or directory"
            # Deleting what is not there changes nothing, but what it says is not on the disk either.
            assert (await put(session, "/v1/kv/none", method="DELETE"))[0] == 500
        assert [record.message for record in caplog.records if "refused until" in record.message] == [
            f"changes are refused until they can be kept: {file} cannot be written: No such file or directory"
        ]
        async with session.get("/v1/kv/a?raw") as reply:
            assert await reply.text() == "1"
        (tmp_path / "elsewhere").rename(file.parent)
        assert (await put(session, "/v1/kv/c", b"1"))[0] == 200
        assert {pair["key"] for pair in json.loads(file.read_text())["pairs"]} == {"a", "b0", "b1", "b2", "c"}


async def test_the_file_is_for_its_owner_only(tmp_path):
    file = tmp_path / "registry.json"
    async with serving(file):
        assert file.stat().st_mode & 0o777 == 0o600


async def test_what_a_crash_left_half_written_is_no_obstacle(tmp_path):
    file = tmp_path / "registry.json"
    async with serving(file) as (_, session):
        await put(session, "/v1/kv/a", b"1")
    (tmp_path / ".registry.json.new").write_text('{"format":')
    async with serving(file) as (registry, _):
        assert registry.snapshot()["keys"] == 1
        assert [path.name for path in tmp_path.iterdir()] == ["registry.json"]


class Process:
    """``twostep registry --file FILE``, started and ready."""

    def __init__(self, file):
        command = twostep("registry", "--port", "0", "--file", str(file))
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        self.url = "http://" + self._process.stdout.readline().split("consul://")[1].strip()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


async def test_a_full_disk_is_said_and_forgotten_when_there_is_room_again(tmp_path):
    if not hasattr(resource, "prlimit"):
        missing("prlimit", "Linux has it")
    file = tmp_path / "registry.json"
    with Process(file) as process:
        async with aiohttp.ClientSession(process.url) as session:
            assert (await put(session, "/v1/kv/a", b"1"))[0] == 200
            unlimited = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, unlimited[1]))
            status, text = await put(session, "/v1/kv/b", b"x" * 50_000)
            assert (status, "cannot be written: File too large" in text) == (500, True)
            assert [pair["key"] for pair in json.loads(file.read_text())["pairs"]] == ["a"]
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
            assert (await put(session, "/v1/kv/c", b"1"))[0] == 200
            assert {pair["key"] for pair in json.loads(file.read_text())["pairs"]} == {"a", "b", "c"}


class Writer:
    """Registers, counts and deregisters for ever; knows what was acknowledged and what may have happened since."""

    def __init__(self, number):
        self.name = f"w{number}"
        self.count, self.counts = 0, {0}
        self.there, self.maybe_there = False, {False}
        self.index = 0

    async def run(self, session):
        while True:
            self.counts = {self.count, self.count + 1}
            await self._acknowledged(session, f"/v1/kv/{self.name}", str(self.count + 1).encode())
            self.count, self.counts = self.count + 1, {self.count + 1}
            self.maybe_there = {True, False}
            if self.there:
                await self._acknowledged(session, f"/v1/agent/service/deregister/{self.name}")
            else:
                await self._acknowledged(session, "/v1/agent/service/register", {"Name": self.name})
            self.there, self.maybe_there = not self.there, {not self.there}
            async with session.get(f"/v1/health/service/{self.name}") as reply:
                self.index = int(reply.headers["X-Consul-Index"])

    async def _acknowledged(self, session, path, body=None):
        status, text = await put(session, path, body)
        assert status == 200, text

    async def check(self, session):
        async with session.get(f"/v1/kv/{self.name}?raw") as reply:
            count = int(await reply.text()) if reply.status == 200 else 0
        assert count in self.counts
        async with session.get(f"/v1/health/service/{self.name}") as reply:
            there = bool(await reply.json())
            assert int(reply.headers["X-Consul-Index"]) >= self.index
        assert there in self.maybe_there
        self.count, self.counts, self.there, self.maybe_there = count, {count}, there, {there}


async def test_killed_under_a_stream_of_writes_it_has_all_that_was_acknowledged(tmp_path):
    rng, writers = random.Random(3), [Writer(number) for number in range(20)]
    for _ in range(5):
        with Process(tmp_path / "registry.json") as process:
            async with aiohttp.ClientSession(process.url) as session:
                for writer in writers:
                    await writer.check(session)
                begun = sum(writer.count for writer in writers)
                tasks = [asyncio.ensure_future(writer.run(session)) for writer in writers]
                await until(lambda begun=begun: sum(writer.count for writer in writers) > begun + 20)
                await asyncio.sleep(rng.random() * 0.2)
                process.kill()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, aiohttp.ClientError | OSError) for error in ended), ended
    with Process(tmp_path / "registry.json") as process:
        async with aiohttp.ClientSession(process.url) as session:
            for writer in writers:
                await writer.check(session)
