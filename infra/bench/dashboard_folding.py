"""How long folding one list of a service into the next takes, in a process that does nothing else.

``python -m infra.bench.dashboard_folding INSTANCES CHANGES ROUNDS`` folds ``ROUNDS`` lists of a service of
``INSTANCES`` that come one after another, each ``CHANGES`` changes after the one before and decoded afresh, as they are
when a registry sent them. It prints a JSON line: ``folds`` (milliseconds each) and ``first`` (of the list before them).
"""

import json
import random
import sys
import time
from collections.abc import Mapping

from infra.bench.dashboard_fleet import Fleet
from registry.consul.codec import decode_in_steps
from registry.consul.reports import CheckReport, decode_checks
from registry.dashboard.fold import fold
from registry.dashboard.model import Service
from registry.model import Instance

SEED = 7


def main(instances: int, changes: int, rounds: int) -> dict[str, object]:
    """Measure."""
    fleet = Fleet(1, instances, random.Random(SEED))
    name = fleet.names[0]
    known: Service | None = None
    taken = []
    for number in range(rounds + 1):
        listed, checks = _read(fleet.body(name))
        began = time.perf_counter()
        known, _ = fold(known, listed, checks, name=name, index=fleet.index[name], now=float(number))
        taken.append((time.perf_counter() - began) * 1000)
        for _ in range(changes):
            fleet.change()
    return {"folds": taken[1:], "first": taken[0]}


def _read(body: bytes) -> tuple[tuple[Instance, ...], Mapping[str, tuple[CheckReport, ...]]]:
    steps = decode_in_steps([body])
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value, decode_checks(body)


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))), flush=True)
