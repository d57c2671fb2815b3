"""One client process of ``bench tails``: sends what it is told to, through a smart client of a given policy.

``python -m infra.bench.arrivals`` prints ``{}`` once it can start. Each line on standard input is a ``Turn`` in JSON,
answered with an ``Outcome`` in JSON. A turn is a fresh client's, and begins at a moment of the machine's monotonic
clock, so that all processes begin together; its warm-up is not counted. Open loop: requests arrive when the seeded
Poisson process says so, however slow the answers are, and a request's time runs from its arrival to its answer, a late
start included. Closed loop: so many at a time, the next when one is answered.
"""

import asyncio
import random
import sys
import time

import msgspec

from infra.bench.engines import SERVICE, instances
from registry.testing import ScriptedDirectory
from smartclient import AsyncSmartClient
from smartclient.errors import ClientError

BODY = bytes(1000)


class Turn(msgspec.Struct, kw_only=True):
    """What to send to the engines at ``ports``: ``rate`` requests a second, or ``at_once`` at a time if that is not 0.

    From ``begin`` (monotonic seconds) for ``warm`` seconds that are not counted, then ``seconds`` that are.
    """

    ports: list[int]
    policy: str
    seed: int
    begin: float
    warm: float
    seconds: float
    rate: float = 0.0
    at_once: int = 0

    @property
    def counts_from(self) -> float:
        """When the warm-up is over."""
        return self.begin + self.warm

    @property
    def end(self) -> float:
        """When the last request may arrive."""
        return self.begin + self.warm + self.seconds


class Outcome(msgspec.Struct):
    """What came of the requests that count; ``milliseconds``: of each one answered in an open loop."""

    requests: int = 0
    failed: int = 0
    probes: int = 0
    milliseconds: list[float] = []
    first_failure: str = ""

    @property
    def answered(self) -> int:
        """Those that did not fail."""
        return self.requests - self.failed


class Sender:
    """Sends requests through ``client`` and notes what becomes of them."""

    def __init__(self, client: AsyncSmartClient, turn: Turn) -> None:
        self.outcome = Outcome()
        self._client = client
        self._turn = turn

    async def run(self) -> Outcome:
        """Take the whole turn."""
        turn, before = self._turn, 0
        await _until(turn.begin)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(turn.at_once):
                tasks.create_task(self._one_after_another())
            if not turn.at_once:
                tasks.create_task(self._as_they_arrive(tasks))
            await _until(turn.counts_from)
            before = self._probes()
        self.outcome.probes = self._probes() - before
        return self.outcome

    async def _as_they_arrive(self, tasks: asyncio.TaskGroup) -> None:
        rng = random.Random(f"arrivals {self._turn.seed}")
        at = self._turn.begin
        while (at := at + rng.expovariate(self._turn.rate)) < self._turn.end:
            await _until(at)
            tasks.create_task(self._send(at))

    async def _one_after_another(self) -> None:
        while (now := time.monotonic()) < self._turn.end:
            await self._send(now)

    async def _send(self, arrived: float) -> None:
        failure = ""
        try:
            await self._client.post("/work", data=BODY, idempotent=True)
        except ClientError as error:
            failure = str(error)
        if arrived < self._turn.counts_from:
            return
        outcome = self.outcome
        outcome.requests += 1
        if failure:
            outcome.failed += 1
            outcome.first_failure = outcome.first_failure or failure
        elif not self._turn.at_once:
            outcome.milliseconds.append(round((time.monotonic() - arrived) * 1000, 2))

    def _probes(self) -> int:
        return int(self._client.snapshot()["calls"].get("probes", 0))


async def main() -> None:
    """Take turns until standard input ends."""
    asking = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asking), sys.stdin)
    print("{}", flush=True)
    while line := await asking.readline():
        turn = msgspec.json.decode(line, type=Turn)
        directory = ScriptedDirectory(instances(turn.ports))
        rng = random.Random(f"client {turn.seed}")
        async with AsyncSmartClient(SERVICE, directory, policy=turn.policy, rng=rng) as client:
            await client.ready()
            outcome = await Sender(client, turn).run()
        print(msgspec.json.encode(outcome).decode(), flush=True)


async def _until(moment: float) -> None:
    if (seconds := moment - time.monotonic()) > 0:
        await asyncio.sleep(seconds)


if __name__ == "__main__":
    asyncio.run(main())
