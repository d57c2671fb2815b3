"""Six real nodes, some of which hang, die or refuse everything: what the calls of a client see of it.

The nodes are processes with an engine of a known speed (``infra.bench.engines``). How much slower calls become is
``twostep bench tails``' to say; here nothing may fail, nothing may hang, and nothing may be multiplied.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from infra.bench.engines import SERVICE, Engines, instances
from registry.testing import ScriptedDirectory
from smartclient import AsyncSmartClient
from smartclient.errors import CallFailed, ClientError, Throttled

pytestmark = pytest.mark.e2e
CALLS = 400


@pytest.fixture
def fleet() -> Iterator[Callable[..., Engines]]:
    with ExitStack() as stack:
        yield lambda *options, count=6: stack.enter_context(Engines([options] * count))


@asynccontextmanager
async def client_of(engines: Engines, **options: object) -> AsyncIterator[AsyncSmartClient]:
    directory = ScriptedDirectory(instances(engines.ports))
    async with AsyncSmartClient(SERVICE, directory, **{"rng": random.Random(1), **options}) as client:
        await client.ready()
        yield client


class Load:
    """Calls that begin at a steady rate, whatever becomes of those before."""

    def __init__(self, client: AsyncSmartClient, rate: float) -> None:
        self.failures: list[ClientError] = []
        self.took: list[tuple[float, float]] = []  # when each call began, in seconds of the load, and how long it took
        self._client = client
        self._rate = rate

    async def run(self, seconds: float, *, at: float = 0.0, happens: Callable[[], None] = lambda: None) -> "Load":
        """Begin calls for ``seconds``; ``at`` a moment of that, something ``happens``. Returns when all have ended."""
        began, happened = time.monotonic(), False
        async with asyncio.TaskGroup() as calls:
            for number in range(round(seconds * self._rate)):
                due = number / self._rate
                await asyncio.sleep(max(0.0, began + due - time.monotonic()))
                if not happened and due >= at:
                    happened = True
                    happens()
                calls.create_task(self._call(due))
        return self

    async def _call(self, due: float) -> None:
        began = time.monotonic()
        try:
            reply = await self._client.post("/work", data=bytes(100), idempotent=True)
            assert reply.status == 200
        except ClientError as error:
            self.failures.append(error)
        self.took.append((due, time.monotonic() - began))


@pytest.mark.parametrize("mean_ms", ["50", "1"])
async def test_a_node_that_hangs_fails_no_call_and_is_soon_avoided(fleet: Callable[..., Engines], mean_ms: str) -> None:
    engines = fleet("--mean-ms", mean_ms)
    async with client_of(engines) as client:
        load = await Load(client, 60).run(6.0, at=2.0, happens=lambda: engines.pause(0))
        engines.resume(0)
    assert load.failures == []
    assert len(load.took) == 360
    # Not one of the calls that began 2 s later or more waited for the hung node (they have 30 s).
    assert max(took for due, took in load.took if due >= 4.0) < 2.0
    # And those that were waiting there when it stopped were rescued, not left to their deadline.
    assert max(took for _, took in load.took) < 10.0


async def test_two_of_six_killed_under_two_hundred_requests_a_second_cost_no_call(
    fleet: Callable[..., Engines],
) -> None:
    engines = fleet("--mean-ms", "5")

    def kill_two() -> None:
        engines.kill(1)
        engines.kill(4)

    async with client_of(engines) as client:
        load = await Load(client, 200).run(4.0, at=1.0, happens=kill_two)
        calls = client.snapshot()["calls"]
    assert load.failures == []
    assert len(load.took) == 800
    assert calls["retries"] > 0


@pytest.mark.parametrize("retry_after", [(), ("--retry-after", "1")], ids=["broken", "overloaded"])
@pytest.mark.parametrize("throttle", [True, False])
async def test_a_fleet_that_refuses_everything_gets_a_fifth_more_at_most_and_the_errors_say_so(
    fleet: Callable[..., Engines], retry_after: tuple[str, ...], throttle: bool
) -> None:
    engines = fleet("--status", "503", *retry_after)
    errors: list[CallFailed] = []
    async with client_of(engines, throttle=throttle, timeout=2.0) as client:

        async def call() -> None:
            with pytest.raises(CallFailed) as caught:
                await client.classify(b"image")
            errors.append(caught.value)

        for _ in range(CALLS // 20):
            await asyncio.gather(*(call() for _ in range(20)))
    asked = sum(engines.requests(number) for number in range(6))
    assert asked <= 1.2 * CALLS + 20  # those in flight together at the start may all be retried
    sent = [error for error in errors if not isinstance(error, Throttled)]
    assert asked >= len(sent)
    assert all("503" in str(error) and error.attempts for error in sent)
    if throttle:
        assert len(sent) < CALLS
        assert all("refused most of the calls" in str(error) for error in errors if isinstance(error, Throttled))
    else:
        assert len(sent) == CALLS
