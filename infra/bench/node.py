"""One node beside what its machine can do without HTTP, beside a first server, beside LitServe and mosec.

The same MobileNetV2 with random weights, the same JPEGs, the same 32 clients. Every arm is started once; they take
turns within one run, the order reversed from round to round, because machines drift. The load generator is a process of
its own on the same cores: its work weighs on every server, and not on the bare pipelines.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from infra.bench.child import Child
from infra.bench.closed import Outcome, Turn
from infra.bench.pressure import images
from infra.bench.processes import busy
from infra.bench.servers import Server, start
from infra.bench.standing import BARE, Arm, summary
from infra.fleet import FleetError

CLIENTS = 32
# An arm stands beside what it is held against, so that the machine is the same for both.
ARMS = (
    "bare_tensorflow",
    "node_tensorflow",
    "bare_fastest",
    "node_auto",
    "node_int8",
    "litserve",
    "mosec",
    "naive",
)
# An idle server that takes more than this, in percent of a core, is stopped until its turn.
IDLE_PERCENT = 1.0
# What a lone request is asked with before it counts, seconds.
LONE_WARM = 0.3


@dataclass(frozen=True)
class Effort:
    """How much to do: rounds of all arms, seconds of a turn that count and that do not, and of a lone client's turn.

    ``idle``: seconds for which all servers are left alone.
    """

    rounds: int = 7
    seconds: float = 2.5
    warm: float = 0.7
    lone: float = 0.7
    idle: float = 5.0
    arms: Sequence[str] = ARMS


async def run(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything and return it; see ``docs/benchmarks.md`` for the keys. Raises ``FleetError``."""
    with tempfile.TemporaryDirectory(prefix="twostep-bench-") as name:
        folder = Path(name)
        for module in ("material", "weights"):
            say(f"making the {module}")
            _make(module, folder)
        async with AsyncExitStack() as stack:
            bench = Bench(folder, effort, say)
            await bench.start(stack)
            for number in range(effort.rounds):
                say(f"round {number + 1} of {effort.rounds}")
                await bench.round(effort.arms if number % 2 else effort.arms[::-1])
            return summary(
                bench.finished(),
                image_kb=round(sum(map(len, bench.bodies)) / len(bench.bodies) / 1000),
                clients=CLIENTS,
                seconds=effort.seconds,
            )


class Bench:
    """Every arm's process and what has been measured of it."""

    def __init__(self, folder: Path, effort: Effort, say: Callable[[str], None]) -> None:
        self.bodies = [path.read_bytes() for path in images(folder)]
        self._folder = folder
        self._effort = effort
        self._say = say
        self._servers: dict[str, Server] = {}
        self._pipelines: dict[str, Child] = {}
        self._arms = {name: Arm(name) for name in effort.arms}

    async def start(self, stack: AsyncExitStack) -> None:
        """Start everything: servers first, so that the node's choice of a runtime is there for the bare pipeline."""
        logs = self._folder / "logs"
        logs.mkdir()
        self._pressure = await stack.enter_async_context(Child.start("infra.bench.pressure", str(self._folder)))
        await self._pressure.line()
        for name in self._effort.arms:
            if not name.startswith("bare_"):
                self._say(f"starting {name}")
                self._start_server(name, logs, stack)
        self._leave_alone()
        for name in self._effort.arms:
            if name.startswith("bare_"):
                self._say(f"starting {name}")
                child = await stack.enter_async_context(Child.start("infra.bench.bare", name, str(self._folder)))
                self._arms[name].about = await child.line()
                self._pipelines[name] = child

    async def round(self, order: Sequence[str]) -> None:
        """Give every arm its turn, and the nodes another with a lone client, beside their bare pipeline's."""
        effort = self._effort
        for name in order:
            turn = Turn(clients=CLIENTS, warm=effort.warm, seconds=effort.seconds)
            self._arms[name].outcomes.append(await self._take(name, turn))
        alone = Turn(clients=1, warm=LONE_WARM, seconds=effort.lone)
        for node, bare in BARE.items():
            if node in self._arms and bare in self._arms:
                for name in (node, bare) if order is effort.arms else (bare, node):
                    self._arms[name].lone.append(await self._take(name, alone))

    def finished(self) -> list[Arm]:
        """The arms, with what their servers hold now."""
        for name, server in self._servers.items():
            self._arms[name].resident = server.usage().resident
        return list(self._arms.values())

    def _start_server(self, name: str, logs: Path, stack: AsyncExitStack) -> None:
        arm = self._arms[name]
        server = start(name, self._folder, logs)
        stack.callback(server.stop)
        arm.ready = server.ready(self.bodies[0])
        arm.about = server.about()
        if name == "node_auto":
            server.stop()
            server = start(name, self._folder, logs)
            stack.callback(server.stop)
            arm.ready_again = server.ready(self.bodies[0])
        self._servers[name] = server

    def _leave_alone(self) -> None:
        """Look at what the servers take while nobody asks; stop those that take much."""
        if not self._servers:
            return
        self._say("leaving the servers alone")
        time.sleep(self._effort.idle / 5)  # what follows a start has ended
        began = time.monotonic()
        before = {name: server.usage().cpu for name, server in self._servers.items()}
        time.sleep(self._effort.idle)
        for name, server in self._servers.items():
            used = server.usage().cpu - before[name]
            percent = 100 * used / (time.monotonic() - began)
            self._arms[name].idle_percent = percent
            if percent > IDLE_PERCENT:
                server.hold()

    async def _take(self, name: str, turn: Turn) -> Outcome:
        """Let an arm take a turn, and note what it cost and what others took meanwhile."""
        arm = self._arms[name]
        began, before = time.monotonic(), busy()
        if name in self._pipelines:
            outcome = await _asked(self._pipelines[name], turn)
            used = outcome.cpu
        else:
            server = self._servers[name]
            with server.awake():
                used = -server.usage().cpu
                outcome = await _asked(self._pressure, msgspec.structs.replace(turn, **server.address))
                used += server.usage().cpu
            arm.client_cpu += outcome.cpu
            arm.others -= outcome.cpu
        arm.cpu += used
        arm.others += busy() - before - used
        arm.wall += time.monotonic() - began
        if not outcome.milliseconds:
            raise FleetError(f"{name} answered nothing in {turn.seconds:g} s: {outcome.first_failure or 'too slow'}")
        return outcome


async def _asked(child: Child, turn: Turn) -> Outcome:
    child.ask(msgspec.json.encode(turn).decode())
    return msgspec.convert(await child.line(), Outcome)


def _make(module: str, folder: Path) -> None:
    command = [sys.executable, "-P", "-m", f"infra.bench.{module}", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FleetError(f"the benchmark's {module} cannot be made: {done.stderr.strip().splitlines()[-1]}")
