"""Run a command that ends when its starter does: ``python -m infra.leash COMMAND ...``.

A demo or test that is killed outright can tidy nothing up. On Linux the kernel does it then: the command gets SIGTERM
the moment the process that started it is gone (prctl(2), PR_SET_PDEATHSIG). Elsewhere this only runs the command.
The signal follows the *thread* that started the child, so start children from a thread that lives on.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def leashed(command: Sequence[str]) -> list[str]:
    """The same command on a leash, for ``subprocess``; the working folder is kept off its import path (-P)."""
    return [sys.executable, "-P", "-m", "infra.leash", *command]


def main() -> None:
    """Tie this process to its parent, then become the command."""
    command = sys.argv[1:]
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was gone before the request stood
            sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606 - becoming the command is the point
    except OSError as error:
        sys.exit(f"error: cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
