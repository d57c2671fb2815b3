"""A real node of this project's own command, with models that are ready at once, and how it bears what comes.

``pictures`` takes 32 x 32 pixels and names their mean level (0 to 9); ``numbers`` adds four numbers and joins texts.
Memory is what the kernel says the process has resident, sampled while things happen.
"""

import os
import re
import signal
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.fleet import Supervised, twostep
from tests.support import missing

MEBI = 1024 * 1024
PICTURES = """
    import numpy as np

    inputs = [("pixels", "UINT8", (32, 32, 3))]
    outputs = [("scores", "FP32", (10,))]

    def load(folder):
        def run(batch):
            levels = batch["pixels"].reshape(len(batch["pixels"]), -1).mean(axis=1).astype(int) // 26
            scores = np.zeros((len(levels), 10), np.float32)
            scores[np.arange(len(levels)), levels] = 1
            return scores

        return run
"""
NUMBERS = """
    import numpy as np

    inputs = [("x", "FP32", (4,)), ("n", "INT64", (None,)), ("text", "BYTES", (None,))]
    outputs = [("sum", "FP32", (1,)), ("joined", "BYTES", (1,))]

    def load(folder):
        def run(batch):
            joined = np.array([[b"".join(row)] for row in batch["text"]], object)
            return {"sum": batch["x"].sum(axis=1, keepdims=True), "joined": joined}

        return run
"""


class Victim:
    """The running node: ``port``, and ``idle`` bytes of memory before anything was sent."""

    def __init__(self, process: Supervised, port: int) -> None:
        self.process = process
        self.port = port
        self.idle = self.resident()
        self.peak = self.idle

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def resident(self, line: str = "VmRSS") -> int:
        """Bytes resident now, or at most ever (``VmHWM``)."""
        status = Path(f"/proc/{self.process.popen.pid}/status").read_text()
        return int(re.search(rf"{line}:\s+(\d+) kB", status)[1]) * 1024

    def busy(self) -> float:
        """Seconds of processor time it has used."""
        user, system = Path(f"/proc/{self.process.popen.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """Let the kernel count the peak from now on."""
        Path(f"/proc/{self.process.popen.pid}/clear_refs").write_text("5")

    @property
    def growth(self) -> int:
        """Mebibytes above idle, at the worst moment since the peak was forgotten."""
        return (self.resident("VmHWM") - self.idle) // MEBI

    @property
    def log(self) -> str:
        """All it has said."""
        return self.process.log.read_text(errors="replace")


@contextmanager
def victim(folder: Path, *options: str, **models: str) -> Iterator[Victim]:
    """Run a node with these models (name: its model.py) and options; it is told to end in the end, and has to."""
    if not Path("/proc/self/status").exists():
        missing("/proc", "memory is measured on Linux")
    command = ["node", "--port", "0", "--no-register", "--drain-grace", "0", *options]
    for name, script in models.items():
        (folder / name).mkdir()
        (folder / name / "model.py").write_text(textwrap.dedent(script))
        command += ["--model", str(folder / name)]
    process = Supervised("node", twostep(*command), folder / "log")
    try:
        give_up = time.monotonic() + 60
        while (ready := re.search(r"ready at http://127\.0\.0\.1:(\d+)", process.log.read_text())) is None:
            assert process.running, process.tail(20)
            assert time.monotonic() < give_up, process.tail(20)
            time.sleep(0.05)
        yield Victim(process, int(ready[1]))
        assert process.running, f"it ended by itself: {process.tail(20)}"
    finally:
        process.send(signal.SIGTERM)
        status = process.wait()
    assert status == 0, process.tail(20)
