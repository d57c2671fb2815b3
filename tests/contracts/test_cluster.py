"""A cluster of three real Consul servers that loses its leader, all its servers, and all it knew.

The servers are shared: each test begins with all three running. The outage of all three lasts ``OUTAGE`` seconds, by
when a watch pauses for as long as it ever does.
"""

import asyncio
import itertools
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from infra.bench.outage import leader_of, measure
from infra.consul.agent import cluster
from registry import Registrar, Registration, TtlCheck, connect
from registry.timing import Backoff
from registry.watch import BURST, HOLD_AFTER_RESET

pytestmark = pytest.mark.consul

OUTAGE = 30.0
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def members(consul_binary):
    members = cluster(3)
    yield members
    for member in members:
        member.remove()


def start(members):
    for member in members:
        if member.process is None:
            member.start(wait=0)


def wait_ready(members):
    for member in members:
        member.wait_ready()


@pytest.fixture
def servers(members):
    """All three, running and led."""
    start(members)
    wait_ready(members)
    return members


@pytest.fixture
def leader(servers):
    return leader_of(servers)


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


@pytest.fixture
def service():
    return f"cluster-{next(_numbers)}"


def me(service, number, ttl=300):
    return Registration(
        service=service, id=f"{service}-{number}", address="127.0.0.1", port=9000 + number, check=TtlCheck(ttl=ttl)
    )


@asynccontextmanager
async def keep_registered(directories, service):
    """One instance at each follower, whatever happens to it."""
    first, second = (Registrar(each, me(service, number), beat=0.5) for number, each in enumerate(directories, 1))
    async with first, second:
        yield


async def restarted(servers):
    start(servers)
    await asyncio.to_thread(wait_ready, servers)


class Following:
    """A watch of every health with its lists as they come, and the times of its calls."""

    def __init__(self, directory, service):
        self.sizes = []
        self.calls = []
        self.watch = directory.watch(service, passing_only=False)
        self._read = self.watch._read
        self.watch._read = self._counted
        self._task = asyncio.create_task(self._follow())

    async def _counted(self, *, index, stale):
        self.calls.append(asyncio.get_running_loop().time())
        return await self._read(index=index, stale=stale)

    async def _follow(self):
        async for snapshot in self.watch:
            self.sizes.append(len(snapshot.instances))

    async def until(self, size, seconds):
        async with asyncio.timeout(seconds):
            while self.sizes[-1:] != [size]:
                await asyncio.sleep(0.02)

    def most_calls_in_a_second(self):
        return max(sum(first <= call < first + 1 for call in self.calls) for first in self.calls)

    async def close(self):
        await self.watch.aclose()
        await self._task


async def test_look_ups_and_watches_go_on_while_the_leader_is_dead(leader, followers, directories, service):
    for number, directory in enumerate(directories, 1):
        await directory.register(me(service, number))
    watch = directories[0].watch(service)
    async with asyncio.timeout(20):
        while len((await anext(watch)).instances) < 2:
            pass
        # The other follower may hear of it later, and could not any more once the leader is dead.
        while len((await directories[1].lookup(service)).instances) < 2:
            await asyncio.sleep(0.01)
    waiting = asyncio.ensure_future(anext(watch))

    leader.kill()
    sizes, since = [], asyncio.get_running_loop().time()
    while not (new := await asyncio.to_thread(followers[0].leader)) or new.startswith(f"{leader.host}:"):
        found = [await directory.lookup(service) for directory in directories]  # a failure would raise
        sizes += [len(snapshot.instances) for snapshot in found]
        assert asyncio.get_running_loop().time() - since < 60, "the cluster chose no new leader"
    assert sizes, "the election was over before it was looked at"
    assert set(sizes) == {2}
    assert not waiting.done()

    await directories[1].register(me(service, 3))
    async with asyncio.timeout(60):
        while len((await waiting).instances) < 3:
            waiting = asyncio.ensure_future(anext(watch))


async def test_no_look_up_fails_while_the_leader_is_killed_and_brought_back(servers):
    outcome = await measure(servers, seconds=30, rate=200)
    assert outcome.failed == 0, outcome.first_failure
    assert outcome.lookups == 6000
    assert outcome.oldest < 30


async def test_a_list_outlives_all_three_servers_and_catches_up_within_one_back_off(servers, directories, service):
    async with keep_registered(directories, service):
        following = Following(directories[0], service)
        await following.until(2, 20)
        told = len(following.sizes)
        for server in servers:
            server.kill()
        await asyncio.sleep(OUTAGE)
        assert not following.watch.status().live
        await restarted(servers)
        await directories[1].register(me(service, 3))
        await following.until(3, Backoff().cap + HOLD_AFTER_RESET)
        assert min(following.sizes[told:]) >= 2
        assert following.most_calls_in_a_second() <= 4
        await following.close()
        await directories[1].deregister(f"{service}-3")


async def test_a_cluster_that_lost_all_it_knew_is_caught_up_with_and_nobody_spins(servers, directories, service):
    async with keep_registered(directories, service):
        following = Following(directories[0], service)
        await following.until(2, 20)
        told = len(following.sizes)
        # The index is to go back, and the watch to be between two questions just then.
        for _ in range(5):
            await directories[1].register(me(service, 9))
            await directories[1].deregister(f"{service}-9")
        before = (await directories[0].lookup(service)).index
        for server in servers:
            server.kill()
            server.wipe()
        await restarted(servers)
        await directories[1].register(me(service, 3))
        await following.until(3, Backoff().cap + HOLD_AFTER_RESET)
        assert following.watch._index < before
        assert 0 not in following.sizes[told:]
        assert following.most_calls_in_a_second() <= BURST + 2
        await following.close()
        await directories[1].deregister(f"{service}-3")
