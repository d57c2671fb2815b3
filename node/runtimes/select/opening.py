"""Opening a model: in its own format, converted to what was asked for, or as whatever measures best.

``auto`` tries every engine that is installed, in a process of its own, and serves the fastest that says what the
original says (``agreement``, ``choosing``); the choice is kept beside the model (``cache``) for the next start on a
machine like this one. What is asked for by name is converted where that is needed and refused where it disagrees.
A trial that fails costs ``auto`` nothing but the gain: the model is then served as it is.
"""

import logging
import tempfile
import threading
from pathlib import Path

import msgspec

from node.errors import ModelError
from node.models import ModelSource
from node.runtimes.base import Runtime
from node.runtimes.engines import CONVERTED_TO, missing, open_as_it_is, open_file, open_lanes, own_engine
from node.runtimes.pieces import Around, Pieces
from node.runtimes.select.cache import FOLDER, Cache, key, user_folder
from node.runtimes.select.choosing import Candidate, ChoiceReport, Trial, choose
from node.runtimes.select.facts import facts, home
from node.runtimes.select.jobs import Job, file_of
from node.runtimes.select.supervise import try_all
from registry.timing import Clock, SystemClock

log = logging.getLogger(__name__)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve a model with: an engine's name, ``auto``, or nothing for the engine of the model's own format.

    ``quantize``: ``int8`` or nothing. ``batches`` are the sizes to be quick at; ``samples`` is a folder of pictures to
    compare and calibrate on (None: ``samples`` beside the model's versions, else noise).
    """

    runtime: str = ""
    quantize: str = ""
    batches: tuple[int, ...] = (1, 8, 32)
    samples: Path | None = None


class Selected(Around):
    """The runtime that was chosen, and why."""

    def __init__(self, runtime: Runtime, report: ChoiceReport) -> None:
        super().__init__(runtime)
        self.report = report

    def snapshot(self) -> dict[str, object]:
        """See ``Runtime``; ``selection`` is the report, ``quantize`` what the weights have become."""
        return {
            **super().snapshot(),
            "quantize": self.report.chosen.quantize,
            "selection": msgspec.to_builtins(self.report),
        }


def open_runtime(
    source: ModelSource, choice: Choice, *, clock: Clock | None = None, stop: threading.Event | None = None
) -> Runtime:
    """Load a model with the engine that was asked for; takes seconds, or minutes where conversions are tried.

    ``stop``, set from another thread, ends the waiting for them with an error. Raises ``ModelError`` and
    ``MissingExtra``.
    """
    if choice.samples is not None and not choice.samples.is_dir():
        raise ModelError(f"there is no folder {choice.samples} to take sample pictures from")
    wanted = candidates(source, choice)
    lacking = {each: lack for each in wanted if (lack := missing(each.runtime))}
    if choice.runtime != "auto" and lacking:
        raise lacking[wanted[0]]
    absent = [Trial(candidate=each, reason=str(lack)) for each, lack in lacking.items()]
    for each in absent:
        log.info("%s", each)
    others = [each for each in wanted if each not in lacking]
    if not others and (choice.runtime != "auto" or own_engine(source.kind) not in CONVERTED_TO):
        return open_as_it_is(source)
    stop = stop or threading.Event()
    try:
        return _selected(source, choice, others, absent, clock=clock or SystemClock(), stop=stop)
    except (ModelError, OSError) as error:  # such as a disk without room for the trial
        if choice.runtime != "auto" or stop.is_set():
            raise ModelError(str(error)) from error
        log.warning("%s is served as it is: %s", source.path, error)
        return open_as_it_is(source)


def candidates(source: ModelSource, choice: Choice) -> list[Candidate]:
    """Return the conversions to try, nothing where the model is served as it is.

    Raises ``ModelError`` for what cannot be: one engine's format on another, int8 of what is no TensorFlow model.
    """
    own = own_engine(source.kind)
    runtime = choice.runtime or own
    convertible = own == "tensorflow"
    if choice.quantize and (not convertible or runtime not in ("litert", "auto")):
        if convertible:
            raise ModelError(f"{choice.quantize} is for LiteRT; add --runtime litert, or auto")
        raise ModelError(f"{source.path} cannot be quantized here; do it where it is made, or leave --quantize out")
    if runtime == "auto":
        found = [Candidate("litert"), Candidate("onnx")] if convertible else []
        return [*found, Candidate("litert", choice.quantize)] if choice.quantize else found
    if runtime == own:
        return []
    if convertible and runtime in CONVERTED_TO:
        return [Candidate(runtime, choice.quantize)]
    raise ModelError(f"{source.path} cannot be served by {runtime}; leave --runtime out to serve it by {own}")


def _selected(
    source: ModelSource,
    choice: Choice,
    others: list[Candidate],
    absent: list[Trial],
    *,
    clock: Clock,
    stop: threading.Event,
) -> Runtime:
    above = home(source)
    samples = choice.samples or (above / "samples" if above else None)
    cache = Cache([*([above / FOLDER] if above else []), user_folder()])
    asked = (choice.runtime, choice.quantize, choice.batches)
    name = key({"asked": asked, **facts(source, samples)})
    if found := cache.find(name):
        report, file = found
        try:
            selected = _open(source, report, file)
        except ModelError as error:
            log.warning("what was chosen for %s earlier cannot be used: %s", source.path, error)
        else:
            log.info("%s: %s, as was found out earlier", source.path, report.trial(report.chosen))
            return selected
    with tempfile.TemporaryDirectory(prefix="twostep-") as made:
        folder = Path(made)
        job = Job(source=source, others=tuple(others), batches=choice.batches, samples=samples)
        result = try_all(job, folder, clock, stop)
        forced = None if choice.runtime == "auto" else others[0]
        trials = result.trials
        chosen = _asked_for(source, trials, forced) if forced else choose(trials)
        report = ChoiceReport(chosen=chosen, trials=(*trials, *absent), samples=result.samples)
        _tell(source, report)
        if choice.quantize and not result.pictures:
            log.warning("%s was calibrated on %s: real pictures in a folder do better", source.path, result.samples)
        file = None if chosen == trials[0].candidate else folder / file_of(chosen)
        selected = _open(source, report, file)
        cache.keep(name, report, file)
        return selected


def _asked_for(source: ModelSource, trials: tuple[Trial, ...], wanted: Candidate) -> Candidate:
    trial = next(each for each in trials if each.candidate == wanted)
    if not trial.reason:
        return wanted
    step = (
        "leave --quantize out to serve it in float" if wanted.quantize else "leave --runtime out to serve it as it is"
    )
    raise ModelError(f"{source.path} cannot be served as {trial}; {step}")


def _open(source: ModelSource, report: ChoiceReport, file: Path | None) -> Selected:
    engine, trial = report.chosen.runtime, report.trial(report.chosen)
    runtime = open_as_it_is(source) if file is None else open_file(engine, file)
    if trial.lanes:
        runtime = open_lanes(engine, file or source.path, runtime, trial.piece) or runtime
    elif trial.piece:
        runtime = Pieces(runtime, trial.piece)
    return Selected(runtime, report)


def _tell(source: ModelSource, report: ChoiceReport) -> None:
    log.info("%s: %s is chosen of %d, tried on %s", source.path, report.chosen, len(report.trials), report.samples)
    for trial in report.trials:
        log.log(logging.WARNING if trial.reason and trial.candidate.quantize else logging.INFO, "  %s", trial)
