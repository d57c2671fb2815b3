"""Which service a host name means, by the rules of Consul's DNS.

    [TAG.]SERVICE.service[.DATACENTER[.dc]].consul

Every other name is somebody else's, also Consul's own other kinds (``.node.consul``, ``.query.consul``). What can be
said in DNS but not asked of the balancer is refused in one line, for leaving it out would call the wrong nodes.
"""

import msgspec

from smartclient.errors import ClientError

DOMAIN = "consul"
KIND = "service"


class UnusableName(ClientError):
    """A URL that means a service of Consul's, but cannot be asked for as it is written."""


class Name(msgspec.Struct, frozen=True):
    """A service, and the datacenter it is looked up in; empty: the registry's own."""

    service: str
    datacenter: str = ""


def service_of(host: str) -> Name | None:
    """Return the service that ``host`` names, None when it is no service's. Raises ``UnusableName``."""
    labels = host.lower().removesuffix(".").split(".")
    if labels[-1] != DOMAIN or KIND not in labels:
        return None
    kind = len(labels) - 1 - labels[::-1].index(KIND)  # the last one, as Consul reads it: a service may be so named
    *tags, service = labels[:kind] or [""]
    rest = labels[kind + 1 : -1]
    if not service:
        raise UnusableName(f"{host!r} names no service; write http://NAME.service.consul/")
    if len(rest) == 2 and rest[1] == "dc":
        rest.pop()
    if len(rest) > 1:
        raise UnusableName(
            f"{host!r} asks for more than a datacenter; write {service}.service.DATACENTER.consul, "
            f"and give a namespace in the registry's address: consul://HOST:PORT?namespace=NAME"
        )
    if tags:
        raise UnusableName(
            f"{host!r} asks for the tag {'.'.join(tags)!r}, but a client balances over all of a service; "
            f"write {service}.service.consul, or register those instances as a service of their own"
        )
    return Name(service, rest[0] if rest else "")


def service_at(scheme: str, host: str) -> Name | None:
    """Return the service that a URL of ``scheme`` and ``host`` means, None for others. Raises ``UnusableName``."""
    name = service_of(host)
    if name is not None and scheme.lower() != "http":
        raise UnusableName(
            f"{scheme}://{host} cannot be asked for: whether a node speaks TLS is said where it is registered "
            f"(metadata scheme=https); write http://{host}"
        )
    return name
