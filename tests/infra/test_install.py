"""install.sh finds a consul in the stated order and says what to do when it cannot."""

import os
import subprocess
from pathlib import Path

import pytest

from infra.consul.agent import INSTALL, ConsulAgent, ConsulUnavailable


def install(**environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key not in ("CONSUL_BIN", "TWOSTEP_CACHE")}
    return subprocess.run([str(INSTALL)], capture_output=True, text=True, env=clean | environment, check=False)


def fake(folder: Path, body: str = "exit 0") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "consul").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "consul").chmod(0o755)
    return folder / "consul"


def test_the_named_binary_comes_before_path_and_path_before_the_cache(tmp_path: Path) -> None:
    named, on_path = fake(tmp_path / "named"), fake(tmp_path / "path")
    cached = fake(tmp_path / "cache" / "consul")
    path = f"{on_path.parent}:{os.environ['PATH']}"
    cache = str(tmp_path / "cache")
    assert install(CONSUL_BIN=str(named), PATH=path, TWOSTEP_CACHE=cache).stdout.strip() == str(named)
    assert install(PATH=path, TWOSTEP_CACHE=cache).stdout.strip() == str(on_path)
    without = ":".join(each for each in os.environ["PATH"].split(":") if not (Path(each) / "consul").exists())
    assert install(PATH=without, TWOSTEP_CACHE=cache).stdout.strip() == str(cached)


def test_a_named_binary_that_does_not_run_is_refused_with_its_name(tmp_path: Path) -> None:
    done = install(CONSUL_BIN=str(fake(tmp_path, "exit 3")))
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
    assert "CONSUL_BIN" in done.stderr


def test_without_any_source_it_fails_and_says_what_to_do(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname", "uname", "mkdir", "mktemp", "rm", "sed", "grep", "head", "cat", "env"):
        (tools / tool).symlink_to(next(p for d in os.environ["PATH"].split(":") if (p := Path(d) / tool).exists()))
    done = install(PATH=str(tools), TWOSTEP_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert "CONSUL_BIN" in done.stderr.splitlines()[-1]
    assert list((tmp_path / "cache" / "consul").iterdir()) == []


def test_an_agent_that_does_not_come_up_says_why(consul_binary: str) -> None:
    with pytest.raises(ConsulUnavailable, match="no_such_key"):
        ConsulAgent.dev(no_such_key=1).start()
