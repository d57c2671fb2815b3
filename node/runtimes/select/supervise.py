"""Starting the process that tries (``trial``), and what to make of how it ends.

A candidate that takes the process down with it is left out and the rest tried again. The process is given fifteen
minutes; it ends at once when whoever waits gives up.
"""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec

import node
from node.errors import ModelError
from node.runtimes.reasons import first_line
from node.runtimes.select.choosing import Trial
from node.runtimes.select.jobs import DOING, JOB, RESULT, Job, Result, decode, encode
from registry.timing import Clock

log = logging.getLogger(__name__)

_PATIENCE = 900.0
_LOOK = 0.2  # seconds between two looks whether the waiting is over


def try_all(job: Job, folder: Path, clock: Clock, stop: threading.Event) -> Result:
    """Do a job in a process of its own, which leaves converted files in ``folder``; takes seconds to minutes.

    Raises ``ModelError`` when it comes to nothing, or when ``stop`` is set.
    """
    crashed: list[Trial] = []
    while True:
        (folder / JOB).write_bytes(encode(job))
        status, said = _run(folder, clock, stop)
        if status == 0:
            try:
                result = decode((folder / RESULT).read_bytes(), Result)
            except (OSError, msgspec.MsgspecError) as error:
                raise ModelError(f"the trial of {job.source.path} left no result: {error}") from error
            return msgspec.structs.replace(result, trials=(*result.trials, *crashed))
        culprit = next((each for each in job.others if str(each) == _doing(folder)), None)
        if status > 0 or culprit is None:
            raise ModelError(said or f"the trial of {job.source.path} ended with status {status}")
        crashed.append(Trial(candidate=culprit, reason=f"its conversion ended the process with signal {-status}"))
        job = msgspec.structs.replace(job, others=tuple(each for each in job.others if each != culprit))


def _run(folder: Path, clock: Clock, stop: threading.Event) -> tuple[int, str]:
    """Return the exit status, negative for a signal, and the last line on standard error."""
    home = str(Path(node.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    output = folder / "output"
    with output.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-P", "-m", "node.runtimes.select.trial", str(folder)],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": path},
        )
        try:
            _wait(process, clock, stop)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()
    lines = output.read_text(errors="replace").splitlines()
    for line in lines:
        log.debug("trial: %s", line)
    return process.returncode, first_line(lines[-1]) if lines else ""


def _wait(process: subprocess.Popen[bytes], clock: Clock, stop: threading.Event) -> None:
    give_up = clock.monotonic() + _PATIENCE
    while process.poll() is None:
        if stop.wait(_LOOK):
            raise ModelError("the choice of a runtime was given up")
        if clock.monotonic() > give_up:
            raise ModelError(f"the choice of a runtime took longer than {_PATIENCE:.0f} s")


def _doing(folder: Path) -> str:
    file = folder / DOING
    return file.read_text() if file.exists() else ""
