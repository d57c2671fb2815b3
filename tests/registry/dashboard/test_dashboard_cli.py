"""``twostep dashboard`` as a process: what it says, how it ends, and one line for whatever cannot be."""

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from click.testing import CliRunner

from infra.cli import main
from registry.dashboard.cli import dashboard
from registry.serving import trusting
from tests.certificates import Authority
from tests.registry.dashboard.house import OPERATOR, TOKENS

pytestmark = pytest.mark.timeout(60)
NOWHERE = "consul://127.0.0.1:1"


class Running:
    """The command at work; ``url``: where it says that it is."""

    def __init__(self, *arguments, program=("-m", "infra.cli")):
        command = [sys.executable, *program, "dashboard", "--port", "0", "--registry", NOWHERE, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().removeprefix("dashboard ready at ").strip()
        self.said = [self.process.stdout.readline().strip() for _ in range(2)]

    def end(self, number):
        began = time.monotonic()
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, time.monotonic() - began, errors


@pytest.fixture
def start():
    running = []

    def start(*arguments, **more):
        running.append(Running(*arguments, **more))
        return running[-1]

    yield start
    for each in running:
        each.process.kill()
        each.process.communicate()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_says_where_it_is_and_ends_soon_with_a_stream_open(start, number, status) -> None:
    shown = start()
    with urllib.request.urlopen(f"{shown.url}/stream?at=/", timeout=20) as stream:
        assert stream.readline().startswith(b"data: {")
        code, seconds, errors = shown.end(number)
        assert b"data:" in stream.read()  # to its end
    assert code == status
    assert seconds < 3.0
    assert shown.said == [
        "Anybody who reaches it may look; it is read-only.",
        f"Clients report with TWOSTEP_DASHBOARD={shown.url} in their environment.",
    ]
    assert "Traceback" not in errors


def test_with_tokens_and_a_certificate_it_serves_and_says_no_secret(start, tmp_path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("site")
    files = {}
    for name, token in zip(("operator", "admin", "reports"), TOKENS, strict=False):
        files[name] = tmp_path / name
        files[name].write_text(token + "\n")
    shown = start(
        "--operator-token-file", str(files["operator"]), "--admin-token-file", str(files["admin"]),
        "--reports-token-file", str(files["reports"]), "--cert", str(certificate), "--key", str(key),
        "--node-ca", str(authority.certificate), "--floor", "2", "--service", "d*", "--cluster", "lab",
    )  # fmt: skip
    assert shown.url.startswith("https://127.0.0.1:")
    with urllib.request.urlopen(shown.url, timeout=20, context=trusting(authority.certificate)) as page:
        assert "lab" in page.read().decode()
    code, _, errors = shown.end(signal.SIGTERM)
    assert code == 0
    assert shown.said[0].endswith("operators may sign in.")
    assert not [each for each in TOKENS if each in str(shown.said) + errors]


def test_secrets_in_the_clear_on_a_network_are_warned_of(start, tmp_path) -> None:
    file = tmp_path / "operators"
    file.write_text(OPERATOR)
    _, _, quiet = start("--operator-token-file", str(file), "--host", "localhost").end(signal.SIGTERM)
    _, _, warned = start("--operator-token-file", str(file), "--host", "127.0.0.2").end(signal.SIGTERM)
    assert quiet == ""
    assert warned == "warning: without --cert tokens and sessions cross the network in the clear\n"


def test_when_it_follows_the_fleet_no_longer_it_ends_and_says_so(start) -> None:
    program = """
import sys
from registry.dashboard.source import Source
async def run(self):
    raise ZeroDivisionError("of the source")
Source.run = run
from infra.cli import main
main()
"""
    shown = start(program=("-c", program))
    _, errors = shown.process.communicate(timeout=20)
    assert shown.process.returncode == 1
    assert "the fleet is not followed any more, so the dashboard ends" in errors


def refused(*arguments):
    found = CliRunner().invoke(main, ["dashboard", *arguments])
    assert "Traceback" not in found.output
    return found.exit_code, found.stderr.strip()


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, said = refused("--registry", NOWHERE, "--port", str(port))
    assert (status, said) == (1, f"Error: port {port} on 127.0.0.1 is in use; choose another one with --port")


@pytest.mark.parametrize("address", ["lookup://127.0.0.1:8700", "static://127.0.0.1:9001"])
def test_a_list_of_instances_is_no_registry_to_look_at(address: str) -> None:
    status, said = refused("--registry", address)
    assert status == 1
    assert re.fullmatch(r"Error: \w+:// is a list of instances only; give the Consul itself: consul://HOST:PORT", said)


@pytest.mark.parametrize("address", ["ftp://x", "consul://x:port", "consul://user:t0ken-secret@x"])
def test_an_address_that_cannot_be_used_is_one_line(address: str) -> None:
    status, said = refused("--registry", address)
    assert status == 1
    assert said.startswith("Error: ")
    assert len(said.splitlines()) == 1
    assert "t0ken-secret" not in said


@pytest.mark.parametrize("option", ["--operator-token-file", "--admin-token-file", "--reports-token-file"])
@pytest.mark.parametrize("content", ["", "two words", "umläut"])
def test_a_token_file_that_cannot_be_used_is_one_line(tmp_path, option: str, content: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(content)
    status, said = refused("--registry", NOWHERE, option, str(file))
    assert status == 1
    assert len(said.splitlines()) == 1
    assert "token" in said
    assert not content or content not in said


def test_options_that_make_no_sense_are_wrong_usage(tmp_path) -> None:
    file = tmp_path / "site.pem"
    file.write_text("no certificate")
    assert refused("--cert", str(file))[0] == 2
    assert refused("--operator-token-file", str(tmp_path / "none"))[0] == 2
    assert refused("--port", "65536")[0] == 2
    status, said = refused("--registry", NOWHERE, "--cert", str(file), "--key", str(file))
    assert (status, len(said.splitlines())) == (1, 1)
    status, said = refused("--registry", NOWHERE, "--node-ca", str(file))
    assert (status, "no certificate in PEM" in said) == (1, True)


def test_its_help_has_examples() -> None:
    text = CliRunner().invoke(dashboard, ["--help"]).output
    assert "Example:\n    twostep dashboard\n" in text
    assert "--operator-token-file ops.tokens" in text


def test_without_jinja2_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['jinja2'] = None\nfrom infra.cli import main\nmain()"
    command = [sys.executable, "-c", program, "dashboard", "--registry", NOWHERE, "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: jinja2 is not installed; run: pip install 'twostep[dashboard]'\n"
