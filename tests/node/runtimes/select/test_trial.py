"""Trying a model's candidates with the real converters, in this process."""

import subprocess
import sys

import numpy as np
import pytest

from node.models import locate
from node.runtimes.convert import to_litert, to_onnx
from node.runtimes.select import trial as trials
from node.runtimes.select.choosing import Candidate
from node.runtimes.select.jobs import Job, decode, encode, file_of
from node.runtimes.select.trial import attempt
from registry.timing import SystemClock

pytestmark = [
    pytest.mark.tensorflow,
    # Keras, TensorFlow and the converters warn of each other's ageing calls.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

FLOAT, INT8, ONNX = Candidate("litert"), Candidate("litert", "int8"), Candidate("onnx")


@pytest.fixture
def attempts(tmp_path):
    """Try candidates of a model; gives the trials by candidate, and what they were compared on."""

    def make(path, *others, samples=None):
        job = Job(source=locate(path), others=others, batches=(1, 4), samples=samples)
        result = attempt(decode(encode(job), Job), tmp_path, SystemClock())
        return {str(each.candidate): each for each in result.trials}, result

    return make


def test_what_agrees_is_timed_and_its_file_left(attempts, pictures_model, tmp_path):
    found, result = attempts(pictures_model, FLOAT, ONNX, INT8)
    assert list(found) == ["tensorflow", "litert", "onnx", "litert int8"]
    for trial in found.values():
        assert trial.reason == ""
        assert set(trial.ms) == {1, 4}
        assert all(ms > 0 for ms in trial.ms.values())
    assert found["tensorflow"].agreement is None
    assert found["litert"].agreement.difference < 1e-4
    assert found["litert int8"].agreement.difference > found["litert"].agreement.difference
    assert found["litert"].agreement.decided > 10
    assert result.samples == "160 items of noise"
    assert {file_of(each) for each in (FLOAT, ONNX, INT8)} <= {each.name for each in tmp_path.iterdir()}
    assert not (tmp_path / "doing").exists()


def test_lanes_are_tried_beside_the_file_as_it_is(attempts, pictures_model, monkeypatch):
    """Times are made up, the later a run is timed the less it takes: so lanes, timed after their own, are quicker."""
    monkeypatch.setattr("node.runtimes.engines.cores", lambda: 2)
    monkeypatch.setattr(
        trials.timing,
        "in_turns",
        lambda runs, inputs, sizes, clock: [
            {size: size * (9.0 - place) for size in sizes} for place in range(len(runs))
        ],
    )
    found, _ = attempts(pictures_model, FLOAT, ONNX)
    assert {name: trial.lanes for name, trial in found.items()} == {"tensorflow": 0, "litert": 2, "onnx": 0}
    assert found["litert"].ms == {1: 7.0, 4: 28.0}
    assert found["onnx"].ms == {1: 6.0, 4: 24.0}


def test_what_disagrees_is_not_timed(attempts, pairs_model):
    """A branch that no sample takes has no range to be calibrated by, and spoils the rest in eight bits."""
    found, _ = attempts(pairs_model, FLOAT, INT8)
    assert found["litert"].reason == ""
    assert found["litert int8"].reason.startswith("it disagrees")
    assert found["litert int8"].ms == {}


def test_a_conversion_that_says_something_else_is_found_out(
    tf_and_keras, attempts, pictures_model, frozen, tmp_path, monkeypatch
):
    from node.runtimes.tensorflow import freeze

    _, keras = tf_and_keras
    model = keras.saving.load_model(pictures_model)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel[:, ::-1], bias])  # classes the other way round
    model.save(tmp_path / "reversed.keras")
    turned = freeze(tmp_path / "reversed.keras", "keras")
    monkeypatch.setattr(trials, "to_litert", lambda model, calibration: to_litert(turned, calibration))
    monkeypatch.setattr(trials, "to_onnx", lambda model: to_onnx(frozen["pairs"]))
    found, _ = attempts(pictures_model, FLOAT, INT8, ONNX)
    assert found["litert"].reason.startswith("it disagrees: largest difference")
    assert found["litert int8"].reason.startswith("it disagrees")
    assert found["onnx"].reason == "it cannot be converted: its inputs and outputs do not survive"
    assert all(not found[name].ms for name in ("litert", "litert int8", "onnx"))


def test_a_converter_that_fails_costs_only_its_own_candidate(attempts, pictures_model, monkeypatch):
    def fail(_):
        raise RuntimeError("\n  unknown operation FancyPool\n" + "traceback\n" * 100)

    monkeypatch.setattr(trials, "to_onnx", fail)
    found, _ = attempts(pictures_model, ONNX, FLOAT)
    assert found["onnx"].reason == "it cannot be converted: unknown operation FancyPool"
    assert found["litert"].reason == ""


def test_a_model_that_is_no_tensorflow_model_is_only_timed(attempts, frozen, tmp_path):
    path = tmp_path / "given.tflite"
    path.write_bytes(to_litert(frozen["pictures"]))
    found, _ = attempts(path)
    assert list(found) == ["litert"]
    assert set(found["litert"].ms) == {1, 4}


def test_the_calibration_is_not_what_is_compared(attempts, pictures_model, monkeypatch):
    seen = []

    def record(model, calibration):
        seen.append(calibration["image"])
        return to_litert(model, calibration)

    compared = []
    real = trials._outputs

    def outputs(run, inputs):
        compared.append(inputs["image"])
        return real(run, inputs)

    monkeypatch.setattr(trials, "to_litert", record)
    monkeypatch.setattr(trials, "_outputs", outputs)
    attempts(pictures_model, INT8)
    assert len(seen[0]) == 96
    assert len(compared[0]) == 64
    assert not any(np.array_equal(one, other) for one in seen[0] for other in compared[0])


def test_the_process_ends_with_the_one_that_started_it(pictures_model, tmp_path):
    """It reads its standard input only to notice that nobody holds the other end any more."""
    job = Job(source=locate(pictures_model), others=(FLOAT, ONNX, INT8), batches=(1, 4))
    (tmp_path / "job.json").write_bytes(encode(job))
    command = [sys.executable, "-m", "node.runtimes.select.trial", str(tmp_path)]
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)
    process.stdin.close()
    assert process.wait(60) == 1
    assert not (tmp_path / "result.json").exists()
