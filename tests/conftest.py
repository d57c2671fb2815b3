"""Fixtures every folder uses: real tools and a real Consul.

A tool that is missing skips the test on a developer's machine and says so; with ``CI`` set it is a failure, so that
nothing is left out in silence.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.consul.agent import ConsulAgent, ConsulUnavailable, binary
from tests.support import missing

ROOT = Path(__file__).parent.parent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs the tests in its background ignores Ctrl-C for them, and so would everything they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def curl() -> str:
    """Path of curl."""
    return shutil.which("curl") or missing("curl", "apt-get install curl")


@pytest.fixture(scope="session")
def jq() -> str:
    """Path of jq."""
    return shutil.which("jq") or missing("jq", "apt-get install jq")


@pytest.fixture(scope="session")
def nodejs() -> str:
    """Path of Node.js 20, which the virtual environment brings (``npm`` stands beside it)."""
    beside = Path(sys.executable).with_name("node")
    return str(beside) if beside.exists() else missing("Node.js 20", "make setup")


@pytest.fixture(scope="session")
def npm_packages(nodejs: str) -> Callable[..., Path]:
    """Install packages (``consul@2.0.1``) from npm, once per machine; gives the folder to run scripts in."""

    def install(*packages: str) -> Path:
        folder = ROOT / ".cache" / "npm" / "_".join(packages).replace("/", "-")
        if not (folder / "complete").exists():
            folder.mkdir(parents=True, exist_ok=True)
            command = [str(Path(nodejs).with_name("npm")), "install", "--no-audit", "--no-fund", "--no-save"]
            done = subprocess.run(
                [*command, "--prefix", str(folder), *packages],
                env=os.environ | {"PATH": f"{Path(nodejs).parent}{os.pathsep}{os.environ['PATH']}"},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            if done.returncode != 0:
                missing(f"npm's {' '.join(packages)}", (done.stderr.strip().splitlines() or ["npm failed"])[-1])
            (folder / "complete").touch()
        return folder

    return install


@pytest.fixture(scope="session")
def consul_binary() -> str:
    """Path of a real consul binary."""
    try:
        return binary()
    except ConsulUnavailable as error:
        missing("consul", str(error))


@pytest.fixture(scope="session")
def consul_agent(consul_binary: str) -> Iterator[ConsulAgent]:
    """One real Consul agent for the whole session: use service names of your own."""
    with ConsulAgent.dev() as agent:
        yield agent
