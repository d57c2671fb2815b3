"""Run a command whose whole process group ends when its starter does: ``python -m infra.bench.keeper COMMAND ...``.

A server may have workers that outlive it, and one that has been stopped with SIGSTOP does not hear SIGTERM. So a
process of its own waits for the command, and ends its group when it is told to, or (on a leash, see ``infra.leash``)
when whoever started it is gone.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

# Seconds between SIGTERM and SIGKILL.
GRACE = 5.0


def keep(command: Sequence[str]) -> int:
    """Run it to its end; its exit status."""
    signal.signal(signal.SIGTERM, _leave)
    kept = subprocess.Popen(command, start_new_session=True)
    try:
        return kept.wait()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _tell(kept.pid, signal.SIGTERM)
        _tell(kept.pid, signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            kept.wait(GRACE)
        _tell(kept.pid, signal.SIGKILL)


def _leave(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def _tell(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # nobody is left
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
