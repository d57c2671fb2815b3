"""The demo is the main job: what it prints is what the whole path did."""

import json
import os
import pty
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.consul.agent import ConsulAgent
from infra.fleet import twostep
from tests.support import Run, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.tensorflow]
Leftovers = Callable[[], list[str]]


def report(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)  # one object and nothing else


def test_sixty_images_over_three_nodes_are_twenty_each(run: Run, digits_model: Path, leftovers: Leftovers) -> None:
    told = report(run("demo", "--once", "--json", "--nodes", "3", "--images", "60", "--model", str(digits_model)))
    assert told["registry"] == "embedded"
    assert (told["requests"], told["failed"]) == (60, 0)
    assert list(told["by_node"].values()) == [20, 20, 20]
    assert told["accuracy"] >= 0.95
    assert 0 < told["p50_ms"] <= told["p99_ms"]


def test_a_node_killed_in_the_middle_costs_no_request(run: Run, digits_model: Path, leftovers: Leftovers) -> None:
    told = report(run("demo", "--once", "--json", "--images", "300", "--kill-one", "--model", str(digits_model)))
    assert (told["requests"], told["failed"]) == (300, 0)
    answered = told["by_node"]
    assert sum(answered.values()) == 300
    assert 0 < answered[told["killed"]] < 100  # it answered until then, and not after
    assert told["retried"] >= 1


def test_the_registry_killed_in_the_middle_costs_no_request(run: Run, digits_model: Path, leftovers: Leftovers) -> None:
    told = report(
        run(
            "demo",
            "--once",
            "--json",
            "--nodes",
            "2",
            "--images",
            "200",
            "--kill-registry",
            "--model",
            str(digits_model),
        )
    )
    assert (told["requests"], told["failed"], told["registry_killed"]) == (200, 0, True)


@pytest.mark.consul
@pytest.mark.parametrize("kill", [[], ["--kill-one"]])
def test_the_same_over_a_real_consul_of_its_own(
    run: Run, digits_model: Path, consul_binary: str, leftovers: Leftovers, kill: list[str]
) -> None:
    told = report(
        run("demo", "--once", "--json", "--registry", "consul", "--images", "60", "--model", str(digits_model), *kill)
    )
    assert (told["registry"], told["requests"], told["failed"]) == ("consul", 60, 0)
    assert len(told["by_node"]) == 3


@pytest.mark.consul
def test_a_running_consul_is_used_and_left_running(
    run: Run, digits_model: Path, consul_agent: ConsulAgent, leftovers: Leftovers
) -> None:
    address = f"consul://{consul_agent.address}"
    told = report(
        run(
            "demo",
            "--once",
            "--json",
            "--registry",
            address,
            "--nodes",
            "2",
            "--images",
            "40",
            "--model",
            str(digits_model),
        )
    )
    assert (told["registry"], told["failed"]) == (address, 0)
    assert list(told["by_node"].values()) == [20, 20]
    assert consul_agent.get("/v1/health/service/digits") == []  # its nodes said goodbye


def test_on_a_terminal_it_stays_up_until_interrupted(digits_model: Path, leftovers: Leftovers) -> None:
    leader, follower = pty.openpty()
    shown = b""
    environment = os.environ | {"COLUMNS": "140", "TERM": "xterm"}
    demo = subprocess.Popen(
        twostep("demo", "--nodes", "2", "--images", "30", "--kill-one", "--model", str(digits_model)),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        env=environment,
    )
    os.close(follower)
    os.set_blocking(leader, False)

    def read() -> bytes:
        nonlocal shown
        try:
            shown += os.read(leader, 65536)
        except BlockingIOError:
            pass
        except OSError:
            return shown  # the other end is closed
        return shown

    try:
        wait_until(lambda: b"Ctrl-C ends it all" in read(), 90, "what to try next")
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
        assert "Killed digits-2" in text
        assert re.search(r"digits-1 +│ +\d+", text), text
        assert "critical" in text  # the registry has noticed, and the demo shows it
        assert demo.poll() is None
        shown_at = re.search(r"watch it at (http://127\.0\.0\.1:\d+)", text)
        assert shown_at, text
        with urllib.request.urlopen(f"{shown_at[1]}/api/v1/overview", timeout=10) as answer:
            seen = json.load(answer)
        assert [each["name"] for each in seen["rows"]] == ["digits"]
        with urllib.request.urlopen(f"{shown_at[1]}/api/v1/calls", timeout=10) as answer:
            assert [each["client"] for each in json.load(answer)["callers"]] == ["demo"]  # it has reported
        token = re.search(r"(/\S+operator\.token)", text)
        assert token, text
        assert Path(token[1]).stat().st_mode & 0o077 == 0
        demo.send_signal(signal.SIGINT)
        wait_until(lambda: (read(), demo.poll() is not None)[1], 30, "its end after Ctrl-C")
    finally:
        demo.kill()
        demo.wait()
        os.close(leader)
    assert demo.returncode == 130
    assert b"Traceback" not in shown


def test_an_interrupt_while_it_trains_is_no_traceback_and_leaves_no_model(leftovers: Leftovers, tmp_path: Path) -> None:
    demo = subprocess.Popen(
        twostep("demo", "--once", "--model", str(tmp_path / "models" / "digits")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: len(leftovers()) == 2, 30, "the training")
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does: to all of them
        said, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
        demo.communicate()
    assert demo.returncode == 130, said
    assert "training one" in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("model.json"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_told_to_stop_stops_its_fleet(
    number: signal.Signals, digits_model: Path, leftovers: Leftovers, tmp_path: Path
) -> None:
    with (tmp_path / "out").open("wb") as out:
        demo = subprocess.Popen(
            twostep("demo", "--once", "--nodes", "1", "--images", "100000", "--model", str(digits_model)),
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
        )
    wait_until(lambda: b"passing at" in (tmp_path / "out").read_bytes(), 60, "a node")
    demo.send_signal(number)
    assert demo.wait(timeout=60) == 130
    assert leftovers() == []
    assert b"Traceback" not in (tmp_path / "out").read_bytes()


def test_a_demo_killed_outright_takes_its_fleet_along(digits_model: Path, leftovers: Leftovers, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        demo = subprocess.Popen(
            twostep("demo", "--once", "--nodes", "1", "--images", "100000", "--model", str(digits_model)),
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
        )
    wait_until(lambda: b"passing at" in (tmp_path / "out").read_bytes(), 60, "a node")
    demo.kill()
    demo.wait()
    wait_until(lambda: leftovers() == [], 30, "the end of its children")


def test_options_that_cannot_be_are_refused_at_once(run: Run) -> None:
    for arguments, word in [
        (["--kill-one", "--nodes", "1"], "--nodes 2"),
        (["--kill-registry", "--registry", "consul://127.0.0.1:1"], "embedded or consul"),
        (["--nodes", "0"], "nodes"),
    ]:
        done = run("demo", *arguments)
        assert done.returncode == 2
        assert word in done.stderr


def test_a_registry_that_is_not_there_is_one_line(run: Run, digits_model: Path, leftovers: Leftovers) -> None:
    done = run("demo", "--once", "--registry", "consul://127.0.0.1:1", "--model", str(digits_model))
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
