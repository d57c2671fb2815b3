"""The commands as a user meets them, without TensorFlow."""

import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from node.cli import node, train
from node.errors import ModelError, PortInUse
from node.machine import listen


def run(command, *arguments):
    return CliRunner().invoke(command, arguments)


@pytest.mark.parametrize(("command", "example"), [(train, "twostep train digits"), (node, "twostep node --model")])
def test_help_has_an_example_on_a_line_of_its_own(command, example):
    done = run(command, "--help")
    assert done.exit_code == 0
    assert any(line.strip().startswith(example) for line in done.output.splitlines())


@pytest.mark.parametrize(
    "arguments",
    [[], ["--model", "m", "--port", "70000"], ["--model", "m", "--weight", "0"], ["--model", "m", "--what"]],
)
def test_wrong_usage_is_exit_2(arguments):
    assert run(node, *arguments).exit_code == 2


def test_a_missing_model_is_told_before_anything_is_loaded(tmp_path):
    done = run(node, "--model", str(tmp_path / "nowhere"))
    assert isinstance(done.exception, ModelError)


def test_a_port_in_use_is_told_before_anything_is_loaded(model):
    with listen("127.0.0.1", 0) as taken:
        done = run(node, "--model", str(model), "--port", str(taken.getsockname()[1]), "--no-register")
    assert isinstance(done.exception, PortInUse)
    assert done.output == ""


def test_neither_help_nor_those_two_errors_import_tensorflow():
    code = "import sys, node.cli, node.server; sys.exit(bool({'tensorflow', 'keras', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SERVE = """
import sys
from node import server
from node.cli import node
from node.testing import ScriptedRuntime
server.open_runtime = lambda *args, **options: ScriptedRuntime()
node(sys.argv[1:])
"""


@pytest.fixture
def process(model):
    command = [sys.executable, "-c", SERVE, "--model", str(model), "--port", "0", "--no-register", "--id", "digits-1"]
    env = os.environ | {"PYTHONUNBUFFERED": ""}
    with subprocess.Popen(
        [*command, "--drain-grace", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as started:
        yield started
        started.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_drains_on_a_signal(process, number):
    line = process.stdout.readline()
    assert line.startswith("digits-1 ready at http://127.0.0.1:")
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == ""
    steps = ["drains", "leave the registry", "go on serving", "refuse new work", "finish what", "close connections"]
    places = [err.index(step) for step in steps]
    assert places == sorted(places)
    assert "Traceback" not in err
