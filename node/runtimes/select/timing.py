"""How long batches take: the quickest of a few runs each, in milliseconds, bounded in time for models that are slow.

The quickest, not the typical one: whatever else the machine does can only add to a run, and a node may be serving
while this is measured. Candidates take turns, so that what else there is meets them all alike.
"""

from collections.abc import Callable, Sequence

import numpy as np

from node.tensors import Tensors, rows
from registry.timing import Clock

Run = Callable[[Tensors], object]

_RUNS = 5
_ROUNDS = 7
# Seconds after which one size, and all rounds together, have been tried enough.
_ENOUGH = 1.0
_ENOUGH_ROUNDS = 20.0
# Seconds: what takes longer is no batch that a node would make, so larger ones are not tried.
_TOO_LONG = 1.0


def powers_of_two(largest: int) -> list[int]:
    """Return 1, 2, 4 and so on, and ``largest`` itself."""
    return sorted({1 << power for power in range(largest.bit_length())} | {largest})


def batch(inputs: Tensors, size: int) -> Tensors:
    """Return ``size`` of the items, in turn."""
    chosen = np.arange(size) % rows(inputs)
    return {name: np.ascontiguousarray(array[chosen]) for name, array in inputs.items()}


def by_size(run: Run, inputs: Tensors, sizes: Sequence[int], clock: Clock) -> dict[int, float]:
    """Return milliseconds for each size, the smallest first; those after one that takes too long are left out."""
    found: dict[int, float] = {}
    for size in sizes:
        items = batch(inputs, size)
        _seconds(run, items, clock)  # the first run of a size allocates
        taken: list[float] = []
        while len(taken) < _RUNS and sum(taken) < _ENOUGH:
            taken.append(_seconds(run, items, clock))
        found[size] = _ms(taken)
        if found[size] > _TOO_LONG * 1e3:
            break
    return found


def in_turns(
    runs: Sequence[Run], inputs: Tensors, sizes: Sequence[Sequence[int]], clock: Clock
) -> list[dict[int, float]]:
    """Return milliseconds by size for each of several, each with sizes of its own."""
    taken: list[dict[int, list[float]]] = [{size: [] for size in mine} for mine in sizes]
    batches = {size: batch(inputs, size) for mine in sizes for size in mine}
    started = clock.monotonic()
    for _ in range(_ROUNDS):
        for run, mine in zip(runs, taken, strict=True):
            for size, seconds in mine.items():
                seconds.append(_seconds(run, batches[size], clock))
        if clock.monotonic() - started > _ENOUGH_ROUNDS:
            break
    return [{size: _ms(seconds) for size, seconds in mine.items()} for mine in taken]


def _ms(seconds: list[float]) -> float:
    return round(min(seconds) * 1e3, 3)


def _seconds(run: Run, items: Tensors, clock: Clock) -> float:
    started = clock.monotonic()
    run(items)
    return clock.monotonic() - started
