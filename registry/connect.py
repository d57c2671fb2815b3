"""From an address to a directory: the one place that reads the environment.

The address given, else TWOSTEP_REGISTRY, else Consul's own CONSUL_HTTP_ADDR, else the agent on this machine. The rest
of Consul's variables (token, TLS) apply whenever the address is a Consul's, with the meaning its own command gives
them: a token file goes before a token.
"""

import os
import random
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from registry.consul import ConsulDirectory
from registry.consulhttp import ConsulSettings
from registry.directory import Directory
from registry.errors import ConfigurationError
from registry.static import StaticDirectory
from registry.timing import Clock, SystemClock

DEFAULT = "consul://127.0.0.1:8500"
_EXAMPLES = "use consul://127.0.0.1:8500, https://consul.example:8501 or static://10.0.0.1:9001,10.0.0.2:9001"
_SCHEMES = {"consul": "http", "http": "http", "https": "https"}


def connect(address: str | None = None, *, clock: Clock | None = None, rng: random.Random | None = None) -> Directory:
    """Return the directory at an address; nothing is sent before its first call, and no loop need be running.

    ``consul://host:port`` (also ``host:port``, ``http://…``; ``https://…`` or CONSUL_HTTP_SSL=true for TLS) or
    ``static://host:port,host:port``. Raises ``ConfigurationError``.
    """
    clock = clock or SystemClock()
    rng = rng or random.Random()
    given = address or os.environ.get("TWOSTEP_REGISTRY") or os.environ.get("CONSUL_HTTP_ADDR") or DEFAULT
    given = given.strip()
    if given.startswith("static://"):
        hosts = given.removeprefix("static://").split(",")
        return StaticDirectory([_host_and_port(host.strip(), given) for host in hosts], clock=clock)
    return ConsulDirectory(consul_settings(given, os.environ), clock=clock, rng=rng)


def consul_settings(address: str, environment: Mapping[str, str]) -> ConsulSettings:
    """Return how to reach the Consul at ``address``, with the environment's token and TLS (reads a token file)."""
    url = _split(address if "://" in address else f"consul://{address}", address)
    if url.scheme not in _SCHEMES or not url.hostname or url.path not in {"", "/"} or url.query or url.fragment:
        raise _unusable(address)
    scheme = _SCHEMES[url.scheme]
    if url.scheme != "https" and _flag(environment, "CONSUL_HTTP_SSL", default=False):
        scheme = "https"
    key = environment.get("CONSUL_CLIENT_KEY")
    certificate = environment.get("CONSUL_CLIENT_CERT")
    verify: bool | str = _flag(environment, "CONSUL_HTTP_SSL_VERIFY", default=True)
    return ConsulSettings(
        host=url.hostname,
        port=_port(url, address) or 8500,
        scheme=scheme,
        token=_token(environment),
        verify=(environment.get("CONSUL_CACERT") or True) if verify else False,
        cert=(certificate, key) if certificate and key else certificate,
    )


def _host_and_port(text: str, address: str) -> tuple[str, int]:
    url = _split(f"static://{text}", address)
    port = _port(url, address)
    if not url.hostname or port is None or url.path or url.query or url.fragment:
        raise _unusable(address)
    return url.hostname, port


def _split(url: str, address: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _unusable(address) from error
    if "@" in parts.netloc:
        # Not shown: what stands before the @ is likely to be a secret.
        raise ConfigurationError("a registry address holds no user or token; put the token in CONSUL_HTTP_TOKEN")
    return parts


def _port(url: SplitResult, address: str) -> int | None:
    try:
        port = url.port
    except ValueError as error:
        raise _unusable(address) from error
    if port == 0:
        raise _unusable(address)
    return port


def _unusable(address: str) -> ConfigurationError:
    return ConfigurationError(f"{address!r} is not a registry address; {_EXAMPLES}")


def _flag(environment: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = environment.get(name, "").strip().lower()
    if not text:
        return default
    if text in {"1", "t", "true"}:
        return True
    if text in {"0", "f", "false"}:
        return False
    raise ConfigurationError(f"{name}={text} is neither true nor false")


def _token(environment: Mapping[str, str]) -> str:
    path = environment.get("CONSUL_HTTP_TOKEN_FILE")
    if not path:
        return environment.get("CONSUL_HTTP_TOKEN", "")
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"CONSUL_HTTP_TOKEN_FILE={path} cannot be read: {error}") from error
