"""How long batches take: the quickest of several runs, in milliseconds, bounded in time for models that are slow.

The quickest, not the typical one: whatever else the machine does can only add to a run, and a node may be serving
while this is measured. Those that are compared take turns, until a few rounds have brought nothing quicker.
"""

from collections.abc import Callable, Sequence

import numpy as np

from node.tensors import Tensors, rows
from registry.timing import Clock

Run = Callable[[Tensors], object]

# Rounds without a run that is quicker by this part, after which the quickest have been found.
_CALM_ROUNDS = 3
_QUICKER = 0.02
# Seconds after which it is enough in any case.
_ENOUGH = 20.0
# Seconds: what takes longer is no batch that a node would make, so larger ones are not tried.
_TOO_LONG = 1.0


def powers_of_two(largest: int) -> list[int]:
    """Return 1, 2, 4 and so on, and ``largest`` itself."""
    return sorted({1 << power for power in range(largest.bit_length())} | {largest})


def batch(inputs: Tensors, size: int) -> Tensors:
    """Return ``size`` of the items, in turn."""
    chosen = np.arange(size) % rows(inputs)
    return {name: np.ascontiguousarray(array[chosen]) for name, array in inputs.items()}


def in_turns(runs: Sequence[Run], inputs: Tensors, sizes: Sequence[int], clock: Clock) -> list[dict[int, float]]:
    """Return milliseconds by size for each of several; for a slow one only up to the first size that takes too long."""
    batches = {size: batch(inputs, size) for size in sorted(sizes)}
    started = clock.monotonic()
    found = [_first(run, batches, clock) for run in runs]
    calm = 0
    while calm < _CALM_ROUNDS and clock.monotonic() - started < _ENOUGH:
        calm += 1
        for run, best in zip(runs, found, strict=True):
            for size, before in best.items():
                ms = _ms(run, batches[size], clock)
                best[size] = min(before, ms)
                if ms < before * (1 - _QUICKER):
                    calm = 0
    return found


def _first(run: Run, batches: dict[int, Tensors], clock: Clock) -> dict[int, float]:
    found = {}
    for size, items in batches.items():
        run(items)  # the first run of a size allocates
        found[size] = _ms(run, items, clock)
        if found[size] > _TOO_LONG * 1e3:
            break
    return found


def _ms(run: Run, items: Tensors, clock: Clock) -> float:
    started = clock.monotonic()
    run(items)
    return round((clock.monotonic() - started) * 1e3, 3)
