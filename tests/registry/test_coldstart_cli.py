"""A registry that is killed, and programs that start without it: nothing here is faked."""

import json
import subprocess
import sys
import urllib.request

import pytest

from infra.consul.agent import ConsulAgent
from registry import connect
from registry.coldstart.directory import ColdStartDirectory
from tests.support import wait_until


@pytest.fixture
def agent(consul_binary):
    with ConsulAgent.dev() as agent:
        for number in (1, 2, 3):
            body = {"ID": f"d{number}", "Name": "digits", "Port": 9000 + number}
            put(agent, "/v1/agent/service/register", body)
        yield agent


def put(agent, path, body=None):
    data = b"" if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{agent.address}{path}", data=data, method="PUT")
    with urllib.request.urlopen(request, timeout=5) as answer:
        answer.read()


def lookup(agent, folder, *arguments):
    command = [sys.executable, "-m", "infra.cli", "lookup", "digits", *arguments]
    command += ["--registry", agent.address, "--cache", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.consul
def test_a_look_up_without_a_registry_shows_the_saved_list_and_its_age(agent, tmp_path):
    assert lookup(agent, tmp_path, "--all").stdout.count("\n") == 3
    agent.kill()
    cold = lookup(agent, tmp_path, "--json")
    document = json.loads(cold.stdout)
    assert (cold.returncode, len(document["instances"]), document["saved"]) == (0, 3, True)
    assert document["age_s"] > 0
    assert document["source"] == f"consul://{agent.address} (saved)"
    assert cold.stderr.startswith("warning: the list of digits is the one saved ")
    explained = lookup(agent, tmp_path, "--explain")
    assert (explained.returncode, explained.stdout.count("in\td")) == (0, 3)
    assert "from disk, as it was " in explained.stderr
    assert explained.stderr.endswith("checks are not kept on disk\n")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    torn = lookup(agent, tmp_path)
    assert torn.returncode == 1
    assert "is not used" in torn.stderr
    assert "Traceback" not in torn.stderr


@pytest.mark.consul
def test_a_watch_begins_with_the_saved_list_and_catches_up(agent, tmp_path):
    lookup(agent, tmp_path, "--all")
    agent.kill()
    program = "from registry.cli import lookup; lookup()"
    command = [sys.executable, "-c", program, "digits", "--watch", "--json", "--registry", agent.address]
    with (tmp_path / "out").open("w+") as output:
        watching = subprocess.Popen([*command, "--cache", str(tmp_path)], stdout=output, stderr=subprocess.DEVNULL)

        def lists():
            lines = (tmp_path / "out").read_text().splitlines()
            return [each for each in map(json.loads, lines) if each["event"] == "list"]

        try:
            wait_until(lists, 30, "the saved list")
            assert (lists()[0]["saved"], len(lists()[0]["instances"])) == (True, 3)
            agent.start()
            put(agent, "/v1/agent/service/register", {"ID": "d4", "Name": "digits", "Port": 9004})
            wait_until(lambda: len(lists()[-1]["instances"]) == 4, 60, "the real list")
            assert not lists()[-1]["saved"]
        finally:
            watching.terminate()
            assert watching.wait(30) == 0


async def test_the_folder_is_off_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("TWOSTEP_CACHE_DIR", raising=False)
    assert not isinstance(connect("127.0.0.1:1"), ColdStartDirectory)
    assert isinstance(connect("127.0.0.1:1", cache=tmp_path), ColdStartDirectory)
    monkeypatch.setenv("TWOSTEP_CACHE_DIR", str(tmp_path))
    made = connect("127.0.0.1:1")
    assert isinstance(made, ColdStartDirectory)
    assert made.snapshot()["folder"] == str(tmp_path)
    assert not isinstance(connect("127.0.0.1:1", cache=""), ColdStartDirectory)
    assert not isinstance(connect("static://127.0.0.1:1"), ColdStartDirectory)
