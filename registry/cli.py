"""The commands ``registry`` (start the embedded one) and ``lookup`` (ask any). Errors of this package pass through."""

import asyncio
import json
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from registry.directory import Directory
    from registry.model import Delta, Instance, Snapshot

INTERRUPTED = 130


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8500, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free port.")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep what is registered in this file over a restart.",
)
def registry(host: str, port: int, file: Path | None) -> None:
    """Start a Consul-compatible registry in one process.

    For a laptop and for tests; production wants Consul.

    \b
    Example:
      twostep registry
      twostep registry --port 8600 --file registry.json
    """
    _run(_serve(host, port, file))


@click.command()
@click.argument("service")
@click.option("--registry", "address", metavar="URL", help="consul://HOST:PORT or static://HOST:PORT,…")
@click.option("--all", "everything", is_flag=True, help="Also instances that are not passing.")
@click.option("--tag", default="", help="Only instances with this tag.")
@click.option("--zone", default="", help="Only instances in this zone.")
@click.option("--version", default="", help="Only instances of this version.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document; with --watch one JSON line per change.")
@click.option("--watch", is_flag=True, help="Go on and print changes, until Ctrl-C.")
def lookup(
    *,
    service: str,
    address: str | None,
    everything: bool,
    tag: str,
    zone: str,
    version: str,
    as_json: bool,
    watch: bool,
) -> None:
    """Show where the instances of SERVICE are.

    The registry is --registry, else TWOSTEP_REGISTRY, else CONSUL_HTTP_ADDR, else consul://127.0.0.1:8500. Exits
    with 1 when there is no instance to show.

    \b
    Example:
      twostep lookup digits
      twostep lookup digits --all --json
      twostep lookup digits --watch --registry consul://10.0.0.5:8500
    """
    from registry.connect import connect

    question = {"tag": tag, "zone": zone, "version": version, "passing_only": not everything}
    directory = connect(address)
    if watch:
        _run(_follow(directory, service, question, as_json))
    else:
        _run(_show(directory, service, question, as_json))


def _run(main: Coroutine[Any, Any, int]) -> None:
    """Run to the end; SIGTERM ends it cleanly with 0, Ctrl-C with 130."""

    async def stoppable() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(main)
        status = 0

        def stop(code: int) -> None:
            nonlocal status
            status = code
            task.cancel()

        loop.add_signal_handler(signal.SIGINT, stop, INTERRUPTED)
        loop.add_signal_handler(signal.SIGTERM, stop, 0)
        try:
            return await task
        except asyncio.CancelledError:
            return status

    status = asyncio.run(stoppable())
    if status:
        sys.exit(status)


async def _serve(host: str, port: int, file: Path | None) -> int:
    from registry.embedded import EmbeddedRegistry

    async with EmbeddedRegistry(host, port, file=file) as embedded:
        option = "" if embedded.address == "127.0.0.1:8500" else f" --registry {embedded.url}"
        click.echo(f"registry ready at {embedded.url}")
        click.echo("This is the embedded registry, for a laptop and for tests; production wants Consul.")
        click.echo("Next, in other terminals:")
        click.echo(f"  twostep node --model models/digits{option}")
        click.echo(f"  twostep lookup digits --watch{option}")
        click.echo(f"  curl http://{embedded.address}/v1/health/service/digits?passing")
        sys.stdout.flush()
        await asyncio.Event().wait()
    return 0


async def _show(directory: "Directory", service: str, question: dict[str, Any], as_json: bool) -> int:
    try:
        snapshot = await directory.lookup(service, **question)
        others = 0
        if not snapshot.instances and question["passing_only"]:
            others = len((await directory.lookup(service, **(question | {"passing_only": False}))).instances)
    finally:
        await directory.close()
    if as_json:
        click.echo(json.dumps(_document(snapshot), indent=2))
    elif snapshot.instances:
        _table(snapshot)
    if snapshot.instances:
        return 0
    hint = f"; {others} not passing, --all shows them" if others else "; is the name right, and is a node running?"
    click.echo(f"error: no instance of {service} at {directory.source}{hint}", err=True)
    return 1


async def _follow(directory: "Directory", service: str, question: dict[str, Any], as_json: bool) -> int:
    from registry.model import diff

    watch = directory.watch(service, **question)
    last = None
    try:
        # A watch is quiet while the registry is away; the first answer, or none, is worth a word.
        await directory.lookup(service, **question)
        async for snapshot in watch:
            if as_json:
                click.echo(json.dumps(_document(snapshot)))
            else:
                _changes(snapshot, diff(last, snapshot))
            sys.stdout.flush()
            last = snapshot
    finally:
        await directory.close()
    return 0


def _document(snapshot: "Snapshot") -> dict[str, Any]:
    import msgspec

    document: dict[str, Any] = msgspec.to_builtins(snapshot)
    for each, instance in zip(document["instances"], snapshot.instances, strict=True):
        each["endpoint"] = instance.endpoint
    return document


def _row(instance: "Instance") -> tuple[str, ...]:
    return (
        instance.id,
        instance.endpoint,
        instance.health,
        instance.zone or "-",
        instance.version or "-",
        str(instance.weight),
        ",".join(instance.tags) or "-",
    )


def _table(snapshot: "Snapshot") -> None:
    columns = ("id", "address", "health", "zone", "version", "weight", "tags")
    rows = [_row(instance) for instance in snapshot.instances]
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    colours = {"passing": "green", "warning": "yellow", "critical": "red", "draining": "blue"}
    table = Table(*columns, title=f"{snapshot.service} at {snapshot.source}", title_justify="left")
    for row in rows:
        table.add_row(*row, style=colours[row[2]])
    Console().print(table)


def _changes(snapshot: "Snapshot", delta: "Delta") -> None:
    from datetime import datetime

    when = datetime.fromtimestamp(snapshot.fetched_at).astimezone().strftime("%H:%M:%S")
    for sign, instances in (("+", delta.added), ("-", delta.removed), ("~", delta.changed)):
        for instance in instances:
            click.echo(f"{when} {sign} " + "  ".join(_row(instance)))
    count = len(snapshot.instances)
    click.echo(f"{when} = {count} instance{'' if count == 1 else 's'} of {snapshot.service}")
