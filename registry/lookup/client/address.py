"""From ``lookup://host:port,host:port?limit=20`` and the environment to what a client of look-up services needs.

The environment's part: TWOSTEP_LOOKUP_TOKEN, or TWOSTEP_LOOKUP_TOKEN_FILE, which goes before it and is read again
when it changes; for ``lookup+https`` TWOSTEP_LOOKUP_CACERT, else the machine's own certificate authorities.
"""

import random
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from registry.consul.settings import host_and_port
from registry.errors import ConfigurationError
from registry.lookup.wire import PORT
from registry.token import Token

SCHEMES = ("lookup", "lookup+https")
_EXAMPLE = "lookup://10.0.0.1:8700,10.0.0.2:8700?limit=20&client=shop-7"


@dataclass(frozen=True, slots=True)
class LookupSettings:
    """How to reach look-up services: ``host:port`` each, and whom to trust (``tls`` None: plain HTTP).

    ``limit`` above 0: only that many instances, the stable subset of the client named ``client``. ``source`` is the
    address to show, and to paste into TWOSTEP_REGISTRY.
    """

    addresses: tuple[str, ...]
    source: str
    token: Token = field(default_factory=Token)
    tls: ssl.SSLContext | None = None
    limit: int = 0
    client: str = ""

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return "https" if self.tls else "http"


def lookup_settings(address: str, environment: Mapping[str, str], rng: random.Random) -> LookupSettings:
    """Read an address and the environment (and the files it names). Raises ``ConfigurationError``."""
    scheme, _, rest = address.partition("://")
    hosts, _, options = rest.partition("?")
    if "@" in hosts:
        # Not shown: what stands before the @ is likely to be a secret.
        raise ConfigurationError("a registry address holds no user or token; put the token in TWOSTEP_LOOKUP_TOKEN")
    addresses = tuple(dict.fromkeys(_endpoint(host.strip(), address) for host in hosts.rstrip("/").split(",")))
    given = _options(options)
    limit = int(given.get("limit", "0"))
    shown = urlencode(given)
    path = environment.get("TWOSTEP_LOOKUP_TOKEN_FILE")
    return LookupSettings(
        addresses=addresses,
        source=f"{scheme}://{','.join(addresses)}" + (f"?{shown}" if shown else ""),
        token=Token(environment.get("TWOSTEP_LOOKUP_TOKEN", ""), Path(path) if path else None),
        tls=_tls(environment.get("TWOSTEP_LOOKUP_CACERT")) if scheme == "lookup+https" else None,
        limit=limit,
        # Other than every other client's, so that subsets spread, and the same for as long as this process lives.
        client=given.get("client") or (f"{socket.gethostname()}-{rng.getrandbits(32):08x}" if limit else ""),
    )


def _endpoint(text: str, address: str) -> str:
    host, port = host_and_port(text, address)
    return f"{f'[{host}]' if ':' in host else host}:{port or PORT}"


def _options(text: str) -> dict[str, str]:
    pairs = parse_qsl(text, keep_blank_values=True)
    options = dict(pairs)
    for name in options.keys() - {"limit", "client"}:
        raise ConfigurationError(f"a look-up address has no option {name!r}; it has limit and client: {_EXAMPLE}")
    if len(options) < len(pairs):
        raise ConfigurationError(f"a look-up address takes each option once: {_EXAMPLE}")
    limit = options.get("limit", "1")
    if not (limit.isascii() and limit.isdigit() and 0 < int(limit) < 2**31):
        raise ConfigurationError(f"limit={limit} is no number of instances above 0: {_EXAMPLE}")
    if "client" in options and not ("limit" in options and options["client"]):
        raise ConfigurationError(f"client says whose subset is meant and goes with limit: {_EXAMPLE}")
    return options


def _tls(path: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path or None)
    except OSError as error:  # ssl.SSLError is one
        said = error.strerror or str(error)
        raise ConfigurationError(f"TWOSTEP_LOOKUP_CACERT={path} cannot be used: {said}") from error
