"""A local fleet under supervision: a registry and nodes as processes of their own, and nothing left behind.

``LocalFleet`` starts the same commands a person would type (``twostep registry``, ``node``, ``dashboard``), each with
its log in a temporary folder, each leashed to this process, and stops them in order: nodes first, so that they can say
goodbye to the registry. The demo, the benchmarks and the end-to-end tests stand on it.
"""

import asyncio
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.consul.agent import ConsulAgent, free_port
from infra.leash import leashed
from registry.connect import connect
from registry.errors import RegistryError
from registry.model import Snapshot

STOP_SECONDS = 15.0  # longer than a node's drain: grace, in-flight requests, deregistration


class FleetError(RuntimeError):
    """A process of the fleet ended or did not come up; the message holds the end of its log."""


class Supervised:
    """One child process: its name, its log, and how it ended."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            # A session of its own: Ctrl-C at the terminal reaches the supervisor only, which then stops it in order.
            self.popen = subprocess.Popen(
                leashed(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.popen.poll() is None

    def tail(self, lines: int = 3) -> str:
        """The last lines of its log, on one line."""
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])

    def send(self, number: signal.Signals) -> None:
        """Send a signal; to one that has ended, nothing."""
        if self.running:
            self.popen.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end and return the exit status; after ``seconds`` it is killed."""
        try:
            return self.popen.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()

    def snapshot(self) -> dict[str, object]:
        """Name, process id and exit status (None while running)."""
        return {"name": self.name, "pid": self.popen.pid, "exit": self.popen.poll()}


class LocalFleet:
    """A registry (embedded, a Consul agent of its own, or one that runs already) and nodes, on loopback.

    ``registry``: ``embedded``, ``consul`` (start a real agent, stop it at the end) or the address of a running one.
    ``port``: where a registry started here listens; None takes any free one.
    """

    def __init__(self, *, registry: str = "embedded", port: int | None = None) -> None:
        self.kind = registry
        self.folder = Path(tempfile.mkdtemp(prefix="twostep-fleet-"))
        self.nodes: dict[str, Supervised] = {}
        self.address = registry
        self._port = port
        self.dashboard_url = ""
        self._registry: Supervised | None = None
        self._agent: ConsulAgent | None = None
        self._dashboard: Supervised | None = None

    def start_registry(self) -> None:
        """Start the registry unless it runs already. Raises ``FleetError`` or ``ConsulUnavailable``."""
        if self.kind == "embedded":
            port = self._port or free_port()
            self._registry = self._spawn("registry", ["registry", "--port", str(port)])
            self.address = f"consul://127.0.0.1:{port}"
        elif self.kind == "consul":
            self._agent = ConsulAgent.dev(port=self._port).start()
            self.address = f"consul://{self._agent.address}"

    def start_node(self, name: str, model: Path, *options: str, port: int = 0) -> Supervised:
        """Start one node that registers as ``name``; returns at once, see ``wait_passing``."""
        command = ["node", "--model", str(model), "--id", name, "--port", str(port), "--registry", self.address]
        self.nodes[name] = self._spawn(name, [*command, *options])
        return self.nodes[name]

    async def wait_passing(self, service: str, count: int, *, seconds: float = 120.0) -> Snapshot:
        """Wait until the registry lists ``count`` passing instances (0: until it answers).

        Raises ``FleetError`` with the reason, and ``RegistryError`` at once when a registry that was not started
        here does not answer: its absence is the user's to mend.
        """
        directory = connect(self.address)
        give_up = time.monotonic() + seconds
        last = "no answer yet"
        try:
            while time.monotonic() < give_up:
                self.check()
                try:
                    seen = await directory.lookup(service)
                except RegistryError as error:
                    if self._registry is None and self._agent is None:
                        raise
                    last = str(error)
                else:
                    if len(seen.instances) >= count:
                        return seen
                    last = f"{len(seen.instances)} of {count} passing"
                await asyncio.sleep(0.1)
        finally:
            await directory.close()
        logs = "; ".join(f"{node.name}: {node.tail(1)}" for node in self.nodes.values())
        raise FleetError(f"{service} was not ready within {seconds:.0f} s ({last}). {logs}")

    def start_dashboard(self, port: int, *options: str) -> None:
        """Start the dashboard over the registry; clients may report to ``dashboard_url`` from now on."""
        command = ("dashboard", "--registry", self.address, "--port", str(port), *options)
        self._dashboard = self._spawn("dashboard", command)
        self.dashboard_url = f"http://127.0.0.1:{port}"

    def secret(self, name: str) -> Path:
        """A file with a token made for this fleet, the same at every call; gone when the fleet is."""
        path = self.folder / f"{name}.token"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(24) + "\n")
        return path

    async def wait_dashboard(self, *, seconds: float = 30.0) -> None:
        """Wait until the dashboard answers. Raises ``FleetError``."""
        give_up = time.monotonic() + seconds
        while self._dashboard is not None and "ready at" not in self._dashboard.log.read_text(errors="replace"):
            self.check()
            if time.monotonic() > give_up:
                raise FleetError(f"the dashboard was not ready within {seconds:.0f} s. {self._dashboard.tail()}")
            await asyncio.sleep(0.05)

    def check(self) -> None:
        """Raise ``FleetError`` if a process that should run has ended."""
        for each in (self._registry, self._dashboard, *self.nodes.values()):
            if each is not None and not each.running:
                raise FleetError(f"{each.name} ended with status {each.popen.returncode}: {each.tail()}")

    def kill_node(self, name: str) -> None:
        """End a node with SIGKILL, as a crash or a pulled plug would, and stop expecting it to run."""
        victim = self.nodes.pop(name)
        victim.popen.kill()
        victim.popen.wait()

    def kill_registry(self) -> None:
        """End the registry with SIGKILL. Raises ``FleetError`` when it was not started here."""
        if self._registry is not None:
            self._registry.popen.kill()
            self._registry.popen.wait()
            self._registry = None
        elif self._agent is not None:
            self._agent.kill()
        else:
            raise FleetError(f"{self.address} was not started here, so it is not killed here")

    def stop(self) -> None:
        """Stop the nodes together, then the registry; remove the logs. Stopping twice is fine."""
        for node in self.nodes.values():
            node.send(signal.SIGTERM)
        for node in self.nodes.values():
            node.wait()
        for each in (self._dashboard, self._registry):
            if each is not None:
                each.send(signal.SIGTERM)
                each.wait()
        if self._agent is not None:
            self._agent.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def snapshot(self) -> dict[str, object]:
        """Registry address and the processes."""
        own = [each.snapshot() for each in (self._registry, self._dashboard) if each is not None]
        return {"registry": self.address, "processes": own + [node.snapshot() for node in self.nodes.values()]}

    def _spawn(self, name: str, arguments: Sequence[str]) -> Supervised:
        return Supervised(name, twostep(*arguments), self.folder / f"{name}.log")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def twostep(*arguments: str) -> list[str]:
    """The command line of ``twostep ARGUMENTS`` in this Python, whatever PATH and the working folder hold."""
    return [sys.executable, "-P", "-m", "infra.cli", *arguments]
