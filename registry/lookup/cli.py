"""The command ``registry lookup``: the look-up service in a process of its own."""

import asyncio
import logging
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.lookup.wire import PORT

if TYPE_CHECKING:
    import ssl

    from registry.directory import Directory
    from registry.lookup.service import LookupService
    from registry.token import Token

# Unless the system allows fewer open files.
_READERS = 20_000
_OTHER_FILES = 256
# A watch here is read for thousands of clients; bytes per second.
_PACE = 20e6


@click.command()
@click.option("--registry", "address", metavar="URL", help="Where the lists come from: consul://HOST:PORT")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free port.")
@click.option("--allow", multiple=True, metavar="GLOB", help="Serve these services only; may be repeated.")
@click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Keep the lists here, and start with them while the registry is away; default: TWOSTEP_CACHE_DIR.",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Demand this bearer token; the file may be replaced while running.",
)
@click.option("--cert", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Serve TLS with this chain.")
@click.option("--key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its private key.")
@click.option("--max-services", default=1000, show_default=True, type=click.IntRange(1), help="Followed at a time.")
@click.option("--max-readers", type=click.IntRange(1), help=f"Followed by, at a time.  [default: {_READERS}]")
def lookup(
    *,
    address: str | None,
    host: str,
    port: int,
    allow: tuple[str, ...],
    cache: str | None,
    token_file: Path | None,
    cert: Path | None,
    key: Path | None,
    max_services: int,
    max_readers: int | None,
) -> None:
    """Serve look-ups to clients that must not, or should not, talk to Consul.

    It holds one watch of the registry for each service that is asked for, and sends each client what has changed. Run
    several, beside each other or behind each other, and give clients all the addresses. The registry is --registry,
    else TWOSTEP_REGISTRY, else CONSUL_HTTP_ADDR, else consul://127.0.0.1:8500; it may be away, also at the start.

    \b
    Example:
      twostep registry lookup
      twostep registry lookup --host 0.0.0.0 --allow digits --allow 'team-*' --token-file lookup.token
      twostep lookup digits --registry lookup://127.0.0.1:8700
    """
    from registry.serving import server_tls
    from registry.token import Token

    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key go together")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    token = Token(path=token_file) if token_file else Token()
    tls = server_tls(cert, key) if cert and key else None
    status = asyncio.run(
        _serve(
            address,
            host,
            port,
            allow,
            cache=cache,
            token=token,
            tls=tls,
            services=max_services,
            readers=_readers(max_readers),
        )
    )
    if status:
        sys.exit(status)


async def _serve(
    address: str | None,
    host: str,
    port: int,
    allow: tuple[str, ...],
    *,
    cache: str | None,
    token: "Token",
    tls: "ssl.SSLContext | None",
    services: int,
    readers: int,
) -> int:
    from registry.connect import connect
    from registry.lookup.service import LookupService
    from registry.serving import told_to_stop

    stopped = told_to_stop()
    directory = connect(address, pace=_PACE, cache=cache)
    try:
        async with LookupService(
            directory, host, port, allow=allow, token=token, tls=tls, services=services, readers=readers
        ) as service:
            _announce(service, directory, secret=bool(token.read()))
            asking = asyncio.ensure_future(_say_if_away(directory))
            status = await stopped
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
    finally:
        await directory.close()
    return status


def _announce(service: "LookupService", directory: "Directory", *, secret: bool) -> None:
    web = service.url.replace("lookup", "http", 1).replace("http+https", "https")
    token = ' -H "Authorization: Bearer $TWOSTEP_LOOKUP_TOKEN"' if secret else ""
    click.echo(f"look-up service ready at {service.url}")
    click.echo(f"Lists come from {directory.source}.")
    click.echo("Next, in other terminals:")
    click.echo(f"  twostep lookup digits --watch --registry {service.url}")
    click.echo(f"  curl{token} {web}/v1/lookup/digits")
    click.echo(f"  curl -N{token} {web}/v1/lookup/digits/stream")
    sys.stdout.flush()


async def _say_if_away(directory: "Directory") -> None:
    from registry.errors import RegistryError

    try:
        await directory.lookup("digits")
    except RegistryError as error:
        click.echo(f"warning: {error}; lists are served once it answers", err=True)


def _readers(asked: int | None) -> int:
    """How many readers there may be: each takes an open file, of which most systems give a process 1024 at first."""
    wanted = asked or _READERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if files > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    readers = max(1, files - _OTHER_FILES)
    if asked and readers < asked:
        click.echo(f"warning: {readers} readers at most, for this system allows {hard} open files", err=True)
    return readers
