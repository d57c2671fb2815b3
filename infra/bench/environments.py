"""Virtual environments for servers that this project does not depend on, made once and kept in the cache.

TensorFlow and Pillow are the versions installed here, so that servers are compared and not engines.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.fleet import FleetError

TENSORFLOW = ("tensorflow-cpu", "tensorflow")
_TOP = Path(__file__).parent.parent.parent
_COMPLETE = "complete"


def python_with(name: str, packages: Sequence[str]) -> Path:
    """Return a Python that has these packages (``name==version``), TensorFlow and Pillow; minutes the first time.

    Raises ``FleetError``.
    """
    wanted = [*packages, *same_engines()]
    folder = cache() / name
    mark, python = folder / _COMPLETE, folder / "bin" / "python"
    if mark.is_file() and mark.read_text().split() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)], f"a virtual environment in {folder} cannot be made")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, *wanted], f"{packages[0]} cannot be installed")
    mark.write_text("\n".join(wanted))
    return python


def same_engines() -> list[str]:
    """TensorFlow and Pillow as they are installed here."""
    pins = [f"pillow=={importlib.metadata.version('pillow')}"]
    for name in TENSORFLOW:
        try:
            return [*pins, f"{name}=={importlib.metadata.version(name)}"]
        except importlib.metadata.PackageNotFoundError:
            continue
    raise FleetError("TensorFlow is not installed; install twostep[node]")


def cache() -> Path:
    """``bench`` in $TWOSTEP_CACHE, else in the checkout's ``.cache``, else in the user's cache folder."""
    if given := os.environ.get("TWOSTEP_CACHE"):
        return Path(given) / "bench"
    if (_TOP / "pyproject.toml").is_file():
        return _TOP / ".cache" / "bench"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twostep" / "bench"


def _run(command: Sequence[str], failure: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise FleetError(f"{failure}: {lines[-1]}; leave it out with --only, or install it by hand")
