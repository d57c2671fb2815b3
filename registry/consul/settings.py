"""How to reach a Consul, read from an address and Consul's own environment variables.

The variables mean what they mean to Consul's command: CONSUL_HTTP_TOKEN(_FILE), CONSUL_HTTP_SSL(_VERIFY),
CONSUL_CACERT, CONSUL_CAPATH, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_TLS_SERVER_NAME and CONSUL_NAMESPACE; a
token file goes before a token. What has no variable stands in the address:
``consul://host:port?dc=NAME&namespace=NAME&cached``.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

from registry.errors import ConfigurationError
from registry.token import Token

PORT = 8500
EXAMPLES = (
    "use consul://127.0.0.1:8500, https://consul.example:8501, lookup://10.0.0.1:8700,10.0.0.2:8700 "
    "or static://10.0.0.1:9001,10.0.0.2:9001"
)
_SCHEMES = {"consul": "http", "http": "http", "https": "https"}
_OPTIONS = ("dc", "namespace", "cached")


@dataclass(frozen=True, slots=True)
class ConsulSettings:
    """How to reach an agent and what to ask of it.

    ``verify`` False: any server certificate will do. ``cacert``, ``capath``: authorities to trust, as a file or a
    folder, instead of the machine's own. ``cert``, ``key``: PEM files of the client's certificate (``key`` empty: in
    the same file). ``server_name``: the name the server's certificate must hold, when it is not ``host``. ``dc``,
    ``namespace``: look there, not where the agent is. ``cached``: let the agent answer look-ups from its own memory.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    scheme: str = "http"
    token: Token = field(default_factory=Token)
    verify: bool = True
    cacert: str = ""
    capath: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    dc: str = ""
    namespace: str = ""
    cached: bool = False

    @property
    def source(self) -> str:
        """The address to show, and to paste into TWOSTEP_REGISTRY, with what decides which instances are found."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        options = [f"{name}={quote(value)}" for name in ("dc", "namespace") if (value := getattr(self, name))]
        text = f"{'consul' if self.scheme == 'http' else self.scheme}://{host}:{self.port}"
        return f"{text}?{'&'.join(options)}" if options else text

    def tls(self) -> ssl.SSLContext | None:
        """What a connection needs, read from the files; None for plain HTTP. Raises ``ConfigurationError``."""
        if self.scheme != "https":
            return None
        try:
            context = ssl.create_default_context(cafile=self.cacert or None, capath=self.capath or None)
            if self.cert:
                # A password, so that an encrypted key is an error and no question on the terminal.
                context.load_cert_chain(self.cert, self.key or None, password="")
        except OSError as error:  # ssl.SSLError is one
            files = ", ".join(filter(None, (self.cacert, self.capath, self.cert, self.key)))
            hint = "; give PEM files, the key without a password" if isinstance(error, ssl.SSLError) else ""
            raise ConfigurationError(
                f"TLS files for {self.source} ({files}) cannot be used: {error.strerror or error}{hint}"
            ) from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def consul_settings(address: str, environment: Mapping[str, str]) -> ConsulSettings:
    """Return how to reach the Consul at ``address``, with the environment's token and TLS. Raises ConfigurationError.

    ``address``: ``consul://host:port``, ``host:port``, ``http://…`` or ``https://…``, with options as above.
    """
    place, _, query = address.partition("?")
    scheme, place = place.split("://", 1) if "://" in place else ("consul", place)
    refuse_secrets(place)
    host, port = host_and_port(place.removesuffix("/"), address)
    if scheme not in _SCHEMES:
        raise unusable(address)
    options = _options(query, address)
    cert, key = environment.get("CONSUL_CLIENT_CERT", ""), environment.get("CONSUL_CLIENT_KEY", "")
    server_name = environment.get("CONSUL_TLS_SERVER_NAME", "")
    try:
        server_name.encode("idna")
    except UnicodeError as error:
        raise ConfigurationError(f"CONSUL_TLS_SERVER_NAME={server_name} is no host name") from error
    if key and not cert:
        raise ConfigurationError("CONSUL_CLIENT_KEY is of no use alone; give the certificate in CONSUL_CLIENT_CERT")
    return ConsulSettings(
        host=host,
        port=port or PORT,
        scheme="https" if _flag(environment, "CONSUL_HTTP_SSL", default=False) else _SCHEMES[scheme],
        token=_token(environment),
        verify=_flag(environment, "CONSUL_HTTP_SSL_VERIFY", default=True),
        cacert=environment.get("CONSUL_CACERT", ""),
        capath=environment.get("CONSUL_CAPATH", ""),
        cert=cert,
        key=key,
        server_name=server_name,
        dc=options.get("dc", ""),
        namespace=options.get("namespace", environment.get("CONSUL_NAMESPACE", "")),
        cached=_switch("cached", options.get("cached", "false"), default=True),
    )


def host_and_port(text: str, address: str) -> tuple[str, int | None]:
    """Split ``host:port``, ``host`` or ``[::1]:port``, a part of ``address``. Raises ``ConfigurationError``."""
    try:
        url = urlsplit(f"//{text}")
        host, port = url.hostname or "", url.port
        host.encode("idna")  # or else asking for its address would fail in Python's own words
    except ValueError as error:
        raise unusable(address) from error
    if not host or port == 0 or url.path or url.query or url.fragment or any(map(str.isspace, host)):
        raise unusable(address)
    return host, port


def refuse_secrets(place: str) -> None:
    """Raise ``ConfigurationError`` for ``user:password@host``, which is not shown."""
    if "@" in place:
        raise ConfigurationError("a registry address holds no user or token; put the token in CONSUL_HTTP_TOKEN")


def unusable(address: str) -> ConfigurationError:
    """What to raise for an address that is none; options are not shown, for one may be a secret."""
    return ConfigurationError(f"{address.partition('?')[0]!r} is not a registry address; {EXAMPLES}")


def _options(query: str, address: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    for name in options.keys() - set(_OPTIONS):
        raise ConfigurationError(
            f"a Consul address has no option {name!r}; it has {', '.join(_OPTIONS)}: consul://127.0.0.1:8500?dc=dc2"
        )
    if len(options) < len(pairs):
        raise ConfigurationError(f"{address!r} gives an option twice")
    for name in ("dc", "namespace"):
        if options.get(name) == "":
            raise ConfigurationError(f"{address!r} gives {name} no name; write {name}=NAME or leave it out")
    return options


def _flag(environment: Mapping[str, str], name: str, *, default: bool) -> bool:
    return _switch(name, environment.get(name, ""), default=default)


def _switch(name: str, text: str, *, default: bool) -> bool:
    word = text.strip().lower()
    if not word:
        return default
    if word in {"1", "t", "true"}:
        return True
    if word in {"0", "f", "false"}:
        return False
    raise ConfigurationError(f"{name}={text} is neither true nor false")


def _token(environment: Mapping[str, str]) -> Token:
    path = environment.get("CONSUL_HTTP_TOKEN_FILE")
    name = "CONSUL_HTTP_TOKEN_FILE" if path else "CONSUL_HTTP_TOKEN"
    try:
        return Token(environment.get("CONSUL_HTTP_TOKEN", ""), Path(path) if path else None)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error
