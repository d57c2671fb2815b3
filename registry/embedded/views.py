"""The catalog in the shapes of Consul's answers (read off a real agent, 1.8, and its documentation). Pure."""

import hashlib
import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec

from registry.embedded.catalog import Catalog, CheckRecord, ServiceRecord

DATACENTER = "dc1"
VERSION = "1.8.7"  # the API this registry was compared with

_RANKS = ["passing", "warning", "critical", "maintenance"]


class Machine(msgspec.Struct, frozen=True):
    """The one machine of this registry."""

    id: str
    name: str
    address: str

    def view(self) -> dict[str, Any]:
        """As ``Node``."""
        return {
            "ID": self.id,
            "Node": self.name,
            "Address": self.address,
            "Datacenter": DATACENTER,
            "TaggedAddresses": _both_networks(self.address, self.address) | {"lan": self.address, "wan": self.address},
            "Meta": {"embedded-registry": "true"},
            "CreateIndex": 1,
            "ModifyIndex": 1,
        }

    def has(self, meta: Iterable[str]) -> bool:
        """Whether its metadata has every one of these ``key:value`` pairs."""
        own = self.view()["Meta"]
        return all(own.get(key) == value for key, _, value in (pair.partition(":") for pair in meta))


def service_view(service: ServiceRecord) -> dict[str, Any]:
    """A service as the agent shows it."""
    view = {
        "ID": service.id,
        "Service": service.service,
        "Tags": service.tags,
        "Meta": service.meta,
        "Port": service.port,
        "Address": service.address,
        "TaggedAddresses": _tagged_addresses(service),
        "Weights": {"Passing": service.weights[0], "Warning": service.weights[1]},
        "EnableTagOverride": service.enable_tag_override,
    }
    if not view["TaggedAddresses"]:
        del view["TaggedAddresses"]
    return view


def content_hash(view: dict[str, Any]) -> str:
    """What changes when the view does, for ``?hash``; as long as Consul's."""
    return hashlib.blake2b(msgspec.json.encode(view), digest_size=8).hexdigest()


def check_view(record: CheckRecord, catalog: Catalog, machine: Machine) -> dict[str, Any]:
    """A check, wherever it is shown."""
    service = catalog.services.get(record.service_id)
    return {
        "Node": machine.name,
        "CheckID": record.id,
        "Name": record.name,
        "Status": record.status,
        "Notes": record.notes,
        "Output": record.output,
        "ServiceID": record.service_id,
        "ServiceName": service.service if service else "",
        "ServiceTags": service.tags if service else [],
        "Type": record.probe.kind,
        "Definition": {},
        "CreateIndex": record.create_index,
        "ModifyIndex": record.modify_index,
    }


def machine_check_views(catalog: Catalog, machine: Machine) -> list[dict[str, Any]]:
    """The checks of the machine; the first says that this process is alive, as Consul's gossip does of an agent."""
    alive = CheckRecord(
        id="serfHealth",
        name="Serf Health Status",
        status="passing",
        output="Agent alive and reachable",
        create_index=1,
        modify_index=1,
    )
    view = check_view(alive, catalog, machine) | {"Type": ""}
    return [view, *(check_view(each, catalog, machine) for each in catalog.checks_of(""))]


def health_entries(
    catalog: Catalog, machine: Machine, service: str, *, tags: list[str], passing_only: bool
) -> list[dict[str, Any]]:
    """The answer of ``/v1/health/service``; every one of ``tags`` must be there, without regard to case."""
    node, of_machine = machine.view(), machine_check_views(catalog, machine)
    entries = []
    for each in _tagged(catalog, service, tags):
        checks = of_machine + [check_view(record, catalog, machine) for record in catalog.checks_of(each.id)]
        if passing_only and any(record["Status"] != "passing" for record in checks):
            continue
        indexes = {"CreateIndex": each.create_index, "ModifyIndex": each.modify_index}
        entries.append({"Node": node, "Service": service_view(each) | indexes, "Checks": checks})
    return entries


def catalog_entries(catalog: Catalog, machine: Machine, service: str, *, tags: list[str]) -> list[dict[str, Any]]:
    """The answer of ``/v1/catalog/service``."""
    of_machine = machine.view()
    of_machine["NodeMeta"] = of_machine.pop("Meta")
    return [_catalog_entry(of_machine, each) for each in _tagged(catalog, service, tags)]


def service_tags(catalog: Catalog) -> dict[str, list[str]]:
    """The answer of ``/v1/catalog/services``: every name with all tags of its instances."""
    found: dict[str, set[str]] = {}
    for each in catalog.services.values():
        found.setdefault(each.service, set()).update(each.tags)
    return {name: sorted(found[name]) for name in sorted(found)}


def agent_health(catalog: Catalog, machine: Machine, service: ServiceRecord) -> dict[str, Any]:
    """An instance with its worst status, by its own checks and the machine's."""
    records = [*catalog.checks_of(""), *catalog.checks_of(service.id)]
    statuses = ["maintenance" if each.probe.kind == "maintenance" else each.status for each in records]
    checks = [check_view(each, catalog, machine) for each in records]
    return {"AggregatedStatus": worst(statuses), "Service": service_view(service), "Checks": checks}


def worst(statuses: Iterable[str]) -> str:
    """The worst of these; passing when there are none."""
    return max(statuses, key=_RANKS.index, default="passing")


def self_view(machine: Machine, port: int) -> dict[str, Any]:
    """The answer of ``/v1/agent/self``, as far as clients look at it."""
    config = {"Datacenter": DATACENTER, "NodeName": machine.name, "NodeID": machine.id, "Server": True}
    tags = {"role": "consul", "dc": DATACENTER, "id": machine.id, "build": f"{VERSION}:embedded"}
    return {
        "Config": config | {"Version": VERSION, "Revision": "embedded"},
        "DebugConfig": {},
        "Member": {"Name": machine.name, "Addr": machine.address, "Port": port, "Tags": tags, "Status": 1},
        "Stats": {"consul": {"server": "true", "leader": "true"}},
        "Meta": machine.view()["Meta"],
    }


def _catalog_entry(of_machine: dict[str, Any], service: ServiceRecord) -> dict[str, Any]:
    tagged_addresses = _tagged_addresses(service)
    return (
        of_machine
        | {
            "ServiceKind": "",
            "ServiceID": service.id,
            "ServiceName": service.service,
            "ServiceTags": service.tags,
            "ServiceAddress": service.address,
            "ServiceWeights": {"Passing": service.weights[0], "Warning": service.weights[1]},
            "ServiceMeta": service.meta,
            "ServicePort": service.port,
            "ServiceEnableTagOverride": service.enable_tag_override,
            "CreateIndex": service.create_index,
            "ModifyIndex": service.modify_index,
        }
        | ({"ServiceTaggedAddresses": tagged_addresses} if tagged_addresses else {})
    )


def _tagged(catalog: Catalog, service: str, tags: list[str]) -> list[ServiceRecord]:
    wanted = {tag.lower() for tag in tags}
    return [each for each in catalog.named(service) if wanted <= {tag.lower() for tag in each.tags}]


def _tagged_addresses(service: ServiceRecord) -> dict[str, Any]:
    found = _both_networks(service.address, (service.address, service.port)) | service.tagged_addresses
    return {key: {"Address": address, "Port": port} for key, (address, port) in found.items()}


def _both_networks(address: str, value: Any) -> dict[str, Any]:
    """``lan_ipv4`` and ``wan_ipv4`` (or 6) of an IP address; nothing of a host name."""
    version = _ip_version(address)
    return {f"lan_ipv{version}": value, f"wan_ipv{version}": value} if version else {}


@lru_cache(maxsize=16384)
def _ip_version(address: str) -> int:
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return 0
