"""``twostep simulate`` as a person and a program use it."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from smartclient.policies.select import DEFAULT, names

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "infra.cli", "simulate"]
FLEET = "nodes = [{ count = 3 }]\nclients = { load = 0.5 }\nrequests = 400\n"


def simulate(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    path = tmp_path / "three.toml"
    path.write_text(FLEET)
    return path


def test_json_has_every_policy_in_every_scenario_and_exactly_the_keys_that_are_promised(fleet: Path) -> None:
    done = simulate("--scenario", "weights", "--scenario", fleet, "--requests", 300, "--json", "--jobs", 2)
    assert (done.returncode, done.stderr) == (0, "")
    out = json.loads(done.stdout)
    assert set(out) == {"scenarios", "default"}
    assert out["default"] == DEFAULT
    assert list(out["scenarios"]) == ["weights", "three"]
    for policies in out["scenarios"].values():
        assert set(policies) == {*names(), "oracle"}
        for result in policies.values():
            assert set(result) == {"p50_ms", "p99_ms", "p999_ms", "errors", "spread"}


def test_jobs_change_nothing_but_the_time_it_takes(fleet: Path) -> None:
    one, two = (simulate("--scenario", fleet, "--json", "--jobs", jobs).stdout for jobs in (1, 2))
    assert json.loads(one) == json.loads(two)


def test_a_table_for_people(fleet: Path) -> None:
    done = simulate("--scenario", fleet, "--policy", "rotation", "--policy", "oracle", "--jobs", 1)
    assert done.returncode == 0
    title, head, rotation, oracle = done.stdout.splitlines()
    assert title == "three: as described (400 requests)"
    assert head.split() == ["policy", "p50", "ms", "p99", "ms", "p99.9", "ms", "errors", "spread", "p99", "/", "oracle"]
    assert re.fullmatch(r" +rotation( \(default\))? +[\d.]+ +[\d.]+ +[\d.]+ +0 +1\.00 +\d\.\d\d", rotation)
    assert oracle.split()[-1] == "1.00"


def test_an_svg(fleet: Path, tmp_path: Path) -> None:
    path = tmp_path / "chart.svg"
    assert simulate("--scenario", fleet, "--policy", "rotation", "--svg", path).returncode == 0
    assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scenario", "busy"], "no scenario is called 'busy'"),
        (["--policy", "busy"], "no policy is called 'busy'"),
        (["--scenario", "nowhere.toml"], "nowhere.toml: No such file"),
        (["--svg", "/nowhere/chart.svg"], "/nowhere/chart.svg: no such folder"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], words: str) -> None:
    done = simulate(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_ends_it_and_its_processes_without_a_word(jobs: int) -> None:
    command = [*COMMAND, "--scenario", "all", "--requests", "3000000", "--jobs", str(jobs)]
    primary, secondary = pty.openpty()
    try:
        running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=secondary, start_new_session=True)
        os.close(secondary)
        os.read(primary, 1)  # the bar is there: it has begun
        os.killpg(running.pid, signal.SIGINT)
        out, _ = running.communicate(timeout=30)
        assert (running.returncode, out) == (130, b"")
        with pytest.raises(ProcessLookupError):
            os.killpg(running.pid, 0)
    finally:
        os.close(primary)
