"""What is installed: the four packages with their types and scripts, nothing of the tests, and a light SDK."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(ROOT),
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(out),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return zipfile.ZipFile(next(out.glob("twostep-*.whl")))


def test_the_wheel_holds_the_packages_with_their_types(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for package in ("registry", "node", "smartclient", "infra"):
        assert f"{package}/__init__.py" in names
        assert f"{package}/py.typed" in names
    assert "infra/consul/install.sh" in names


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    top = {name.partition("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"registry", "node", "smartclient", "infra"}


def test_the_sdk_loads_nothing_heavy() -> None:
    heavy = [
        "tensorflow",
        "keras",
        "numpy",
        "PIL",
        "sklearn",
        "jinja2",
        "click",
        "rich",
        "aiohttp.web",
        "registry.embedded",
    ]
    script = f"import sys, smartclient; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
