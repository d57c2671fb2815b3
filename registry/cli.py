"""The commands ``registry`` (start the embedded one) and ``lookup`` (ask any). Errors of this package pass through."""

import asyncio
import io
import logging
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

INTERRUPTED = 130


class _Registry(click.Group):
    """``registry`` itself starts one; its sub-command is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return ["lookup"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        if cmd_name != "lookup":
            return None
        from registry.lookup.cli import lookup as command

        return command


@click.group(cls=_Registry, invoke_without_command=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8500, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free port.")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep what is registered in this file over a restart.",
)
@click.pass_context
def registry(ctx: click.Context, host: str, port: int, file: Path | None) -> None:
    """Start a Consul-compatible registry in one process.

    For a laptop and for tests; production wants Consul.

    \b
    Example:
      twostep registry
      twostep registry --port 8600 --file registry.json
    """
    if ctx.invoked_subcommand is None:
        _run(_serve(host, port, file))


def _pairs(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:  # noqa: ARG001 - click's signature
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{text!r} is not KEY=VALUE, such as gpu=a100")
        if found.setdefault(key, value) != value:
            raise click.BadParameter(f"{key} is given twice, and nothing is both {found[key]} and {value}")
    return found


@click.command()
@click.argument("service")
@click.option("--registry", "address", metavar="URL", help="consul://HOST:PORT, lookup://HOST:PORT or static://…")
@click.option("--all", "everything", is_flag=True, help="Also instances that are not passing.")
@click.option("--tag", default="", help="Only instances with this tag.")
@click.option("--zone", default="", help="Only instances in this zone.")
@click.option("--version", default="", help="Only instances of this version.")
@click.option(
    "--meta", multiple=True, metavar="KEY=VALUE", callback=_pairs, help="Only with this metadata; repeatable."
)
@click.option("--explain", is_flag=True, help="Say of every instance why it is in or out.")
@click.option("--watch", is_flag=True, help="Go on and print changes, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document; with --watch one JSON line per event.")
@click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Keep the list here, and take it from here while the registry is away.",
)
def lookup(
    *,
    service: str,
    address: str | None,
    everything: bool,
    tag: str,
    zone: str,
    version: str,
    meta: dict[str, str],
    explain: bool,
    watch: bool,
    as_json: bool,
    cache: str | None,
) -> None:
    """Show where the instances of SERVICE are.

    The registry is --registry, else TWOSTEP_REGISTRY, else CONSUL_HTTP_ADDR, else consul://127.0.0.1:8500. --cache is
    TWOSTEP_CACHE_DIR when not given. In a pipe each instance is a line of columns between tabs: id, address, health,
    zone, version, weight, tags; with --explain: in or out, id, address, health, weight, reasons. Exits with 1 when
    there is no instance to show.

    \b
    Example:
      twostep lookup digits
      twostep lookup digits --explain --zone eu-1
      twostep lookup digits --all --json
      twostep lookup digits --watch --registry consul://10.0.0.5:8500
      twostep lookup digits --meta gpu=a100 | cut -f 2
    """
    from registry.connect import connect
    from registry.query import Query
    from registry.show.command import explain_once, follow, show_once

    if watch and explain:
        raise click.UsageError("--explain looks once and --watch goes on: leave one of them out")
    for given in (service, tag, zone, version, *meta, *meta.values()):
        if not given.isascii() and given != given.encode(errors="replace").decode():
            raise click.UsageError(f"{given!r} is not text in this system's encoding")
    _plain_warnings()
    query = Query(service, tag=tag, zone=zone, version=version, meta=meta, passing_only=not everything)
    directory = connect(address, cache=cache)
    if watch:
        _run(follow(directory, query, as_json=as_json))
    elif explain:
        _run(explain_once(directory, query, as_json=as_json))
    else:
        _run(show_once(directory, query, as_json=as_json))


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


def _plain_warnings() -> None:
    """What the package logs is for the user here; and text that standard output's encoding lacks is spelt out."""
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING, stream=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
