"""``twostep simulate``: policies on fleets that are described, in virtual time; a table, JSON, an SVG."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from smartclient.errors import BadOption
from smartclient.policies.select import DEFAULT
from smartclient.simulation import chart, described, runs
from smartclient.simulation.oracle import NAME as ORACLE
from smartclient.simulation.result import Result
from smartclient.simulation.scenario import Scenario

ROW = "  {:<24} {:>10} {:>10} {:>10} {:>8} {:>8} {:>12}"


@click.command()
@click.option(
    "--scenario", "wanted", multiple=True, default=["many-clients"], show_default=True, metavar="NAME|FILE.toml|all",
    help="The fleet and its clients; several are allowed.",
)  # fmt: skip
@click.option(
    "--policy", "policies", multiple=True, default=["all"], show_default=True, metavar="NAME|all",
    help="How nodes are chosen; several are allowed. 'oracle' knows every queue.",
)  # fmt: skip
@click.option("--requests", type=click.IntRange(1, 100_000_000), help="How many; default: what the scenario says.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same requests to every policy.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--svg", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Draw the p99s there.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes; default: one for each core.")
def simulate(
    *,
    wanted: tuple[str, ...],
    policies: tuple[str, ...],
    requests: int | None,
    seed: int,
    as_json: bool,
    svg: Path | None,
    jobs: int | None,
) -> None:
    """Try policies on a fleet in virtual time: the client's own balancers, nodes with queues and faults.

    Prints what calls took (one that fails counts as its whole deadline), how many failed, and the busiest node's share
    over its fair share. docs/policies.md says what the scenarios are and how a file describes one.

    \b
    Example:
      twostep simulate --scenario many-clients
      twostep simulate --scenario all --policy all --svg policies.svg
      twostep simulate --scenario fleet.toml --policy rotation --policy probed --json
    """
    scenarios = described.scenarios(wanted)
    names = described.policies(policies)
    if requests is not None:
        scenarios = [msgspec.structs.replace(scenario, requests=requests) for scenario in scenarios]
    if svg is not None and not svg.parent.is_dir():
        raise BadOption(f"{svg}: no such folder")
    work = [runs.Run(scenario, policy, seed) for scenario in scenarios for policy in names]
    with _progress(len(work)) as advance:
        results = runs.run_all(work, jobs=jobs or runs.cores(), done=advance)
    if svg is not None:
        try:
            svg.write_text(chart.draw(results, DEFAULT), encoding="utf-8")
        except OSError as error:
            raise BadOption(f"{svg}: {error.strerror or error}") from error
    if as_json:
        click.echo(json.dumps({"scenarios": msgspec.to_builtins(results), "default": DEFAULT}))
    else:
        click.echo("\n\n".join(table(scenario, results[scenario.name]) for scenario in scenarios))


def table(scenario: Scenario, results: Mapping[str, Result]) -> str:
    """One scenario's results as lines for people."""
    oracle = results.get(ORACLE)
    lines = [
        f"{scenario.name}: {scenario.about or 'as described'} ({scenario.requests:,} requests)",
        ROW.format("policy", "p50 ms", "p99 ms", "p99.9 ms", "errors", "spread", "p99 / oracle"),
    ]
    for policy, each in results.items():
        name = f"{policy} (default)" if policy == DEFAULT else policy
        times = (f"{value:,.1f}" for value in (each.p50_ms, each.p99_ms, each.p999_ms))
        ratio = f"{each.p99_ms / oracle.p99_ms:.2f}" if oracle else "-"
        lines.append(ROW.format(name, *times, f"{each.errors:,}", f"{each.spread:.2f}", ratio))
    return "\n".join(lines)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere; yields what moves it on."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("Simulating", total=total)
        yield lambda: progress.advance(task)
