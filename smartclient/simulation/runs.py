"""All policies in all scenarios, on as many cores as there are: each run is a process's own, and always the same."""

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence

import msgspec

from smartclient.policies.select import named
from smartclient.simulation.result import Result
from smartclient.simulation.scenario import Scenario
from smartclient.simulation.world import simulate

Results = dict[str, dict[str, Result]]


class Run(msgspec.Struct, frozen=True):
    """One policy in one scenario."""

    scenario: Scenario
    policy: str
    seed: int

    def result(self) -> Result:
        """Make it."""
        return simulate(self.scenario, self.policy, named, seed=self.seed)


def run_all(runs: Sequence[Run], *, jobs: int, done: Callable[[], None]) -> Results:
    """Return results by scenario and policy, in the order of ``runs``; ``done`` is called after each run.

    Interrupted, it ends its processes and passes the interrupt on.
    """
    results: Results = {}
    for run in runs:
        results.setdefault(run.scenario.name, {})
    found: dict[int, Result] = {}
    jobs = min(jobs, len(runs))
    if jobs <= 1:
        _quiet()
        for number, run in enumerate(runs):
            found[number] = run.result()
            done()
    else:
        # Not forked: a fork of a process with threads (a progress bar's) may inherit a lock that nobody will release.
        with multiprocessing.get_context("spawn").Pool(jobs, _start) as pool:
            for number, result in pool.imap_unordered(_one, enumerate(runs)):
                found[number] = result
                done()
    for number, run in enumerate(runs):
        results[run.scenario.name][run.policy] = found[number]
    return results


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _one(numbered: tuple[int, Run]) -> tuple[int, Result]:
    number, run = numbered
    return number, run.result()


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its children
    _quiet()


def _quiet() -> None:
    """Simulated nodes fail on purpose and by the thousand; nobody wants to read of each."""
    logging.getLogger("smartclient").setLevel(logging.ERROR)
