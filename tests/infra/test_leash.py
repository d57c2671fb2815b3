"""A leashed command ends with whoever started it."""

import subprocess
import sys
from pathlib import Path

import pytest

from infra.leash import leashed
from tests.support import wait_until


def test_it_becomes_the_command(tmp_path: Path) -> None:
    done = subprocess.run(leashed(["echo", "here"]), capture_output=True, text=True, check=True)
    assert done.stdout == "here\n"


def test_a_command_that_is_not_there_is_one_line() -> None:
    done = subprocess.run(leashed(["no-such-command"]), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == "error: cannot run no-such-command: No such file or directory"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_the_command_ends_when_its_starter_is_killed() -> None:
    starter = (
        "import subprocess, time; from infra.leash import leashed;"
        "child = subprocess.Popen(leashed(['sh', '-c', 'echo up; exec sleep 600']));"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    lines = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
    child = next(int(line) for line in lines if line.isdigit())
    assert "up" in lines  # it has become the command
    parent.kill()
    parent.communicate()
    wait_until(lambda: not _runs(child), 10, "the child's end")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
