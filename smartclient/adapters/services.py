"""The clients behind one adapter: one for each service that the program calls, made at its first call.

Kept without a lock, so that threads and a forked child cannot be caught by one: of two clients made for a service at
the same moment one stands, and the other, which has sent nothing, is forgotten.
"""

from collections.abc import Callable
from typing import Generic, TypeVar
from urllib.parse import parse_qsl, urlencode

from registry.connect import connect
from registry.directory import Directory
from registry.lookup.client.address import SCHEMES
from smartclient.adapters.names import Name, UnusableName, service_at

Client = TypeVar("Client")

OF_ONE_DATACENTER = frozenset({"static", *SCHEMES})
"""Schemes of registry addresses that cannot ask for another datacenter."""


class Services(Generic[Client]):
    """Clients by service; ``make(service, registry)`` makes one. ``registry``: as for ``AsyncSmartClient``."""

    def __init__(self, make: Callable[[str, str | Directory | None], Client], registry: str | Directory | None) -> None:
        self._make = make
        self._registry = registry
        self._clients: dict[Name, Client] = {}

    def at(self, scheme: str, host: str) -> Client | None:
        """Return the client that a URL of ``scheme`` and ``host`` goes to, None when it is no service's.

        Raises ``UnusableName``, and ``BadOption`` at a service's first use.
        """
        name = service_at(scheme, host)
        if name is None:
            return None
        return self._clients.get(name) or self._clients.setdefault(name, self._client(name))

    def take(self) -> list[Client]:
        """Return all clients, to close them; from here on new ones are made."""
        clients, self._clients = list(self._clients.values()), {}
        return clients

    def _client(self, name: Name) -> Client:
        registry = in_datacenter(self._registry, name.datacenter) if name.datacenter else self._registry
        return self._make(name.service, registry)


def in_datacenter(registry: str | Directory | None, datacenter: str) -> str:
    """Return the address that asks ``registry`` for another datacenter. Raises ``UnusableName`` where none does."""
    address = registry if isinstance(registry, str) else (registry or connect()).source
    place, _, query = address.partition("?")
    handed_in = registry is not None and not isinstance(registry, str)
    if handed_in or place.partition("://")[0].strip() in OF_ONE_DATACENTER:
        raise UnusableName(
            f"the datacenter {datacenter!r} cannot be looked up at {place}; leave it out of the URL, "
            f"or give the registry as a Consul's address: consul://HOST:PORT"
        )
    options = dict(parse_qsl(query, keep_blank_values=True))
    return f"{place}?{urlencode({**options, 'dc': datacenter})}"
