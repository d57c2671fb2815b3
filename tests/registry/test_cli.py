import asyncio
import json
import signal
import subprocess
import sys
import threading
import urllib.request

import pytest
from click.testing import CliRunner

from infra.consul.agent import free_port
from registry.cli import lookup, registry
from registry.embedded import EmbeddedRegistry
from registry.errors import ConfigurationError, RegistryUnavailable


def command(name, *arguments):
    """A running ``twostep NAME``."""
    program = f"from registry.cli import {name}; {name}()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def running():
    """A registry with two instances, one of them draining, in a thread of its own; gives its address."""
    started, loop = threading.Event(), asyncio.new_event_loop()
    found = []

    async def serve():
        async with EmbeddedRegistry() as embedded:
            found.extend((embedded.address, asyncio.Event()))
            started.set()
            await found[1].wait()

    thread = threading.Thread(target=lambda: (loop.run_until_complete(serve()), loop.close()))
    thread.start()
    started.wait(10)
    address, stop = found
    for number in (1, 2):
        body = {
            "ID": f"d{number}",
            "Name": "digits",
            "Port": 9000 + number,
            "Tags": ["t"],
            "Meta": {"zone": f"z{number}"},
        }
        put(address, "/v1/agent/service/register", body)
    put(address, "/v1/agent/service/maintenance/d2?enable=true")
    yield address
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)


def put(address, path, body=None):
    request = urllib.request.Request(f"http://{address}{path}", data=json.dumps(body).encode(), method="PUT")
    with urllib.request.urlopen(request, timeout=5):
        pass


def run(*arguments):
    return CliRunner().invoke(lookup, arguments)


def test_look_up_prints_a_line_for_each_passing_instance(running):
    result = run("digits", "--registry", running)
    assert result.exit_code == 0
    assert result.stdout == "d1\t127.0.0.1:9001\tpassing\tz1\t-\t1\tt\n"


def test_all_shows_those_that_are_not_passing(running):
    lines = run("digits", "--registry", running, "--all").stdout.splitlines()
    assert [line.split("\t")[2] for line in lines] == ["passing", "draining"]


def test_filters_narrow(running):
    assert run("digits", "--registry", running, "--all", "--zone", "z2").stdout.startswith("d2")
    assert run("digits", "--registry", running, "--version", "9").exit_code == 1


def test_json_is_one_document(running):
    document = json.loads(run("digits", "--registry", running, "--json").stdout)
    assert document["service"] == "digits"
    (instance,) = document["instances"]
    assert (instance["id"], instance["endpoint"], instance["health"]) == ("d1", "127.0.0.1:9001", "passing")


def test_an_unknown_service_fails_with_a_clear_line(running):
    result = run("nothing", "--registry", running)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"error: no instance of nothing at consul://{running}; is the name right, and is a node running?\n"
    )


def test_a_service_with_none_passing_says_how_to_see_them(running):
    put(running, "/v1/agent/service/maintenance/d1?enable=true")
    result = run("digits", "--registry", running, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["instances"] == []
    assert "2 left out: --explain says why" in result.stderr


def test_no_registry_there_is_the_packages_error():
    result = run("digits", "--registry", f"127.0.0.1:{free_port()}")
    assert isinstance(result.exception, RegistryUnavailable)
    result = run("digits", "--watch", "--registry", f"127.0.0.1:{free_port()}")
    assert isinstance(result.exception, RegistryUnavailable)


def test_an_address_that_is_none_is_the_packages_error():
    assert isinstance(run("digits", "--registry", "foo://x").exception, ConfigurationError)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing argument"),
        (("digits", "--bogus"), "--bogus"),
        (("digits", "--meta", "gpu"), "'gpu' is not KEY=VALUE"),
        (("digits", "--meta", "=a"), "'=a' is not KEY=VALUE"),
        (("digits", "--meta", "a=1", "--meta", "a=2"), "a is given twice"),
        (("digits", "--watch", "--explain"), "leave one of them out"),
        (("x\udcff",), "'x\\udcff' is not text"),
        (("digits", "--meta", "a=\udcff"), "is not text"),
    ],
)
def test_wrong_usage_is_two_and_says_what_is_wrong(arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr.splitlines()[-1]


def test_metadata_filters(running):
    body = {"ID": "d3", "Name": "digits", "Port": 9003, "Meta": {"gpu": "a100", "rack": "r=1"}}
    put(running, "/v1/agent/service/register", body)
    assert run("digits", "--registry", running, "--meta", "gpu=a100", "--meta", "rack=r=1").stdout.startswith("d3\t")
    assert run("digits", "--registry", running, "--meta", "gpu=a100", "--meta", "rack=r").exit_code == 1


def test_a_name_nearly_right_is_suggested(running):
    assert run("digts", "--registry", running).stderr.endswith("; did you mean digits?\n")


def test_an_odd_id_stays_in_its_line_and_column(running):
    put(running, "/v1/agent/service/register", {"ID": "a\tb\u202e\x1b[2J", "Name": "odd", "Port": 1})
    (line,) = run("odd", "--registry", running).stdout.splitlines()
    assert line.split("\t")[:2] == ["a\\tb\\u202e\\x1b[2J", "127.0.0.1:1"]


@pytest.mark.parametrize("which", [lookup, registry])
def test_help_has_an_example_that_is_not_rewrapped(which):
    text = CliRunner().invoke(which, ["--help"]).stdout
    assert "Example:\n    twostep " in text


def test_watch_prints_changes_until_interrupted(running):
    process = command("lookup", "digits", "--watch", "--registry", running)
    assert process.stdout.readline().split()[1:3] == ["+", "d1"]
    assert process.stdout.readline().endswith("= 1 instance of digits\n")
    put(running, "/v1/agent/service/maintenance/d2?enable=false")
    assert process.stdout.readline().endswith(" + d2  127.0.0.1:9002  passing  zone z2  (health draining → passing)\n")
    assert process.stdout.readline().endswith("= 2 instances of digits\n")
    put(running, "/v1/agent/service/deregister/d2")
    assert process.stdout.readline().endswith(" - d2  127.0.0.1:9002  (gone)\n")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (130, "")


def test_watch_ends_quietly_when_its_reader_leaves(running):
    process = command("lookup", "digits", "--watch", "--registry", running)
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(30), errors) == (0, "")


def test_watch_tells_of_an_outage_and_its_end():
    port = free_port()
    first = command("registry", "--port", str(port))
    first.stdout.readline()
    address = f"127.0.0.1:{port}"
    put(address, "/v1/agent/service/register", {"ID": "d1", "Name": "digits", "Port": 9001})
    process = command("lookup", "digits", "--watch", "--json", "--registry", address)
    assert json.loads(process.stdout.readline())["event"] == "list"
    first.kill()
    first.communicate()
    lost = json.loads(process.stdout.readline())
    assert lost["event"] == "lost"
    assert address in lost["error"]
    second = command("registry", "--port", str(port))
    second.stdout.readline()
    put(address, "/v1/agent/service/register", {"ID": "d1", "Name": "digits", "Port": 9001})
    back = json.loads(process.stdout.readline())
    assert (back["event"], back["after_s"] > 0) == ("back", True)
    for each in (process, second):
        each.send_signal(signal.SIGTERM)
        each.communicate(timeout=10)


def test_watch_as_json_is_a_line_for_each_change(running):
    process = command("lookup", "digits", "--watch", "--json", "--registry", running)
    assert [each["id"] for each in json.loads(process.stdout.readline())["instances"]] == ["d1"]
    put(running, "/v1/agent/service/maintenance/d2?enable=false")
    assert [each["id"] for each in json.loads(process.stdout.readline())["instances"]] == ["d1", "d2"]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_the_registry_says_where_it_is_and_ends_cleanly(number, status):
    port = free_port()
    process = command("registry", "--port", str(port))
    assert process.stdout.readline() == f"registry ready at consul://127.0.0.1:{port}\n"
    assert "production wants Consul" in process.stdout.readline()
    put(f"127.0.0.1:{port}", "/v1/agent/service/register", {"Name": "digits"})
    process.send_signal(number)
    with process:
        rest, errors = process.stdout.read(), process.stderr.read()
    assert (process.returncode, errors) == (status, "")
    assert f"--registry consul://127.0.0.1:{port}" in rest


def test_a_port_in_use_is_the_packages_error(running):
    result = CliRunner().invoke(registry, ["--port", running.split(":")[1]])
    assert isinstance(result.exception, ConfigurationError)
    assert "in use" in str(result.exception)
