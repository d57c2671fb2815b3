"""Clients that nobody here wrote, each in an environment of its own where it does not go with ours."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.node.protocols.oip.echoing import serve_echo
from tests.support import missing

__all__ = ["serve_echo"]

CACHE = Path(__file__).parents[3] / ".cache"
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="session")
def environment():
    """Make a virtual environment from a file of pins, once per machine; gives its Python."""

    def make(pins: Path) -> Path:
        def fill(folder: Path) -> None:
            run(sys.executable, "-m", "venv", str(folder), hint=f"python3 -m venv {folder}")
            run(str(folder / "bin" / "python"), *PIP, "install", "--no-compile", "-r", str(pins), hint="pip install")

        return cached(pins, fill) / "bin" / "python"

    return make


@pytest.fixture(scope="session")
def unpacked():
    """Unpack wheels from a file of pins and Debian packages by name, once per machine; gives the folder."""

    def make(pins: Path, *debian: str) -> Path:
        def fill(folder: Path) -> None:
            wheels = folder / "wheels"
            run(sys.executable, *PIP, "download", "--no-deps", "-r", str(pins), "-d", str(wheels), hint="pip download")
            for wheel in wheels.iterdir():
                zipfile.ZipFile(wheel).extractall(folder)
            shutil.rmtree(wheels)
            for package in debian:
                from_debian(package, folder)

        return cached(pins, fill)

    return make


def cached(pins: Path, fill: Callable[[Path], None]) -> Path:
    """Give the folder for these pins, filled if it is not there; what is half made has another name."""
    folder = CACHE / f"{pins.stem}-{hashlib.sha256(pins.read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, ignore_cleanup_errors=True) as work:
            made = Path(work) / "made"
            made.mkdir()
            fill(made)
            if not folder.exists():  # another test run may have been quicker
                made.rename(folder)
    return folder


def from_debian(package: str, folder: Path) -> None:
    """Unpack a Debian package from where this machine gets its own, with lists of our own: nothing is installed."""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        missing(package, f"install {package}, or run on Debian")
    private = folder / "apt"
    (private / "lists" / "partial").mkdir(parents=True)
    options = ["-qq", "-o", f"Dir::State::Lists={private / 'lists'}", "-o", f"Dir::Cache={private / 'cache'}"]
    options += ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2"]
    (private / "cache" / "archives" / "partial").mkdir(parents=True)
    run("apt-get", *options, "update", hint="apt-get update")
    run("apt-get", *options, "download", package, hint=f"apt-get download {package}", folder=private)
    for file in private.glob("*.deb"):
        run("dpkg", "-x", str(file), str(folder), hint=f"dpkg -x {file.name}")
    shutil.rmtree(private)


def run(*command: str, hint: str, folder: Path | None = None) -> None:
    """Run an installing command, or say what is missing."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        missing("what a package index has", f"{hint} failed: {said[-1]}")
