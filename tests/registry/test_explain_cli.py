"""``twostep lookup --explain`` over the embedded registry and a real Consul, whose checks say the same."""

import json
import urllib.parse
import urllib.request

import pytest
from click.testing import CliRunner

from registry.cli import lookup
from tests.support import wait_until

REGISTRY = pytest.mark.parametrize("kind", ["embedded", pytest.param("consul", marks=pytest.mark.consul)])


def put(address, path, body=None):
    data = b"" if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{address}{path}", data=data, method="PUT")
    with urllib.request.urlopen(request, timeout=5) as answer:
        answer.read()


def explain(address, *arguments):
    return CliRunner().invoke(lookup, ["--explain", "--registry", address, *arguments])


@pytest.fixture
def address(kind, request):
    """A registry with four instances of ``explained``: well, failing, drained, warning."""
    if kind == "consul":
        address = request.getfixturevalue("consul_agent").address
    else:
        address = request.getfixturevalue("embedded")

    def register(number, **more):
        body = {"ID": f"e{number}", "Name": "explained", "Port": 9000 + number, "Address": "127.0.0.1"} | more
        put(address, "/v1/agent/service/register", body)

    ttl = {"TTL": "600s", "Status": "passing"}
    register(1, Meta={"zone": "a"}, Check=ttl)
    register(2, Check={"TTL": "600s", "Name": "Memory", "CheckID": "e2-memory", "Status": "passing"})
    register(3, Check=ttl)
    register(4, Check=ttl, Weights={"Passing": 8, "Warning": 3})
    said = urllib.parse.quote("\x1b[31m92 % used\u202e\nsecond line")
    put(address, f"/v1/agent/check/fail/e2-memory?note={said}")
    put(address, "/v1/agent/service/maintenance/e3?enable=true&reason=" + urllib.parse.quote("new disk\x1b[2J"))
    put(address, "/v1/agent/check/warn/service:e4?note=slow")
    wait_until(lambda: "slow" in explain(address, "explained").stdout, 20, "all checks to be seen")
    yield address
    for number in range(1, 5):
        put(address, f"/v1/agent/service/deregister/e{number}")


@pytest.fixture
def embedded():
    """An embedded registry in a thread of its own; gives its address."""
    import asyncio
    import threading

    from registry.embedded import EmbeddedRegistry

    found, started = [], threading.Event()

    async def serve():
        async with EmbeddedRegistry() as registry:
            found.extend((registry.address, asyncio.Event(), asyncio.get_running_loop()))
            started.set()
            await found[1].wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(20)
    yield found[0]
    found[2].call_soon_threadsafe(found[1].set)
    thread.join(20)


@REGISTRY
def test_each_instance_says_why_it_is_in_or_out(address):
    result = explain(address, "explained")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "in\te1\t127.0.0.1:9001\tpassing\t1\t",
        "out\te2\t127.0.0.1:9002\tcritical\t1\tcheck e2-memory (Memory) is critical: \\x1b[31m92 % used\\u202e",
        "out\te3\t127.0.0.1:9003\tdraining\t1\tin maintenance: new disk\\x1b[2J",
        "out\te4\t127.0.0.1:9004\twarning\t3\tcheck service:e4 is warning: slow",
    ]
    assert f"explained at consul://{address}: 1 in, 3 out; index " in result.stderr


@REGISTRY
def test_filters_are_reasons_too_and_none_left_is_a_failure(address):
    result = explain(address, "explained", "--zone", "b", "--all")
    assert result.exit_code == 1
    first = result.stdout.splitlines()[0].split("\t")
    assert (first[0], first[5]) == ("out", "its zone is a, not b")
    assert result.stderr.splitlines()[-1] == f"error: no instance of explained at consul://{address}"


@REGISTRY
def test_json_has_the_checks_as_they_are(address):
    found = json.loads(explain(address, "explained", "--json").stdout)
    assert (found["in"], found["out"], found["note"]) == (1, 3, "")
    second, third = found["instances"][1:3]
    assert (second["in"], second["why"][0][:15]) == (False, "check e2-memory")
    (failed,) = [check for check in second["checks"] if check["Status"] == "critical"]
    assert failed["Output"] == "\x1b[31m92 % used\u202e\nsecond line"
    (drained,) = [check for check in third["checks"] if check["Status"] == "critical"]
    assert (drained["CheckID"], drained["Notes"]) == ("_service_maintenance:e3", "new disk\x1b[2J")


@REGISTRY
def test_a_drained_machine_is_told_with_its_reason(address):
    put(address, "/v1/agent/maintenance?enable=true&reason=new%20kernel")
    try:
        wait_until(lambda: "new kernel" in explain(address, "explained").stdout, 20, "the machine to be drained")
        first = explain(address, "explained").stdout.splitlines()[0].split("\t")
        assert (first[0], first[3], first[5]) == ("out", "draining", "its node is in maintenance: new kernel")
    finally:
        put(address, "/v1/agent/maintenance?enable=false")


def test_a_static_list_is_explained_with_what_there_is():
    result = explain("static://127.0.0.1:9001", "any")
    assert result.exit_code == 0
    assert result.stdout == "in\t127.0.0.1:9001\t127.0.0.1:9001\tpassing\t1\t\n"
    assert "static:// knows no checks; ask Consul itself" in result.stderr
