"""What each Twostep node says of its own load, asked every five seconds.

The questions of one round are spread evenly over the period, in small portions, so that neither the dashboard nor its
link sees a burst. Nodes that gave no answer last time share a quarter of the places: a rack that has gone silent, each
question waiting its two seconds, does not make the figures of the others old. What a node said last stays, beside the
reason why it says nothing now. Its numbers are hostile until proven finite and not negative.
"""

import asyncio
import math
import ssl
from collections.abc import Callable

import aiohttp
import msgspec

from registry.dashboard.asking import Answer, Asker, NoAnswer
from registry.dashboard.guard import steerable
from registry.dashboard.model import Fleet, Member, NodeLoad
from registry.model import Instance
from registry.timing import Clock
from registry.waiting import cancel
from registry.wording import printable

Key = tuple[str, str]

# Seconds: from one question to the next, and for its answer.
PERIOD = 5.0
TIMEOUT = 2.0
# Portions of a round.
PORTIONS = 50
# How many are asked at a time, the silent ones among them.
AT_ONCE = 32
_SILENT = 8
_MOST_BYTES = 16 * 1024
_NUMBERS = ("wait_ms", "inflight", "queue", "capacity_rps", "utilization", "rps")


class Loads:
    """``on_change`` hears of (service, instance) whose figures or error are new, ten times a second at most.

    ``session`` and ``tls`` (for https nodes) are the connections to use; None: its own, the default trust.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        on_change: Callable[[set[Key]], None],
        session: aiohttp.ClientSession | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self._asker = Asker(clock=clock, seconds=TIMEOUT, most=_MOST_BYTES, session=session, tls=tls, keep=True)
        self._version: int | None = None
        self._services: dict[str, tuple[tuple[Member, ...], dict[Key, Instance]]] = {}
        self._targets: dict[Key, Instance] = {}
        self._order: tuple[Key, ...] = ()
        self._loads: dict[Key, NodeLoad] = {}
        self._changed: set[Key] = set()
        self._asked: dict[Key, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(AT_ONCE - _SILENT)
        self._silent_places = asyncio.Semaphore(_SILENT)
        self._closed = False

    def update(self, fleet: Fleet) -> None:
        """Say which members there are; the figures of those that have gone go too."""
        if fleet.version == self._version:
            return
        self._version = fleet.version
        before, self._services = self._services, {}
        for name, service in fleet.services.items():
            known = before.get(name)
            if known is None or known[0] is not service.members:
                known = (
                    service.members,
                    {(name, each.id): each.instance for each in service.members if steerable(each)},
                )
            self._services[name] = known
        self._targets = {key: each for _, targets in self._services.values() for key, each in targets.items()}
        self._order = tuple(self._targets)
        for key in self._loads.keys() - self._targets.keys():
            del self._loads[key]
            self._changed.add(key)

    def get(self, service: str, instance: str) -> NodeLoad | None:
        """What it said last, None when it has never been asked or is no Twostep node."""
        return self._loads.get((service, instance))

    async def run(self) -> None:
        """Ask, round after round, until ``close``."""
        portion = 0
        while not self._closed:
            count = len(self._order)
            for key in self._order[portion * count // PORTIONS : (portion + 1) * count // PORTIONS]:
                if key not in self._asked:  # else the last question is still open
                    task = asyncio.ensure_future(self._look(key, self._targets[key]))
                    self._asked[key] = task
            portion = (portion + 1) % PORTIONS
            await self._clock.sleep(PERIOD / PORTIONS)
            changed, self._changed = self._changed, set()
            if changed:
                self._on_change(changed)

    async def close(self) -> None:
        """Stop asking; whoever awaits ``run`` sees it end at its next turn."""
        self._closed = True
        for task in tuple(self._asked.values()):
            await cancel(task)
        await self._asker.close()

    async def _look(self, key: Key, instance: Instance) -> None:
        before = self._loads.get(key)
        try:
            async with self._silent_places if before is not None and before.error else self._places:
                try:
                    path = instance.meta["load"] or "/load"
                    found = heard(await self._asker.ask(instance, "GET", path), path, before, self._clock.time())
                except NoAnswer as error:
                    found = _silent(before, self._clock.time(), str(error))
        finally:
            del self._asked[key]
        if key not in self._targets:  # it has gone meanwhile
            return
        self._loads[key] = found
        if before is None or msgspec.structs.replace(before, at=found.at) != found:
            self._changed.add(key)


def heard(answer: Answer, path: str, before: NodeLoad | None, now: float) -> NodeLoad:
    """Return what an answer says; ``before``: what was known, ``now``: seconds since the epoch."""
    said = _read(answer.body)
    if answer.status == 503:
        error, reason = ("" if said is None else str(said.get(name) or "") for name in ("error", "reason"))
        why = "draining" if reason == "draining" else printable(error, 120)
        return _silent(before, now, f"it takes no work: {why}" if why else "it takes no work (503)")
    if answer.status != 200:
        return _silent(before, now, f"it answers {answer.status} at {printable(path, 40)}")
    if said is None:
        return _silent(before, now, f"what it answers at {printable(path, 40)} cannot be understood")
    return msgspec.convert({"at": now} | {name: number(said.get(name)) for name in _NUMBERS}, NodeLoad)


def number(value: object) -> float | None:
    """Return a figure as such, None when it is none, not finite, or below zero."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        figure = float(value)
    except OverflowError:
        return None
    return figure if math.isfinite(figure) and figure >= 0 else None


def _silent(before: NodeLoad | None, now: float, error: str) -> NodeLoad:
    return NodeLoad(at=now, error=error) if before is None else msgspec.structs.replace(before, error=error)


def _read(body: bytes) -> dict[str, object] | None:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
