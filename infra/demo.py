"""The main job on one machine, end to end: train if need be, a registry, nodes, images, and a node killed in between.

Every part is the real one, in a process of its own, started with the command a person would type. The demo only
supervises, asks, counts and tells.
"""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from infra.consul.agent import free_port, is_free
from infra.fleet import FleetError, LocalFleet, twostep
from infra.leash import leashed
from infra.load import Tally, choose, classify_all
from registry.dashboard.wire import PORT
from smartclient import AsyncSmartClient

SERVICE = "digits"
REGISTRIES = {"embedded": "Starting the embedded registry", "consul": "Starting a real Consul agent"}
CONCURRENCY = 8
WATCHED_SECONDS = 5.0  # how long the killed node may take to show as such: check interval and time-out with room


@dataclass(frozen=True)
class Plan:
    """What was asked for on the command line."""

    registry: str
    nodes: int
    images: int
    model: Path
    kill_one: bool
    kill_registry: bool
    stay: bool
    dashboard: bool


class Demo:
    """One run: the fleet, the words on the terminal, the numbers at the end."""

    def __init__(self, plan: Plan, images: Sequence[Path], console: Console) -> None:
        self.plan = plan
        self.images = images
        self.console = console
        self.killed: list[str] = []

    async def run(self, announce: Callable[[dict[str, Any]], None]) -> bool:
        """Do all of it; ``announce`` gets the numbers. Returns whether no request failed."""
        with LocalFleet(registry=self.plan.registry, port=self._port()) as fleet:
            await self._start_registry(fleet)
            if self.plan.dashboard:
                await self._start_dashboard(fleet)
            await self._start_nodes(fleet)
            report = await self._classify(fleet)
            announce(report)
            if self.plan.stay:
                await self._show_registry(fleet)
                await self._stay(fleet)
            with self._step("Stopping the fleet"):
                fleet.stop()
        return not report["failures"]

    async def _start_registry(self, fleet: LocalFleet) -> None:
        with self._step(REGISTRIES.get(self.plan.registry, f"Using the registry at {self.plan.registry}")):
            fleet.start_registry()
            already = (await fleet.wait_passing(SERVICE, 0)).instances
        if already:
            raise FleetError(
                f"{self.plan.registry} lists {len(already)} running {SERVICE} already, and the demo would count their"
                " answers as its own; stop them, or use another registry"
            )

    async def _start_dashboard(self, fleet: LocalFleet) -> None:
        with self._step("Starting the dashboard"):
            fleet.start_dashboard(
                PORT if is_free(PORT) else free_port(),
                *("--cluster", "demo", "--operator-token-file", str(fleet.secret("operator"))),
                *("--admin-token-file", str(fleet.secret("admin"))),
            )
            await fleet.wait_dashboard()
        self.console.print(f"  watch it at {fleet.dashboard_url}", highlight=False)

    async def _start_nodes(self, fleet: LocalFleet) -> None:
        names = [f"{SERVICE}-{number + 1}" for number in range(self.plan.nodes)]
        admin = ("--admin-token-file", str(fleet.secret("admin"))) if self.plan.dashboard else ()
        with self._step(f"Starting {', '.join(names)}: each loads TensorFlow and warms up"):
            for name in names:
                fleet.start_node(name, self.plan.model, "--name", SERVICE, "--check-interval", "1", *admin)
            seen = await fleet.wait_passing(SERVICE, len(names))
        for instance in seen.instances:
            self.console.print(f"  {instance.id} passing at {instance.url}")

    async def _classify(self, fleet: LocalFleet) -> dict[str, Any]:
        columns = (TextColumn("Classifying"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as progress:
            task = progress.add_task("images", total=len(self.images), rate="")
            began = time.monotonic()

            def show(tally: Tally) -> None:
                rate = tally.finished / max(time.monotonic() - began, 1e-9)
                progress.update(task, completed=tally.finished, rate=f"{rate:.0f} images/s")

            async with AsyncSmartClient(
                SERVICE, registry=fleet.address, policy="rotation", reporter=fleet.dashboard_url, reporter_name="demo"
            ) as client:
                tally = await classify_all(
                    client,
                    self.images,
                    concurrency=CONCURRENCY,
                    on_answer=show,
                    half_way=lambda: self._interfere(fleet),
                )
        report = tally.report(self.plan.registry)
        if self.plan.kill_one:
            report["killed"] = self.killed[0]
        if self.plan.kill_registry:
            report["registry_killed"] = True
        return report

    def _interfere(self, fleet: LocalFleet) -> None:
        if self.plan.kill_one:
            self.killed.append(max(fleet.nodes))
            fleet.kill_node(self.killed[0])
            self.console.print(f"  [bold]Killed {self.killed[0]} (SIGKILL) in the middle of it[/bold]")
        if self.plan.kill_registry:
            fleet.kill_registry()
            self.console.print("  [bold]Killed the registry (SIGKILL): the client goes on with the list it has[/bold]")

    async def _show_registry(self, fleet: LocalFleet) -> None:
        if not self.killed:
            return
        with self._step(f"Waiting for the registry to notice that {self.killed[0]} is gone"):
            give_up = time.monotonic() + WATCHED_SECONDS
            while time.monotonic() < give_up:
                if len((await fleet.wait_passing(SERVICE, 1)).instances) == len(fleet.nodes):
                    break
                await asyncio.sleep(0.2)
        command = twostep("lookup", SERVICE, "--all", "--registry", fleet.address)
        await (await asyncio.create_subprocess_exec(*command)).wait()

    async def _stay(self, fleet: LocalFleet) -> None:
        at = f" --registry {fleet.address}"
        url = fleet.address.replace("consul://", "http://")
        self.console.print(
            "\n[bold]The fleet stays up. Try, in another terminal:[/bold]\n"
            f"{self._dashboard_words(fleet)}"
            f"  twostep infer {SERVICE} {self.plan.model / 'samples'}{at}\n"
            f"  twostep lookup {SERVICE} --watch{at}\n"
            f"  twostep node --model {self.plan.model} --name {SERVICE} --port 0{at}\n"
            f"  curl '{url}/v1/health/service/{SERVICE}?passing'\n"
            "(the command is .venv/bin/twostep when it was set up by make)\n"
            "Ctrl-C ends it all.",
            highlight=False,
            soft_wrap=True,
        )
        while True:
            await asyncio.sleep(1.0)
            fleet.check()

    def _dashboard_words(self, fleet: LocalFleet) -> str:
        if not fleet.dashboard_url:
            return ""
        return (
            f"  {fleet.dashboard_url} in a browser; to drain a node there, sign in with what is in\n"
            f"  {fleet.secret('operator')}\n"
            f"  TWOSTEP_DASHBOARD={fleet.dashboard_url} in the environment of the next one lets it report there\n"
        )

    def _port(self) -> int | None:
        """8500 when the fleet stays up and nobody has it: then the commands need no --registry."""
        return 8500 if self.plan.stay and is_free(8500) else None

    @contextmanager
    def _step(self, words: str) -> Iterator[None]:
        if self.console.is_terminal:
            with self.console.status(words):
                yield
        else:
            yield
        self.console.print(f"[green]done[/green] {words}", highlight=False)


def train_if_needed(model: Path, console: Console) -> None:
    """Train the digits when there is no model yet. It takes seconds: not for an event loop. Raises ``FleetError``."""
    if model.exists() and any(not each.name.startswith(".") for each in model.iterdir()):
        return  # what an interrupted training leaves is an empty folder, or hidden parts
    console.print(f"No model at {model} yet: training one on scikit-learn's handwritten digits", soft_wrap=True)
    # Its words belong to this terminal, but standard output may be kept for the report. Ctrl-C is for the demo alone,
    # which then ends the training.
    command = leashed(twostep("train", "digits", "--out", str(model)))
    if subprocess.run(command, stdout=sys.stderr, start_new_session=True, check=False).returncode != 0:
        raise FleetError("training failed, see above")


def print_table(report: dict[str, Any], console: Console) -> None:
    """The numbers for people: which node answered what, then one sentence."""
    console.print("\nWhich node answered what:")
    table = Table("node", "images")
    table.columns[1].justify = "right"
    for node, count in report["by_node"].items():
        note = "  killed in the middle" if node == report.get("killed") else ""
        table.add_row(f"{node}{note}", str(count))
    console.print(table)
    for failure in report["failures"]:
        console.print(f"failed: {failure}", highlight=False)
    if report["accuracy"] is not None:
        console.print(
            f"{report['requests']} requests, [bold]{report['failed']} failed[/bold], {report['retried']} tried again on"
            f" another node; accuracy {report['accuracy']:.1%}; p50 {report['p50_ms']} ms, p99 {report['p99_ms']} ms",
            highlight=False,
            soft_wrap=True,
        )


@click.command()
@click.option("--nodes", default=3, show_default=True, type=click.IntRange(1, 32), help="How many nodes.")
@click.option("--images", default=60, show_default=True, type=click.IntRange(1), help="How many images to classify.")
@click.option(
    "--registry",
    default="embedded",
    show_default=True,
    metavar="embedded|consul|ADDRESS",
    help="'consul' starts a real agent and stops it at the end; an address (consul://HOST:PORT) uses a running one.",
)
@click.option(
    "--model",
    default=Path("models/digits"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Model folder; trained on handwritten digits when it does not exist.",
)
@click.option("--kill-one", is_flag=True, help="Kill one node (SIGKILL) in the middle.")
@click.option("--kill-registry", is_flag=True, help="Kill the registry (SIGKILL) in the middle; implies --once.")
@click.option("--dashboard/--no-dashboard", default=True, show_default=True, help="Show the fleet in a browser, too.")
@click.option("--once", is_flag=True, help="End after the images; the default when output is not a terminal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output; implies --once.")
def demo(
    *,
    nodes: int,
    images: int,
    registry: str,
    model: Path,
    kill_one: bool,
    kill_registry: bool,
    dashboard: bool,
    once: bool,
    as_json: bool,
) -> None:
    """Run the main job on this machine: a registry, nodes, images, and a count of who answered what.

    Exit status 1 when a request failed.

    \b
    Example:
      twostep demo --once --nodes 3 --images 300 --kill-one
      twostep demo --once --registry consul --json
    """
    if kill_one and nodes < 2:
        raise click.UsageError("--kill-one needs at least two nodes: --nodes 2")
    if kill_registry and registry not in ("embedded", "consul"):
        raise click.UsageError("--kill-registry kills only a registry that the demo started: embedded or consul")
    stay = not (once or as_json or kill_registry) and sys.stdout.isatty()
    plan = Plan(registry, nodes, images, model, kill_one, kill_registry, stay, dashboard)
    console = Console(stderr=as_json)
    announce: Callable[[dict[str, Any]], None] = (
        (lambda report: click.echo(json.dumps(report))) if as_json else (lambda report: print_table(report, console))
    )
    train_if_needed(model, console)
    run = Demo(plan, choose(model / "samples", images), console).run(announce)
    try:
        none_failed = asyncio.run(_until_signalled(run))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    if not none_failed:
        raise SystemExit(1)


async def _until_signalled(run: Awaitable[bool]) -> bool:
    """Await ``run``; SIGTERM cancels it as Ctrl-C does, so that the fleet is stopped in order."""
    if (task := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run
