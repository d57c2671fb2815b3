"""What the node makes of how a trial's process ends; the process is a script here."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from node.errors import ModelError
from node.models import ModelSource
from node.runtimes.select.choosing import Candidate
from node.runtimes.select.jobs import Job
from node.runtimes.select.supervise import try_all
from registry.timing import SystemClock

OTHERS = (Candidate("litert"), Candidate("onnx"))
SOURCE = ModelSource(path=Path("model.keras"), kind="keras", name="any", version="1")
RESULT = '{"trials": [{"candidate": {"runtime": "tensorflow"}, "ms": {"1": 2.0}}], "samples": "", "pictures": false}'
WRITE_RESULT = f"""printf '%s' '{RESULT}' > "$4/result.json\""""


@pytest.fixture
def job():
    return Job(source=SOURCE, others=OTHERS, batches=(1, 8))


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Stand in for the interpreter: its arguments are ``-P -m MODULE FOLDER``."""

    def make(text):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return make


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "job"
    made.mkdir()
    return made


@pytest.fixture
def attempt(job, folder):
    def run(stop=None):
        return try_all(job, folder, SystemClock(), stop or threading.Event())

    return run


def test_its_result_is_returned(script, attempt):
    script(WRITE_RESULT)
    result = attempt()
    assert [(str(each.candidate), each.ms) for each in result.trials] == [("tensorflow", {1: 2.0})]


def test_a_converter_that_takes_the_process_down_is_left_out_and_the_rest_tried_again(script, attempt):
    script(f'grep -q litert "$4/job.json" && printf litert > "$4/doing" && kill -ABRT $$\n{WRITE_RESULT}')
    result = attempt()
    assert [(str(each.candidate), each.reason) for each in result.trials] == [
        ("tensorflow", ""),
        ("litert", "its conversion ended the process with signal 6"),
    ]


def test_a_failure_says_its_last_line(script, attempt):
    script("echo loading; echo model.keras cannot be loaded: no such layer >&2; exit 1")
    with pytest.raises(ModelError, match=r"^model.keras cannot be loaded: no such layer$"):
        attempt()


@pytest.mark.parametrize("text", ["kill -KILL $$", "exit 3", "exit 0", "echo '{' > $4/result.json"])
def test_an_end_that_says_nothing_is_a_clear_line(script, attempt, text):
    script(text)
    with pytest.raises(ModelError, match=r"the trial of model\.keras"):
        attempt()


def test_who_waits_can_give_up_and_the_process_ends(script, attempt, folder):
    script('echo $$ > "$4/pid"; exec sleep 60')
    stop = threading.Event()
    said = []

    def wait():
        try:
            attempt(stop)
        except ModelError as error:
            said.append(str(error))

    waiter = threading.Thread(target=wait)
    waiter.start()
    give_up = time.monotonic() + 10
    while not (folder / "pid").exists() or not (folder / "pid").read_text():
        assert time.monotonic() < give_up
        time.sleep(0.01)
    stop.set()
    waiter.join(10)
    assert said == ["the choice of a runtime was given up"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), 0)
