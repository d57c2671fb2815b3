"""A cluster of three real Consul servers that loses its leader: look-ups and watches go on."""

import asyncio

import pytest
import pytest_asyncio

from infra.consul.agent import cluster
from registry import Registration, TtlCheck, connect

pytestmark = pytest.mark.consul


@pytest.fixture
def servers(consul_binary):
    members = cluster(3)
    yield members
    for member in members:
        member.remove()


@pytest.fixture
def leader(servers):
    return next(server for server in servers if server.leader().split(":")[0] == server.host)


@pytest.fixture
def followers(servers, leader):
    return [server for server in servers if server is not leader]


@pytest_asyncio.fixture
async def directories(followers):
    """One directory on each follower."""
    opened = [connect(server.address) for server in followers]
    yield opened
    for directory in opened:
        await directory.close()


async def test_look_ups_and_watches_go_on_while_the_leader_is_dead(leader, followers, directories):
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
        # The other follower may hear of it later, and could not any more once the leader is dead.
        while len((await directories[1].lookup("digits")).instances) < 2:
            await asyncio.sleep(0.01)
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
