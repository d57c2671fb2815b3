"""``twostep registry lookup`` as a process."""

import json
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import urllib.request

import pytest
from click.testing import CliRunner

from infra.cli import main
from infra.consul.agent import free_port
from registry.cli import registry
from tests.support import missing


class Running:
    """The command; ``url`` is where it says it is."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "infra.cli", "registry", "lookup", "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().removeprefix("look-up service ready at ").strip()
        self.said = [self.process.stdout.readline() for _ in range(5)]

    def get(self, path, *, scheme="http", headers=None, context=None):
        url = f"{scheme}://{self.url.partition('://')[2]}{path}"
        request = urllib.request.Request(url, headers=headers or {})
        with urllib.request.urlopen(request, timeout=20, context=context) as response:
            return json.load(response)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        with self.process:
            _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture
def start():
    running = []

    def start(*arguments):
        running.append(Running(*arguments))
        return running[-1]

    yield start
    for each in running:
        each.process.kill()
        each.process.communicate()


def test_it_serves_says_where_and_ends_cleanly(start):
    service = start("--registry", "static://127.0.0.1:9001,127.0.0.1:9002")
    assert service.said[0] == "Lists come from static://127.0.0.1:9001,127.0.0.1:9002.\n"
    assert service.said[2] == f"  twostep lookup digits --watch --registry {service.url}\n"
    assert [each["port"] for each in service.get("/v1/lookup/digits")["instances"]] == [9001, 9002]
    stream = urllib.request.urlopen(service.url.replace("lookup", "http", 1) + "/v1/lookup/digits/stream", timeout=20)
    assert b'"snapshot"' in stream.readline()
    rest = []
    reading = threading.Thread(target=lambda: rest.extend(stream.readlines()))
    reading.start()
    assert service.end() == (0, "")
    reading.join(20)
    assert rest == []  # ended, not broken off: that would have raised, and the thread have failed the test


def test_ctrl_c_ends_it_too(start):
    assert start("--registry", "static://127.0.0.1:9001").end(signal.SIGINT) == (130, "")


def test_a_registry_that_is_away_is_said_and_no_error(start):
    port = free_port()
    service = start("--registry", f"consul://127.0.0.1:{port}")
    line = service.process.stderr.readline()
    assert line.startswith("warning: ")
    assert str(port) in line
    assert "lists are served once it answers" in line
    assert service.end()[0] == 0


def test_a_token_file_is_demanded_and_never_shown(start, tmp_path):
    path = tmp_path / "token"
    path.write_text("hush-hush")
    service = start("--registry", "static://127.0.0.1:9001", "--token-file", str(path), "--allow", "dig*")
    assert "hush" not in "".join(service.said)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        service.get("/v1/lookup/digits")
    headers = {"Authorization": "Bearer hush-hush"}
    assert service.get("/v1/lookup/digits", headers=headers)["service"] == "digits"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        service.get("/v1/lookup/photos", headers=headers)
    assert service.end() == (0, "")


def test_it_serves_tls(start, tmp_path):
    openssl = shutil.which("openssl") or missing("openssl", "apt-get install openssl")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    service = start("--registry", "static://127.0.0.1:9001", "--cert", str(cert), "--key", str(key))
    assert service.url.startswith("lookup+https://127.0.0.1:")
    context = ssl.create_default_context(cafile=str(cert))
    assert len(service.get("/v1/lookup/digits", scheme="https", context=context)["instances"]) == 1
    assert service.end() == (0, "")


def run(*arguments):
    return CliRunner().invoke(main, ["registry", "lookup", *arguments])


def test_a_port_in_use_is_one_line(start):
    port = start("--registry", "static://127.0.0.1:9001").url.rpartition(":")[2]
    result = run("--registry", "static://127.0.0.1:9001", "--port", port)
    assert result.exit_code == 1
    assert result.stderr == f"Error: port {port} on 127.0.0.1 is in use; choose another one with --port\n"


def test_a_key_that_is_none_is_one_line(tmp_path):
    path = tmp_path / "key.pem"
    path.write_text("no key")
    result = run("--registry", "static://127.0.0.1:9001", "--cert", str(path), "--key", str(path))
    assert result.exit_code == 1
    words = "no pair in PEM format, the key without a password"
    assert result.stderr == f"Error: certificate {path} and key {path} cannot be used: {words}\n"


@pytest.mark.parametrize("arguments", [("--bogus",), ("--port", "70000"), ("--cert", __file__), ("--max-readers", "0")])
def test_wrong_usage_is_two(arguments):
    assert run(*arguments).exit_code == 2


def test_help_has_an_example_and_the_registry_names_its_sub_command():
    assert "Example:\n    twostep registry lookup" in run("--help").stdout
    text = CliRunner().invoke(registry, ["--help"]).stdout
    assert "Example:\n    twostep registry\n" in text
    assert "lookup  Serve look-ups" in text
