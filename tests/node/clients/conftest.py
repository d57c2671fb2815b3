"""Clients that nobody here wrote, each in an environment of its own where it does not go with ours."""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.node.protocols.oip.echoing import serve_echo
from tests.support import missing

__all__ = ["serve_echo"]

CACHE = Path(__file__).parents[3] / ".cache"


@pytest.fixture(scope="session")
def environment():
    """Make a virtual environment from a file of pins, once per machine; gives its Python."""

    def make(pins: Path) -> Path:
        folder = CACHE / f"{pins.stem}-{hashlib.sha256(pins.read_bytes()).hexdigest()[:12]}"
        if not folder.exists():
            CACHE.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=CACHE, ignore_cleanup_errors=True) as work:
                made = Path(work) / "made"
                run(sys.executable, "-m", "venv", str(made), hint=f"python3 -m venv {made}")
                pip = [str(made / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
                run(*pip, "--disable-pip-version-check", "--requirement", str(pins), hint=f"pip install -r {pins}")
                if not folder.exists():  # another test run may have been quicker
                    made.rename(folder)
        return folder / "bin" / "python"

    return make


def run(*command: str, hint: str) -> None:
    """Run an installing command, or say what is missing."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        missing("a package index", f"{hint} failed: {(done.stderr.strip().splitlines() or ['nothing said'])[-1]}")
