"""Opening a model with what was asked for, the whole way: trial, choice, cache, and what serves in the end."""

import importlib.metadata
import logging
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest

from node.errors import MissingExtra, ModelError
from node.models import ModelSource, digest, locate
from node.runtimes.convert import to_litert
from node.runtimes.select import Candidate, Choice, Trial, open_runtime, opening
from node.runtimes.select.agreement import Agreement
from node.runtimes.select.jobs import Result, file_of
from node.runtimes.select.opening import candidates

pytestmark = [
    pytest.mark.tensorflow,
    # Keras, TensorFlow and the converter warn of each other's ageing calls.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

TENSORFLOW, LITERT, INT8, ONNX = (
    Candidate("tensorflow"),
    Candidate("litert"),
    Candidate("litert", "int8"),
    Candidate("onnx"),
)


def source(kind, path="model"):
    return ModelSource(path=Path(path), kind=kind, name="any", version="1")


@pytest.fixture(autouse=True)
def users_cache(tmp_path, monkeypatch):
    """The user's cache, a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user" / "twostep" / "runtimes"


@pytest.fixture
def model(pictures_model, tmp_path):
    """A model folder with one version, as ``locate`` finds it."""
    version = tmp_path / "shades" / "1"
    version.mkdir(parents=True)
    (version / "model.keras").write_bytes(pictures_model.read_bytes())
    return locate(tmp_path / "shades")


@pytest.fixture
def scripted(frozen, monkeypatch):
    """Let a trial end with given trials, and count how many there were; every converted file is the model in LiteRT."""
    jobs = []
    content = to_litert(frozen["pictures"])

    def make(*trials):
        def try_all(job, folder, clock, stop):
            jobs.append(job)
            for candidate in job.others:
                (folder / file_of(candidate)).write_bytes(content)
            if not trials:
                raise ModelError("the machine is on fire")
            return Result(trials=trials, samples="160 items of noise", pictures=False)

        monkeypatch.setattr(opening, "try_all", try_all)
        return jobs

    return make


def timed(candidate, ms, **others):
    return Trial(candidate=candidate, ms={1: ms / 30, 8: ms / 4, 32: ms}, **others)


class TestCandidates:
    @pytest.mark.parametrize("kind", ["keras", "saved_model", "application"])
    def test_a_tensorflow_model_is_served_as_it_is_or_converted_as_asked(self, kind):
        assert candidates(source(kind), Choice()) == []
        assert candidates(source(kind), Choice(runtime="tensorflow")) == []
        assert candidates(source(kind), Choice(runtime="litert")) == [LITERT]
        assert candidates(source(kind), Choice(runtime="onnx")) == [ONNX]
        assert candidates(source(kind), Choice(runtime="litert", quantize="int8")) == [INT8]
        assert candidates(source(kind), Choice(runtime="auto")) == [LITERT, ONNX]
        assert candidates(source(kind), Choice(runtime="auto", quantize="int8")) == [LITERT, ONNX, INT8]

    @pytest.mark.parametrize("kind", ["litert", "onnx", "python"])
    def test_other_formats_have_one_engine(self, kind):
        assert candidates(source(kind), Choice()) == candidates(source(kind), Choice(runtime="auto")) == []
        assert candidates(source(kind), Choice(runtime=kind)) == []
        other = "litert" if kind == "onnx" else "onnx"
        with pytest.raises(ModelError, match=f"cannot be served by {other}; leave --runtime out"):
            candidates(source(kind), Choice(runtime=other))
        with pytest.raises(ModelError, match="leave --quantize out"):
            candidates(source(kind), Choice(runtime="auto", quantize="int8"))

    @pytest.mark.parametrize("runtime", ["", "tensorflow", "onnx"])
    def test_int8_is_for_litert(self, runtime):
        with pytest.raises(ModelError, match="add --runtime litert, or auto"):
            candidates(source("keras"), Choice(runtime=runtime, quantize="int8"))

    def test_python_is_for_a_model_py(self):
        with pytest.raises(ModelError, match="cannot be served by python"):
            candidates(source("keras"), Choice(runtime="python"))


class TestOpening:
    def test_without_a_wish_nothing_is_tried(self, model, scripted, items):
        jobs = scripted()
        runtime = open_runtime(model, Choice())
        assert (runtime.name, jobs) == ("tensorflow", [])
        assert runtime.run(items("pictures", 2))["scores"].shape == (2, 10)

    def test_a_model_py_is_just_opened(self, scripted, tmp_path):
        (tmp_path / "model.py").write_text(
            "inputs, outputs = [('x', 'FP32', (2,))], [('y', 'FP32', (2,))]\n"
            "def load(folder): return lambda batch: batch['x']\n"
        )
        jobs = scripted()
        assert open_runtime(locate(tmp_path / "model.py"), Choice(runtime="auto")).name == "python"
        assert jobs == []

    def test_auto_serves_the_fastest_in_its_best_pieces_and_says_why(self, model, scripted, items, caplog):
        caplog.set_level(logging.INFO)
        agreement = Agreement(difference=1e-6, error=1e-7, top1=1.0, decided=50)
        rejected = Trial(candidate=INT8, agreement=agreement, reason="it disagrees: error 0.9, more than 0.3")
        scripted(timed(TENSORFLOW, 90), timed(LITERT, 40, piece=2, agreement=agreement), timed(ONNX, 50), rejected)
        runtime = open_runtime(model, Choice(runtime="auto", quantize="int8"))
        assert runtime.name == "litert"
        assert runtime.run(items("pictures", 7))["scores"].shape == (7, 10)
        snapshot = runtime.snapshot()
        assert (snapshot["piece"], snapshot["quantize"]) == (2, "")
        assert snapshot["selection"]["chosen"] == {"runtime": "litert", "quantize": ""}
        assert len(snapshot["selection"]["trials"]) == 4
        assert not snapshot["selection"]["cached"]
        assert msgspec.json.encode(snapshot)
        assert "litert is chosen of 4, tried on 160 items of noise" in caplog.text
        for line in ("tensorflow: batch of 1: 3.00 ms", "onnx: batch of 1", "litert int8: largest difference 1e-06"):
            assert line in caplog.text

    def test_the_next_start_finds_the_choice_beside_the_versions(self, model, scripted, items, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        before = digest(model.path.parent)
        jobs = scripted(timed(TENSORFLOW, 90), timed(LITERT, 40, piece=2), timed(ONNX, 50))
        first = open_runtime(model, Choice(runtime="auto"))
        second = open_runtime(model, Choice(runtime="auto"))
        assert len(jobs) == 1
        assert second.snapshot()["selection"] == first.snapshot()["selection"] | {"cached": True}
        assert "as was found out earlier" in caplog.text
        assert {each.name for each in (tmp_path / "shades").iterdir()} == {"1", ".runtimes"}
        assert digest(model.path.parent) == before  # a version's own folder stays as it was published
        assert np.array_equal(*(each.run(items("pictures", 3))["scores"] for each in (first, second)))

    @pytest.mark.parametrize("cores", [1, 2])
    def test_lanes_are_served_where_there_are_cores_for_them(self, cores, model, scripted, items, monkeypatch):
        monkeypatch.setattr("node.runtimes.engines.cores", lambda: cores)
        scripted(timed(TENSORFLOW, 90), timed(LITERT, 40, piece=1, lanes=2), timed(ONNX, 50))
        runtime = open_runtime(model, Choice(runtime="auto"))
        assert runtime.snapshot().get("lanes", 1) == cores
        seven = items("pictures", 7)
        scores = runtime.run(seven)["scores"]
        alone = [runtime.run({"image": seven["image"][n : n + 1]})["scores"] for n in range(7)]
        assert np.abs(scores - np.concatenate(alone)).max() < 1e-6
        runtime.close()

    def test_a_folder_that_is_mounted_elsewhere_brings_its_choice_along(self, model, scripted, tmp_path):
        (tmp_path / "shades" / "samples").mkdir()
        (tmp_path / "shades" / "samples" / "one.png").write_bytes(b"a picture")
        jobs = scripted(timed(TENSORFLOW, 90), timed(LITERT, 40), timed(ONNX, 50))
        open_runtime(model, Choice(runtime="auto"))
        (tmp_path / "shades").rename(tmp_path / "elsewhere")
        assert open_runtime(locate(tmp_path / "elsewhere"), Choice(runtime="auto")).snapshot()["selection"]["cached"]
        assert len(jobs) == 1

    def test_samples_that_are_not_there_are_a_clear_line(self, model, tmp_path):
        with pytest.raises(ModelError, match=r"no folder .*nowhere to take sample pictures from"):
            open_runtime(model, Choice(runtime="auto", samples=tmp_path / "nowhere"))

    def test_that_the_original_is_best_is_kept_as_well(self, model, scripted):
        jobs = scripted(timed(TENSORFLOW, 30, piece=4), timed(LITERT, 40), timed(ONNX, 50))
        for _ in range(2):
            runtime = open_runtime(model, Choice(runtime="auto"))
            assert (runtime.name, runtime.snapshot()["piece"]) == ("tensorflow", 4)
        assert len(jobs) == 1

    @pytest.mark.parametrize("changed", ["model", "quantize", "batches", "samples", "package", "cores"])
    def test_a_choice_is_made_anew_when_what_it_depends_on_changes(self, model, scripted, monkeypatch, changed):
        jobs = scripted(timed(TENSORFLOW, 90), timed(LITERT, 40), timed(ONNX, 50), timed(INT8, 60))
        open_runtime(model, Choice(runtime="auto"))
        choice = Choice(runtime="auto")
        if changed == "model":
            model.path.write_bytes(model.path.read_bytes() + b"\0")
        elif changed == "quantize":
            choice = Choice(runtime="auto", quantize="int8")
        elif changed == "batches":
            choice = Choice(runtime="auto", batches=(1, 16))
        elif changed == "samples":
            folder = model.path.parent.parent / "samples"
            folder.mkdir()
            (folder / "one.png").write_bytes(b"a picture")
        elif changed == "package":
            real = importlib.metadata.version
            monkeypatch.setattr("importlib.metadata.version", lambda name: f"{real(name)}.1")
        else:
            monkeypatch.setattr("node.runtimes.select.facts.cores", lambda: 77)
        open_runtime(model, choice)
        assert len(jobs) == 2

    def test_a_kept_file_that_cannot_be_loaded_is_made_anew(self, model, scripted, monkeypatch):
        jobs = scripted(timed(TENSORFLOW, 90), timed(LITERT, 40), timed(ONNX, 50))
        open_runtime(model, Choice(runtime="auto"))
        real = opening.open_file
        failures = [ModelError("of another version")]

        def once(*arguments):
            if failures:
                raise failures.pop()
            return real(*arguments)

        monkeypatch.setattr(opening, "open_file", once)
        assert open_runtime(model, Choice(runtime="auto")).name == "litert"
        assert len(jobs) == 2

    def test_what_is_on_no_disk_is_kept_in_the_users_cache(self, scripted, users_cache):
        application = locate("keras:MobileNetV2?weights=none&size=32&classes=10")
        jobs = scripted(timed(TENSORFLOW, 90), timed(LITERT, 40), timed(ONNX, 50))
        for _ in range(2):
            assert open_runtime(application, Choice(runtime="auto")).name == "litert"
        assert len(jobs) == 1
        assert len(list(users_cache.iterdir())) == 1

    def test_a_trial_that_fails_costs_auto_only_the_gain(self, model, scripted, items, caplog):
        scripted()
        runtime = open_runtime(model, Choice(runtime="auto"))
        assert runtime.name == "tensorflow"
        assert runtime.run(items("pictures", 1))["scores"].shape == (1, 10)
        assert "is served as it is: the machine is on fire" in caplog.text
        with pytest.raises(ModelError, match="on fire"):
            open_runtime(model, Choice(runtime="litert"))

    def test_a_disk_without_room_for_a_trial_costs_auto_only_the_gain(self, model, scripted, monkeypatch, tmp_path):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
        jobs = scripted(timed(TENSORFLOW, 90), timed(LITERT, 40), timed(ONNX, 50))
        assert open_runtime(model, Choice(runtime="auto")).name == "tensorflow"
        with pytest.raises(ModelError, match="nowhere"):
            open_runtime(model, Choice(runtime="litert"))
        assert jobs == []

    def test_a_node_that_stops_meanwhile_loads_nothing_more(self, model, scripted):
        scripted()
        stop = threading.Event()
        stop.set()
        with pytest.raises(ModelError):
            open_runtime(model, Choice(runtime="auto"), stop=stop)

    def test_what_was_asked_for_is_served_even_where_it_is_slower(self, model, scripted):
        scripted(timed(TENSORFLOW, 30), timed(LITERT, 40))
        assert open_runtime(model, Choice(runtime="litert")).name == "litert"

    def test_what_was_asked_for_and_disagrees_is_refused_with_the_next_step(self, model, scripted, users_cache):
        agreement = Agreement(difference=0.9, error=0.5, top1=0.4, decided=50)
        reason = "it disagrees: error 0.5, more than 0.3"
        jobs = scripted(timed(TENSORFLOW, 30), Trial(candidate=INT8, agreement=agreement, reason=reason))
        with pytest.raises(ModelError) as refusal:
            open_runtime(model, Choice(runtime="litert", quantize="int8"))
        assert "best class the same in 20 of 50" in str(refusal.value)
        assert reason in str(refusal.value)
        assert str(refusal.value).endswith("leave --quantize out to serve it in float")
        with pytest.raises(ModelError):
            open_runtime(model, Choice(runtime="litert", quantize="int8"))
        assert len(jobs) == 2  # a refusal is not kept

    def test_int8_without_pictures_is_warned_of(self, model, scripted, caplog):
        scripted(timed(TENSORFLOW, 30), timed(INT8, 10))
        open_runtime(model, Choice(runtime="litert", quantize="int8"))
        assert "was calibrated on 160 items of noise" in caplog.text

    def test_engines_that_are_not_installed_are_listed_and_not_tried(self, model, scripted, monkeypatch, caplog):
        caplog.set_level(logging.INFO)
        absent = {"onnx": MissingExtra("onnxruntime", "onnx")}
        monkeypatch.setattr(opening, "missing", absent.get)
        jobs = scripted(timed(TENSORFLOW, 90), timed(LITERT, 40))
        runtime = open_runtime(model, Choice(runtime="auto"))
        assert jobs[0].others == (LITERT,)
        line = "onnxruntime is not installed; run: pip install 'twostep[onnx]'"
        assert runtime.snapshot()["selection"]["trials"][-1]["reason"] == line
        assert f"onnx: {line}" in caplog.text
        with pytest.raises(MissingExtra, match="onnxruntime"):
            open_runtime(model, Choice(runtime="onnx"))
        absent["litert"] = MissingExtra("ai_edge_litert", "litert")
        assert open_runtime(model, Choice(runtime="auto")).name == "tensorflow"
        assert len(jobs) == 1

    def test_auto_finds_the_best_pieces_for_a_file_that_has_one_engine(self, frozen, scripted, items, tmp_path):
        path = tmp_path / "given.tflite"
        path.write_bytes(to_litert(frozen["pictures"]))
        scripted(timed(LITERT, 40, piece=4))
        runtime = open_runtime(locate(path), Choice(runtime="auto"))
        assert runtime.snapshot()["piece"] == 4
        assert runtime.run(items("pictures", 6))["scores"].shape == (6, 10)


def test_the_process_that_serves_never_loads_tensorflow(model, frozen, answer, items):
    """The real trial in its real process, twice: the second start takes what the first has kept."""
    code = """
import logging, sys
from pathlib import Path
import numpy as np
from node.models import locate
from node.runtimes.select import Choice, open_runtime
runtime = open_runtime(locate(Path(sys.argv[1])), Choice(runtime="litert", batches=(1, 8)))
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
np.save(sys.argv[2], runtime.run({"image": np.load(sys.argv[2])})["scores"])
print(runtime.snapshot()["selection"]["cached"])
"""
    arrays = model.path.parent.parent / "arrays.npy"
    for cached in ("False", "True"):
        np.save(arrays, items("pictures", 5)["image"])
        command = [sys.executable, "-c", code, str(model.path.parent.parent), str(arrays)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{cached}\n", "")
        assert np.abs(np.load(arrays) - answer(frozen["pictures"], items("pictures", 5))["scores"]).max() < 1e-5


def test_int8_that_disagrees_is_refused_by_the_real_trial_too(pairs_model):
    with pytest.raises(ModelError, match=r"litert int8: .* it disagrees: .*; leave --quantize out"):
        open_runtime(locate(pairs_model), Choice(runtime="litert", quantize="int8", batches=(1,)))
