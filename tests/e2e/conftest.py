"""What the end-to-end tests share: a trained model, the command, and a way to see what is left running."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.fleet import twostep
from tests.support import Run


@pytest.fixture(scope="session")
def digits_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model trained by the command itself, with its held-out images."""
    folder = tmp_path_factory.mktemp("models") / "digits"
    done = subprocess.run(twostep("train", "digits", "--out", str(folder)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run() -> Run:
    """Run ``twostep ARGUMENTS`` to its end, without a terminal; returns status, output and errors."""

    def call(*arguments: str, timeout: float = 120.0, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            twostep(*arguments), capture_output=True, text=True, timeout=timeout, check=False, **options
        )

    return call


@pytest.fixture
def leftovers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Marks the environment of everything started in this test; calling it lists what of that still runs."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    mark = f"TWOSTEP_TEST={uuid.uuid4()}"
    monkeypatch.setenv(*mark.split("="))

    def running() -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                inherited = mark.encode() in (process / "environ").read_bytes().split(b"\0")
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # ended meanwhile, or not ours
            if inherited and command and int(process.name) != os.getpid():
                found.append(f"{process.name} {command}")
        return found

    yield running
    assert running() == []
