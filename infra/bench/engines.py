"""Some engines (``infra.bench.engine``) as child processes: a fleet whose speed is known, to measure and to torment.

Each has its log in a temporary folder and is leashed to this process. They hold nothing worth a goodbye, so they end by
SIGKILL, which also reaches one that is stopped.
"""

import json
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from infra.fleet import FleetError, Supervised
from node.load import PATH
from registry.model import Instance

SERVICE = "engine"
START_SECONDS = 60.0  # a Python that imports aiohttp, on a machine with other work


class Engines:
    """One engine for each list of options (``["--mean-ms", "50"]``), seeded by its number, running within ``with``.

    ``ports``: where they listen, in order. Raises ``FleetError`` when one does not start.
    """

    def __init__(self, options: Sequence[Sequence[str]]) -> None:
        self.ports: list[int] = []
        self._options = options
        self._processes: list[Supervised] = []
        self._cleanup = ExitStack()

    @property
    def address(self) -> str:
        """All of them as a registry's address; a client does not learn from it that they say how busy they are."""
        return "static://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def pause(self, number: int) -> None:
        """Stop one where it stands: it accepts connections and answers nothing."""
        self._processes[number].send(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """Let it go on."""
        self._processes[number].send(signal.SIGCONT)

    def kill(self, number: int) -> None:
        """End one at once, as a crash would: connections to it are refused."""
        self._processes[number].popen.kill()
        self._processes[number].popen.wait()

    def requests(self, number: int) -> int:
        """How often one has been asked for work."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[number]}/count", timeout=10) as reply:
            return int(json.load(reply)["requests"])

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            folder = Path(starting.enter_context(tempfile.TemporaryDirectory(prefix="twostep-engines-")))
            for number, options in enumerate(self._options):
                command = [sys.executable, "-P", "-m", "infra.bench.engine", "--seed", str(number), *options]
                self._processes.append(Supervised(f"engine {number}", command, folder / f"{number}.log"))
                starting.callback(self.kill, number)
            self.ports = [_port(process) for process in self._processes]
            self._cleanup = starting.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._cleanup.close()


def instances(ports: Sequence[int]) -> list[Instance]:
    """Engines as a registry would list them, with the path where they say how busy they are."""
    return [
        Instance(id=f"{SERVICE}-{number}", service=SERVICE, address="127.0.0.1", port=port, meta={"load": PATH})
        for number, port in enumerate(ports)
    ]


def _port(process: Supervised) -> int:
    """The port it prints once it listens."""
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        if not process.running:
            raise FleetError(f"{process.name} ended with status {process.popen.returncode}: {process.tail()}")
        said, newline, _ = process.log.read_text(errors="replace").partition("\n")
        if newline and said.isdigit():
            return int(said)
        time.sleep(0.01)
    raise FleetError(f"{process.name} did not listen within {START_SECONDS:.0f} s: {process.tail()}")
