"""Trying the ways to run a model, in a process of its own: convert, compare with the original, time.

TensorFlow and the converters need seconds and hundreds of megabytes, which the process that serves shall not keep:
``supervise`` starts this one, reads its result and loads nothing but what was chosen. It works at low priority, for
the node may be serving another version, and ends with the node. What it is doing stands in a file, so that a converter
that takes the process down with it is known by name.
"""

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from node.errors import ModelError, NodeError
from node.models import ModelSource, preprocessing
from node.runtimes.base import Runtime, Signature
from node.runtimes.convert import to_litert, to_onnx
from node.runtimes.engines import open_as_it_is, open_file, open_lanes, own_engine
from node.runtimes.pieces import Lanes
from node.runtimes.reasons import summary
from node.runtimes.select import timing
from node.runtimes.select.agreement import Agreement, compare, joined, objection
from node.runtimes.select.choosing import Candidate, Trial, better, way
from node.runtimes.select.jobs import DOING, JOB, RESULT, Job, Result, decode, encode, file_of
from node.runtimes.select.samples import Samples, gather
from node.runtimes.tensorflow import Frozen, freeze, tensorflow
from node.tensors import Tensors, rows
from registry.timing import Clock, SystemClock

Run = Callable[[Tensors], Tensors]

_SEED = 7
_NICENESS = 10
# Items to compare at once: small enough for the memory, large enough to be quick.
_AT_ONCE = 8
# Seconds the original may take for its outputs; a slow model is compared on fewer items.
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class _Original:
    """The model in its own format; ``frozen`` where there is something to convert."""

    candidate: Candidate
    signature: Signature
    run: Run
    frozen: Frozen | None
    lanes: Lanes | None = None


@dataclass(frozen=True, slots=True)
class _Fit:
    """A candidate that says what the original says."""

    candidate: Candidate
    run: Run
    agreement: Agreement | None = None
    lanes: Lanes | None = None


def attempt(job: Job, folder: Path, clock: Clock) -> Result:
    """Try the original and the others, and leave the converted files in ``folder``. Raises ``NodeError``."""
    original = _original(job.source)
    samples = gather(
        original.signature,
        preprocessing(job.source, original.signature),
        job.samples,
        np.random.default_rng(_SEED),
    )
    inputs = _as_many_as_time_allows(original.run, samples.inputs, clock)
    reference = _outputs(original.run, inputs)
    fit = [_Fit(original.candidate, original.run, lanes=original.lanes)]
    unfit = []
    for candidate in job.others:
        (folder / DOING).write_text(str(candidate))
        try:
            runtime, file = _converted(candidate, original, samples, folder)
            agreement = compare(reference, _outputs(runtime.run, inputs))
        except Exception as error:  # noqa: BLE001 - converters raise whatever they run into; the others go on
            unfit.append(Trial(candidate=candidate, reason=f"it cannot be converted: {summary(error)}"))
            continue
        if reason := objection(agreement, candidate.quantize):
            unfit.append(Trial(candidate=candidate, agreement=agreement, reason=reason))
        else:
            lanes = open_lanes(candidate.runtime, file, runtime)
            fit.append(_Fit(candidate, runtime.run, agreement, lanes))
    (folder / DOING).unlink(missing_ok=True)
    timed = _timed(fit, inputs, job.batches, clock)
    return Result(trials=(*timed, *unfit), samples=samples.words, pictures=samples.pictures)


def _original(source: ModelSource) -> _Original:
    candidate = Candidate(own_engine(source.kind))
    if candidate.runtime != "tensorflow":
        runtime = open_as_it_is(source)
        lanes = open_lanes(candidate.runtime, source.path, runtime)
        return _Original(candidate, runtime.signature, runtime.run, None, lanes)
    model = freeze(source.path, source.kind)
    constant = tensorflow()[0].constant

    def run(inputs: Tensors) -> Tensors:
        answer = model.function(*(constant(inputs[spec.name]) for spec in model.signature.inputs))
        return {spec.name: each.numpy() for spec, each in zip(model.signature.outputs, answer, strict=True)}

    return _Original(candidate, model.signature, run, model)


def _converted(candidate: Candidate, original: _Original, samples: Samples, folder: Path) -> tuple[Runtime, Path]:
    if original.frozen is None:
        raise ModelError(f"there is no way from {original.candidate} to {candidate}")
    if candidate.runtime == "litert":
        content = to_litert(original.frozen, samples.calibration if candidate.quantize else None)
    else:
        content = to_onnx(original.frozen)
    file = folder / file_of(candidate)
    file.write_bytes(content)
    runtime = open_file(candidate.runtime, file)
    if runtime.signature != original.signature:
        raise ModelError("its inputs and outputs do not survive")
    return runtime, file


def _as_many_as_time_allows(run: Run, inputs: Tensors, clock: Clock) -> Tensors:
    seconds = timing.in_turns([run], inputs, [1], clock)[0][1] / 1e3
    return timing.batch(inputs, min(rows(inputs), max(_AT_ONCE, int(_PATIENCE / max(seconds, 1e-6)))))


def _outputs(run: Run, inputs: Tensors) -> Tensors:
    return joined(
        [
            run({name: array[start : start + _AT_ONCE] for name, array in inputs.items()})
            for start in range(0, rows(inputs), _AT_ONCE)
        ]
    )


def _timed(fit: list[_Fit], inputs: Tensors, batches: tuple[int, ...], clock: Clock) -> list[Trial]:
    """Time each, and give it its best way."""
    sizes = sorted({*timing.powers_of_two(max(batches)), *batches})
    runs = [run for each in fit for run in (each.run, *([each.lanes.run] if each.lanes else []))]
    found = iter(timing.in_turns(runs, inputs, sizes, clock))
    trials = []
    for each in fit:
        best = way(next(found), batches)
        if each.lanes is not None:
            best = better(best, way(next(found), batches, each.lanes.count))
        trials.append(
            Trial(candidate=each.candidate, ms=best.ms, piece=best.piece, lanes=best.lanes, agreement=each.agreement)
        )
    return trials


def main(folder: Path) -> None:
    """Do the job that lies in ``folder`` and leave the result there; what goes wrong is one line on standard error."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    os.nice(_NICENESS)
    job = decode((folder / JOB).read_bytes(), Job)
    try:
        result = attempt(job, folder, SystemClock())
    except NodeError as error:
        sys.exit(str(error))
    (folder / RESULT).write_bytes(encode(result))


def _end_with_the_parent() -> None:
    """Standard input is a pipe that the parent never writes to; it ends when the parent does, however that comes."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
