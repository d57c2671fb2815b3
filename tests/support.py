"""What tests of several folders share."""

import os
import subprocess
import time
from collections.abc import Callable
from typing import NoReturn

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


def missing(tool: str, hint: str) -> NoReturn:
    """Skip for want of a tool; fail instead where ``CI`` is set, so that nothing is left out in silence."""
    message = f"needs {tool}: {hint}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for something real to become true; fail with ``what`` after ``seconds``."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)
