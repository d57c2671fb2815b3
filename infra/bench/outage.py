"""Look-ups at a steady rate while a real cluster of three Consul servers loses its leader and gets it back."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from infra.consul.agent import ConsulAgent, ConsulUnavailable, cluster
from registry import Directory, Registration, RegistryError, connect

SERVICE = "digits"
INSTANCES = 2
RATE = 200.0


@dataclass
class Outcome:
    """What look-ups found. ``failed``: those that raised or gave fewer instances than there are.

    ``oldest``: of all lists given, the longest time in seconds for which its server had been out of touch with a
    leader. ``slowest``: the longest a look-up took, in seconds.
    """

    lookups: int = 0
    failed: int = 0
    oldest: float = 0.0
    slowest: float = 0.0
    first_failure: str = ""


async def look_up(
    directories: Sequence[Directory], *, seconds: float, rate: float = RATE, instances: int = INSTANCES
) -> Outcome:
    """Look ``SERVICE`` up ``rate`` times a second, on each directory in turn; a slow one holds nobody up."""
    outcome = Outcome()
    start = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(round(seconds * rate)):
            await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
            tasks.create_task(_one(directories[number % len(directories)], instances, outcome))
    return outcome


async def lose_the_leader(*, seconds: float, rate: float = RATE) -> Outcome:
    """Do ``measure`` with a cluster of its own."""
    members = await asyncio.to_thread(cluster, 3)
    try:
        return await measure(members, seconds=seconds, rate=rate)
    finally:
        for member in members:
            await asyncio.to_thread(member.remove)


async def measure(members: Sequence[ConsulAgent], *, seconds: float, rate: float = RATE) -> Outcome:
    """Look up while the leader is killed after a sixth of the time and started again at two thirds of it.

    The look-ups go to the two other servers. Raises ``ConsulUnavailable`` when the old leader does not come back.
    """
    leader = leader_of(members)
    directories = [connect(member.address) for member in members if member is not leader]
    try:
        await _register(directories)
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(look_up(directories, seconds=seconds, rate=rate))
            await asyncio.sleep(seconds / 6)
            leader.kill()
            await asyncio.sleep(seconds / 2)
            leader.start(wait=0)  # not in a thread, with which it would end: see ``infra.leash``
            await asyncio.to_thread(leader.wait_ready)
        return looking.result()
    finally:
        for directory in directories:
            await directory.close()


def leader_of(members: Sequence[ConsulAgent]) -> ConsulAgent:
    """The one that leads, by its own word. Raises ``ConsulUnavailable``."""
    for member in members:
        if member.leader().startswith(f"{member.host}:"):
            return member
    raise ConsulUnavailable("the cluster has no leader")


async def _register(directories: Sequence[Directory]) -> None:
    """Make the instances known, and wait until every server knows them: without a leader none could catch up."""
    for number in range(INSTANCES):
        here = directories[number % len(directories)]
        await here.register(Registration(service=SERVICE, id=f"d{number}", address="127.0.0.1", port=9001 + number))
    async with asyncio.timeout(30):
        for directory in directories:
            while len((await directory.lookup(SERVICE)).instances) < INSTANCES:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)


async def _one(directory: Directory, instances: int, outcome: Outcome) -> None:
    started = time.monotonic()
    try:
        found = await directory.lookup(SERVICE)
    except RegistryError as error:
        problem = str(error)
    else:
        problem = "" if len(found.instances) >= instances else f"{len(found.instances)} of {instances} instances"
        outcome.oldest = max(outcome.oldest, found.stale_for)
    outcome.lookups += 1
    outcome.failed += bool(problem)
    outcome.first_failure = outcome.first_failure or problem
    outcome.slowest = max(outcome.slowest, time.monotonic() - started)
