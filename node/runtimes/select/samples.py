"""Inputs to try a model with: the pictures in a folder, prepared as the node prepares them, else seeded noise.

Noise for a picture is laid over several grains, from the whole picture down to a few pixels, because that is nearer to
photographs than independent pixels are, whose activations all average out. Integers are 0 or 1: what else a model
takes, nobody here knows. Strings cannot be made up.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from node.errors import ModelError, RequestError
from node.images import decode
from node.preprocessing import Preprocessing
from node.runtimes.base import Signature
from node.tensors import Array, Tensors, TensorSpec, rows

# Held in memory at once, at most; 160 items of MobileNetV2's are 96 MB.
_BYTES = 256 * 1024 * 1024
_FEWEST = 8
# What a size that is free is taken to be, in a picture and elsewhere.
_PICTURE_SIZE, _FREE_SIZE = 224, 32
_GRAINS = (1, 2, 4, 8, 16, 32, 64)
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}


@dataclass(frozen=True, slots=True)
class Samples:
    """``inputs`` to compare outputs on, others to calibrate with, and in words where both are from."""

    inputs: Tensors
    calibration: Tensors
    words: str
    pictures: bool


def gather(
    signature: Signature,
    preprocessing: Preprocessing | None,
    folder: Path | None,
    rng: np.random.Generator,
    *,
    compare: int = 64,
    calibrate: int = 96,
) -> Samples:
    """Return about ``compare`` and ``calibrate`` items; fewer where there are few pictures or they are large.

    Raises ``ModelError`` for a model of strings.
    """
    size = sum(math.prod(_sizes(spec)) * spec.dtype.itemsize for spec in signature.inputs)
    count = min(compare + calibrate, max(_FEWEST, _BYTES // max(size, 1)))
    spec = signature.picture
    if spec is not None and preprocessing is not None and folder is not None:
        pictures = _pictures(folder, preprocessing, count)
        if pictures:
            inputs = {spec.name: np.stack(pictures).astype(spec.dtype, copy=False)}
            return _split(inputs, compare / (compare + calibrate), f"{len(pictures)} pictures in {folder}", True)
    inputs = {each.name: _noise(each, preprocessing if each == spec else None, count, rng) for each in signature.inputs}
    return _split(inputs, compare / (compare + calibrate), f"{count} items of noise", False)


def pictures_in(folder: Path) -> list[Path]:
    """Return the files of a folder that look like pictures, in order."""
    return sorted(each for each in folder.rglob("*") if each.suffix.lower() in _SUFFIXES and each.is_file())


def _pictures(folder: Path, preprocessing: Preprocessing, count: int) -> list[Array]:
    """Decode ``count`` files, evenly from the whole folder, so that every class of a sorted one is there."""
    files = pictures_in(folder)
    chosen = [files[number * len(files) // count] for number in range(count)] if len(files) > count else files
    decoded = []
    for file in chosen:
        try:
            decoded.append(decode(file.read_bytes(), preprocessing))
        except (OSError, RequestError):  # a broken picture among samples is no reason to stop
            continue
    return decoded


def _noise(spec: TensorSpec, preprocessing: Preprocessing | None, count: int, rng: np.random.Generator) -> Array:
    if spec.datatype == "BYTES":
        raise ModelError(f"{spec.name} takes strings, which cannot be made up to try the model with")
    if preprocessing is not None:
        pictures = (preprocessing.arrange(_picture(preprocessing, rng)) for _ in range(count))
        return np.stack(list(pictures)).astype(spec.dtype, copy=False)
    shape = (count, *_sizes(spec))
    if spec.dtype.kind in "bui":
        return rng.integers(0, 2, shape).astype(spec.dtype)
    return rng.standard_normal(shape, np.float32).astype(spec.dtype)


def _picture(wanted: Preprocessing, rng: np.random.Generator) -> Array:
    """Return uint8 noise of several grains, from 0 to 255."""
    total = np.zeros((wanted.height, wanted.width, wanted.channels), np.float32)
    for grain in _GRAINS:
        coarse = rng.standard_normal((grain, grain, wanted.channels), np.float32)
        down, across = (
            np.arange(wanted.height) * grain // wanted.height,
            np.arange(wanted.width) * grain // wanted.width,
        )
        total += coarse[down][:, across]
    total -= total.min()
    return (total * (255 / max(float(total.max()), 1e-6))).astype(np.uint8)


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    free = _PICTURE_SIZE if len(spec.shape) == 3 else _FREE_SIZE
    return tuple(free if size is None else size for size in spec.shape)


def _split(inputs: Tensors, share: float, words: str, pictures: bool) -> Samples:
    """Keep the two apart, evenly mixed; too few to divide serve for both."""
    count = rows(inputs)
    if count < 2 * _FEWEST:
        return Samples(inputs, inputs, words, pictures)
    steps = np.floor(np.arange(count + 1) * share)
    mine = steps[1:] > steps[:-1]
    return Samples(
        {name: array[mine] for name, array in inputs.items()},
        {name: array[~mine] for name, array in inputs.items()},
        words,
        pictures,
    )
