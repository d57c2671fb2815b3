"""Nobody pays for an adapter they do not use, and whoever lacks its library is told what to install."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_package_and_the_adapter_for_aiohttp_load_no_other_library() -> None:
    done = run(
        "import sys, smartclient, smartclient.adapters\n"
        "print([each for each in sys.modules if each.startswith('smartclient.adapters.')])\n"
        "import smartclient.adapters.aiohttp\n"
        "print([each for each in ('httpx', 'aiohttp.web', 'numpy') if each in sys.modules])"
    )
    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")


@pytest.mark.parametrize("library", ["httpx", "requests"])
def test_without_its_library_an_adapter_names_the_extra(library: str) -> None:
    blocked = f"sys.modules[{library!r}] = None"  # only now, for py-consul imports requests itself
    done = run(f"import sys, smartclient; {blocked}\nimport smartclient.adapters.{library}")
    last = f"ModuleNotFoundError: smartclient.adapters.{library} needs {library}: pip install 'twostep[{library}]'"
    assert done.stderr.splitlines()[-1] == last
    assert "During handling" not in done.stderr
