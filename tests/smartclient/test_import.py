import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_NEEDED = [
    "aiohttp.web",
    "click",
    "httpx",
    "jinja2",
    "keras",
    "numpy",
    "opentelemetry",
    "PIL",
    "prometheus_client",
    "registry.embedded",
    "rich",
    "tensorflow",
]


def test_importing_the_sdk_loads_nothing_it_does_not_need() -> None:
    code = f"import sys, smartclient; print([name for name in {NOT_NEEDED} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_public_is_there() -> None:
    import smartclient

    assert all(hasattr(smartclient, name) for name in smartclient.__all__)
