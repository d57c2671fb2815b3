"""A folder of pictures, one sub-folder for each class, as batches of pixels. Knows nothing of TensorFlow.

Pictures are decoded by ``images.decode``, the very function that serves, in threads and a few batches ahead: only those
are in memory, however many pictures there are. What cannot be decoded is found before training starts.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from node.errors import BadImage, TooLarge, TrainingError
from node.images import decode
from node.machine import cores
from node.preprocessing import Pixels, Preprocessing

T = TypeVar("T")
R = TypeVar("R")

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


@dataclass(frozen=True, slots=True)
class Example:
    """One picture and the number of its class."""

    path: Path
    label: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A picture that is left out, and why."""

    path: Path
    why: str


def scan(folder: Path) -> tuple[tuple[str, ...], list[Example]]:
    """Return the classes (names of the sub-folders, sorted) and their pictures. Raises ``TrainingError``."""
    if not folder.is_dir():
        raise TrainingError(f"there is no folder {folder}; give one with a sub-folder of images for each class")
    classes = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    examples = [
        Example(path, number)
        for number, each in enumerate(classes)
        for path in sorted(each.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    if not examples:
        kinds = ", ".join(SUFFIXES)
        raise TrainingError(f"{folder} has no images in sub-folders; put those of each class ({kinds}) into one")
    if len(classes) < 2:
        raise TrainingError(f"{folder} has one class only ({classes[0].name}); telling apart takes two sub-folders")
    return tuple(each.name for each in classes), examples


def readable(
    examples: Sequence[Example], wanted: Preprocessing, tell: Callable[[int], None]
) -> tuple[list[Example], list[Skipped]]:
    """Decode every picture once and sort out what cannot be; ``tell`` gets the number done so far."""
    good: list[Example] = []
    bad: list[Skipped] = []

    def check(example: Example) -> str:
        try:
            decode(example.path.read_bytes(), wanted)
        except (BadImage, TooLarge, OSError) as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(cores()) as pool:
        for done, (example, why) in enumerate(zip(examples, _ahead(pool, check, examples), strict=True), 1):
            if why:
                bad.append(Skipped(example.path, why))
            else:
                good.append(example)
            tell(done)
    return good, bad


def split(
    examples: Sequence[Example], classes: Sequence[str], fraction: float, rng: random.Random
) -> tuple[list[Example], list[Example]]:
    """Return (training, held out): ``fraction`` of each class is held out, one picture at the least.

    Raises ``TrainingError`` for a class with fewer than two pictures.
    """
    train: list[Example] = []
    held_out: list[Example] = []
    for number, name in enumerate(classes):
        own = [example for example in examples if example.label == number]
        if len(own) < 2:
            raise TrainingError(f"class {name} has {len(own)} readable images; it takes two at the least")
        rng.shuffle(own)
        cut = max(1, round(len(own) * fraction))
        held_out += own[:cut]
        train += own[cut:]
    return train, held_out


def batches(
    examples: Sequence[Example], wanted: Preprocessing, size: int, rng: random.Random | None = None
) -> Iterator[tuple[Pixels, NDArray[np.int64]]]:
    """Go through the pictures once, in batches, in a fresh order if there is an ``rng``."""
    order = list(examples)
    if rng is not None:
        rng.shuffle(order)

    def pixels(example: Example) -> Pixels:
        return decode(example.path.read_bytes(), wanted)

    with ThreadPoolExecutor(cores()) as pool:
        decoded = _ahead(pool, pixels, order, ahead=4 * size)
        for start in range(0, len(order), size):
            labels = [example.label for example in order[start : start + size]]
            yield np.stack(list(islice(decoded, len(labels)))), np.array(labels, np.int64)


def _ahead(pool: ThreadPoolExecutor, do: Callable[[T], R], items: Iterable[T], ahead: int = 64) -> Iterator[R]:
    """Map in order, with at most ``ahead`` results under way (``Executor.map`` would start everything at once)."""
    waiting: list[Future[R]] = []
    try:
        for item in items:
            waiting.append(pool.submit(do, item))
            if len(waiting) >= ahead:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        for future in waiting:
            future.cancel()
