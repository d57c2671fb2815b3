"""Arms that take turns: each a policy over some engines, asked by the same client processes with the same arrivals.

An arm never runs beside another, and who goes first changes from round to round, because shared machines drift.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

import msgspec

from infra.bench.arrivals import Outcome, Turn
from infra.bench.child import Child

# Seconds between the word and the beginning, so that every process has heard it.
NOTICE = 0.3


class Arm(msgspec.Struct, frozen=True):
    """What is compared: ``policy`` over the engines at ``ports``."""

    name: str
    policy: str
    ports: Sequence[int]


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How each client process sends, see ``Turn``."""

    warm: float
    seconds: float
    rate: float = 0.0
    at_once: int = 0


# Of each arm one outcome for every round and client.
Results = dict[str, list[Outcome]]


class Clients:
    """Client processes (``infra.bench.arrivals``) that are told what to send."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children

    @classmethod
    @asynccontextmanager
    async def start(cls, count: int) -> AsyncIterator[Self]:
        """Start so many; they are ended at the end."""
        async with AsyncExitStack() as stack:
            children = [await stack.enter_async_context(Child.start("infra.bench.arrivals")) for _ in range(count)]
            for child in children:
                await child.line()
            yield cls(children)

    async def rounds(self, arms: Sequence[Arm], count: int, pace: Pace, say: Callable[[str], None]) -> Results:
        """Let every arm have ``count`` turns."""
        results: Results = {arm.name: [] for arm in arms}
        for number in range(count):
            say(f"round {number + 1} of {count}")
            for arm in arms if number % 2 else arms[::-1]:
                results[arm.name] += await self._turn(arm, number, pace)
        return results

    async def _turn(self, arm: Arm, number: int, pace: Pace) -> list[Outcome]:
        begin = time.monotonic() + NOTICE
        for place, child in enumerate(self._children):
            turn = Turn(
                ports=list(arm.ports),
                policy=arm.policy,
                seed=number * len(self._children) + place,
                begin=begin,
                warm=pace.warm,
                seconds=pace.seconds,
                rate=pace.rate,
                at_once=pace.at_once,
            )
            child.ask(msgspec.json.encode(turn).decode())
        return [msgspec.convert(await child.line(), Outcome) for child in self._children]
