"""From an address to a directory: the one place that reads the environment.

The address given, else TWOSTEP_REGISTRY, else Consul's own CONSUL_HTTP_ADDR, else the agent on this machine. The rest
of Consul's variables (token, TLS, namespace) apply whenever the address is a Consul's: see ``consul.settings``.
"""

import os
import random
from pathlib import Path

from registry.coldstart.directory import ColdStartDirectory
from registry.consul.directory import ConsulDirectory
from registry.consul.settings import ConsulSettings, consul_settings, host_and_port, refuse_secrets, unusable
from registry.directory import Directory
from registry.errors import ConfigurationError
from registry.lookup.client.address import SCHEMES, lookup_settings
from registry.lookup.client.directory import LookupDirectory
from registry.static import StaticDirectory
from registry.timing import Clock, SystemClock
from registry.watch import PACE

DEFAULT = "consul://127.0.0.1:8500"


def connect(
    address: str | None = None,
    *,
    clock: Clock | None = None,
    rng: random.Random | None = None,
    pace: float = PACE,
    cache: str | os.PathLike[str] | None = None,
) -> Directory:
    """Return the directory at an address; nothing is sent before its first call, and no loop need be running.

    ``consul://host:port`` (also ``host:port``, ``http://…``; ``https://…`` or CONSUL_HTTP_SSL=true for TLS; options:
    ``?dc=NAME&namespace=NAME&cached``), ``lookup://host:port,host:port`` (``lookup+https://…`` for TLS; ``?limit=20``
    for a subset) or ``static://host:port,host:port``. ``pace``: bytes per second that a watch of Consul reads at most
    under churn. ``cache``: a folder for the last good lists, used while the registry is away (see ``coldstart``); None
    takes TWOSTEP_CACHE_DIR, and without that nothing is kept. Raises ``ConfigurationError``.
    """
    clock = clock or SystemClock()
    rng = rng or random.Random()
    given = _given(address)
    if given.startswith("static://"):
        hosts = given.removeprefix("static://").split(",")
        return StaticDirectory([_static(host.strip(), given) for host in hosts], clock=clock)
    directory: Directory
    if given.partition("://")[0] in SCHEMES:
        directory = LookupDirectory(lookup_settings(given, os.environ, rng), clock=clock, rng=rng)
    else:
        directory = ConsulDirectory(consul_settings(given, os.environ), clock=clock, rng=rng, pace=pace)
    folder = os.environ.get("TWOSTEP_CACHE_DIR") if cache is None else os.fspath(cache)
    return ColdStartDirectory(directory, Path(folder).expanduser(), clock=clock) if folder else directory


def consul_of(address: str | None = None) -> ConsulSettings:
    """Return how to reach the Consul at an address, for what asks it more than a ``Directory`` answers.

    Raises ``ConfigurationError``, also for an address that is another kind of directory's.
    """
    given = _given(address)
    scheme = given.partition("://")[0]
    if scheme == "static" or scheme in SCHEMES:
        raise ConfigurationError(f"{scheme}:// is a list of instances only; give the Consul itself: consul://HOST:PORT")
    return consul_settings(given, os.environ)


def _given(address: str | None) -> str:
    found = address or os.environ.get("TWOSTEP_REGISTRY") or os.environ.get("CONSUL_HTTP_ADDR") or DEFAULT
    return found.strip()


def _static(text: str, address: str) -> tuple[str, int]:
    refuse_secrets(text)
    host, port = host_and_port(text, address)
    if port is None:
        raise unusable(address)
    return host, port
