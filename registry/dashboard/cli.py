"""The command ``dashboard``."""

import asyncio
import gc
import logging
import sys
from pathlib import Path
from typing import Any

import click

from registry.dashboard.wire import PORT

log = logging.getLogger(__name__)

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--registry", "address", metavar="URL", help="The Consul to look at: consul://HOST:PORT")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free port.")
@click.option("--service", "only", multiple=True, metavar="GLOB", help="Show these services only; may be repeated.")
@click.option("--cluster", default="", help="What this fleet is called.  [default: the registry's address]")
@click.option(
    "--operator-token-file",
    type=_FILE,
    help="Who has a token in this file (one on each line) may sign in and drain. Without it: read-only.",
)
@click.option("--admin-token-file", type=_FILE, help="The token that the nodes demand of whoever drains them.")
@click.option("--node-ca", type=_FILE, help="The authority of the nodes' certificates, where they speak https.")
@click.option("--reports-token-file", type=_FILE, help="Take reports of clients only with a token in this file.")
@click.option(
    "--floor",
    default=1,
    show_default=True,
    type=click.IntRange(0),
    help="Passing instances that a drain has to leave, unless the service's name is typed.",
)
@click.option("--cert", type=_FILE, help="Serve TLS with this chain.")
@click.option("--key", type=_FILE, help="Its private key.")
@click.option("--proxied", is_flag=True, help="Behind a proxy that sets X-Forwarded-Proto: believe it.")
def dashboard(
    *,
    address: str | None,
    host: str,
    port: int,
    only: tuple[str, ...],
    cluster: str,
    operator_token_file: Path | None,
    admin_token_file: Path | None,
    node_ca: Path | None,
    reports_token_file: Path | None,
    floor: int,
    cert: Path | None,
    key: Path | None,
    proxied: bool,
) -> None:
    """Show the fleet in a browser: who is well, who is not, since when, and what clients see.

    The registry is --registry, else TWOSTEP_REGISTRY, else CONSUL_HTTP_ADDR, else consul://127.0.0.1:8500; it may be
    away, also at the start. Clients report with reporter="http://HOST:PORT", or TWOSTEP_DASHBOARD in their environment.

    \b
    Example:
      twostep dashboard
      twostep dashboard --operator-token-file ops.tokens --admin-token-file node-admin.token
      twostep dashboard --host 0.0.0.0 --cert site.pem --key site.key --service 'team-*'
    """
    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key go together")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    status = asyncio.run(
        _serve(
            address,
            host,
            port,
            only=only,
            cluster=cluster,
            operators=operator_token_file,
            admin=admin_token_file,
            node_ca=node_ca,
            reports=reports_token_file,
            floor=floor,
            tls=(cert, key) if cert and key else None,
            proxied=proxied,
        )
    )
    if status:
        sys.exit(status)


async def _serve(
    address: str | None,
    host: str,
    port: int,
    *,
    only: tuple[str, ...],
    cluster: str,
    operators: Path | None,
    admin: Path | None,
    node_ca: Path | None,
    reports: Path | None,
    floor: int,
    tls: tuple[Path, Path] | None,
    proxied: bool,
) -> int:
    from registry.connect import consul_of
    from registry.dashboard.service import Dashboard
    from registry.serving import server_tls, told_to_stop, trusting
    from registry.token import Token, Tokens

    stopped = told_to_stop()
    shown = Dashboard(
        consul_of(address),
        host,
        port,
        only=only,
        cluster=cluster,
        floor=floor,
        operators=Tokens(operators) if operators else None,
        reports=Tokens(reports) if reports else None,
        admin_token=Token(path=admin) if admin else None,
        node_tls=trusting(node_ca) if node_ca else None,
        tls=server_tls(*tls) if tls else None,
        proxied=proxied,
    )
    async with shown:
        gc.collect()
        gc.freeze()  # what is there now stays; looking it through again and again would hold the loop
        click.echo(f"dashboard ready at {shown.url}")
        click.echo(
            "Anybody who reaches it may look; " + ("operators may sign in." if operators else "it is read-only.")
        )
        click.echo(f"Clients report with TWOSTEP_DASHBOARD={shown.url} in their environment.")
        if host not in {"127.0.0.1", "::1", "localhost"} and tls is None and operators and not proxied:
            click.echo("warning: without --cert tokens and sessions cross the network in the clear", err=True)
        sys.stdout.flush()
        fault = asyncio.ensure_future(shown.fault())
        ends: set[asyncio.Future[Any]] = {stopped, fault}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if fault.done():
            # Pages that nothing renews would look like the truth.
            log.critical("the fleet is not followed any more, so the dashboard ends", exc_info=fault.exception())
            return 1
        fault.cancel()
        return await stopped
