"""A cluster of three real Consul servers that loses its leader: look-ups and watches go on."""

import asyncio
import shutil

import pytest

from infra.consul.agent import cluster
from registry import Registration, TtlCheck, connect

pytestmark = pytest.mark.consul


@pytest.fixture
def servers(consul_binary):
    members = cluster(3)
    yield members
    for member in members:
        member.stop()
        shutil.rmtree(member.directory, ignore_errors=True)


async def test_look_ups_and_watches_go_on_while_the_leader_is_dead(servers):
    leader = next(server for server in servers if server.leader().split(":")[0] == server.host)
    followers = [server for server in servers if server is not leader]
    directories = [connect(server.address) for server in followers]
    for number, directory in enumerate(directories, 1):
        await directory.register(
            Registration(
                service="digits", id=f"d{number}", address="127.0.0.1", port=9000 + number, check=TtlCheck(ttl=300)
            )
        )
    watch = directories[0].watch("digits")
    async with asyncio.timeout(20):
        while len((await anext(watch)).instances) < 2:
            pass
    waiting = asyncio.ensure_future(anext(watch))

    leader.kill()
    sizes, since = [], asyncio.get_running_loop().time()
    while not (new := await asyncio.to_thread(followers[0].leader)) or new.startswith(f"{leader.host}:"):
        found = [await directory.lookup("digits") for directory in directories]  # a failure would raise
        sizes += [len(snapshot.instances) for snapshot in found]
        assert asyncio.get_running_loop().time() - since < 60, "the cluster chose no new leader"
    assert sizes, "the election was over before it was looked at"
    assert set(sizes) == {2}
    assert not waiting.done()

    await directories[1].register(
        Registration(service="digits", id="d3", address="127.0.0.1", port=9003, check=TtlCheck(ttl=300))
    )
    async with asyncio.timeout(60):
        while len((await waiting).instances) < 3:
            waiting = asyncio.ensure_future(anext(watch))
    for directory in directories:
        await directory.close()
