"""The architecture, executed: arrows between modules point down only, and nothing goes round in a circle.

``FLOORS`` lists each package's modules from the bottom up; a module may import its own floor and those below. What is
not listed fails the test, so a new module has to be given its place.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {  # who may import whom, besides themselves
    "registry": set(),
    "node": {"registry"},
    "smartclient": {"registry"},
    "infra": {"registry", "node", "smartclient"},
}
FLOORS: dict[str, list[set[str]]] = {
    "registry": [
        {"errors", "timing", "model", "wording"},
        {"query", "token", "waiting", "serving"},
        {"directory", "stepwise"},
        {"rules", "watch", "testing"},
        {"static", "registration"},
        {"consul", "consul.codec", "consul.settings"},
        {"consul.reports", "consul.transport"},
        {"consul.http"},
        {"consul.reads"},
        {"consul.directory"},
        {"coldstart", "coldstart.files"},
        {"coldstart.lastlist"},
        {"coldstart.directory"},
        {"lookup", "lookup.wire"},
        {
            "lookup.client",
            "lookup.client.replica",
            "lookup.client.address",
            "lookup.client.rotation",
            "lookup.client.lines",
        },
        {"lookup.client.http", "lookup.client.stream"},
        {"lookup.client.services"},
        {"lookup.client.directory"},
        {"connect"},
        {"lookup.refused", "lookup.subset", "lookup.journal", "lookup.turns"},
        {"lookup.question", "lookup.outlet", "lookup.view"},
        {"lookup.reader", "lookup.feed"},
        {"lookup.hub"},
        {"lookup.metrics"},
        {"lookup.http"},
        {"lookup.service"},
        {"lookup.cli"},
        {"show", "show.explain"},
        {"show.changes", "show.tables"},
        {"show.command"},
        {
            "dashboard",
            "dashboard.model",
            "dashboard.wire",
            "dashboard.series",
            "dashboard.shelf",
            "dashboard.latencies",
        },
        {"dashboard.access", "dashboard.asking", "dashboard.guard", "dashboard.orders", "dashboard.render"},
        {"dashboard.fold", "dashboard.journal", "dashboard.reading", "dashboard.tally", "dashboard.charts"},
        {"dashboard.source", "dashboard.drains", "dashboard.loads", "dashboard.intake"},
        {"dashboard.calls"},
        {"dashboard.world"},
        {"dashboard.state", "dashboard.page"},
        {"dashboard.shell", "dashboard.live", "dashboard.reply"},
        {"dashboard.address", "dashboard.figures"},
        {"dashboard.rows"},
        {"dashboard.listing"},
        {"dashboard.pages", "dashboard.pages.equivalents"},
        {
            "dashboard.pages.attention",
            "dashboard.pages.calls",
            "dashboard.pages.commands",
            "dashboard.pages.confirm",
            "dashboard.pages.events",
            "dashboard.pages.instances",
            "dashboard.pages.lookup",
            "dashboard.pages.problem",
            "dashboard.pages.order",
        },
        {
            "dashboard.pages.about",
            "dashboard.pages.instance",
            "dashboard.pages.overview",
            "dashboard.pages.service",
            "dashboard.pages.signin",
        },
        {"dashboard.routing", "dashboard.acting", "dashboard.streams"},
        {"dashboard.http"},
        {"dashboard.service"},
        {"dashboard.cli"},
        {"embedded.catalog"},
        {"embedded.kv"},
        {"embedded.regex"},
        {"embedded.definitions", "embedded.views", "embedded.checks", "embedded.store"},
        {"embedded.filtering"},
        {"embedded.fields"},
        {"embedded.core"},
        {"embedded.agent_api", "embedded.read_api", "embedded.kv_api"},
        {"embedded.http"},
        {"embedded.server"},
        {"embedded"},
        {"cli"},
    ],
    "node": [
        {"errors", "latency", "load", "tally", "ticket", "runtimes.quiet", "runtimes.reasons", "connections"},
        {"tensors", "machine", "metrics", "access", "tls", "lifecycle", "admission"},
        {"preprocessing", "body", "membership", "peer", "together"},
        {"images"},
        {"listener", "decoding", "dataset"},
        {"runtimes", "runtimes.base", "runtimes.applications"},
        {"models", "testing", "compute", "runtimes.pieces", "runtimes.ports"},
        {"batcher", "runtimes.tensorflow", "runtimes.litert", "runtimes.onnx", "runtimes.python"},
        {"runtimes.convert", "runtimes.engines", "training"},
        {"runtimes.select.agreement", "runtimes.select.timing", "runtimes.select.samples"},
        {"runtimes.select.choosing", "runtimes.select.facts"},
        {"runtimes.select.jobs"},
        {"runtimes.select.cache", "runtimes.select.supervise"},
        {"runtimes.select.opening"},
        {"runtimes.select"},
        {"runtimes.select.trial"},
        {"served"},
        {"repository"},
        {"versions", "settings", "config", "intake"},
        {"tracing", "aside"},
        {"protocols", "protocols.orders", "protocols.image"},
        {"protocols.admin"},
        {
            "protocols.oip",
            "protocols.oip.binary",
            "protocols.oip.classification",
            "protocols.oip.jsonarray",
            "protocols.oip.wire",
        },
        {"protocols.oip.inputs"},
        {"protocols.oip.request"},
        {"protocols.oip.answer", "protocols.oip.describe"},
        {"protocols.oip.handlers"},
        {"protocols.oip.control"},
        {"protocols.tfserving", "protocols.tfserving.answer", "protocols.tfserving.elements"},
        {"protocols.tfserving.request"},
        {"protocols.tfserving.describe", "protocols.tfserving.examples"},
        {"protocols.tfserving.handlers"},
        {"openapi", "openapi.oip"},
        {"openapi.operations", "openapi.schemas"},
        {"openapi.document"},
        {"surface"},
        {"server"},
        {"run"},
        {"cli"},
    ],
    "smartclient": [
        {"errors", "stats", "load", "window", "episode"},
        {"breaker", "throttle", "hedge", "tls", "bearer"},
        {"endpoint"},
        {"policy"},
        {"policies", "policies.weights", "policies.hashing", "policies.asking", "policies.stride"},
        {"policies.draw", "policies.ring", "policies.scores", "policies.service", "policies.pool"},
        {"policies.rotation", "policies.p2c", "policies.prequal", "policies.hash_order", "policies.part"},
        {"policies.rotation_p2c", "policies.reported_load", "policies.consistent_hash"},
        {"policies.probed", "policies.subset", "policies.zone", "policies.split"},
        {"policies.select"},
        {"retry", "cache", "many", "paths"},
        {"balancer"},
        {"explain"},
        {"transport"},
        {"options", "probe", "wire", "wire.bodies", "wire.head", "wire.progress"},
        {"wire.deadlines", "wire.streamed"},
        {"wire.exchange", "wire.session"},
        {"aiohttp_transport"},
        {"attempt"},
        {"race"},
        {"call"},
        {"spans"},
        {"tracing"},
        {"refusals"},
        {"inference", "metadata", "oip", "reporter", "response", "testing"},
        {"tensors"},
        {"client"},
        {"sync"},
        {"metrics"},
        {"simulation", "simulation.service", "simulation.timeline"},
        {"simulation.scenario", "simulation.attempt"},
        {"simulation.node", "simulation.result", "simulation.scenarios", "simulation.workload"},
        {"simulation.client", "simulation.oracle"},
        {"simulation.chart", "simulation.described"},
        {"simulation.world"},
        {"simulation.runs"},
        {"simulation.cli"},
        {"adapters", "adapters.calls", "adapters.names"},
        {"adapters.services", "adapters.trouble"},
        {"adapters.borrowed"},
        {"adapters.aiohttp_errands"},
        {"adapters.aiohttp", "adapters.httpx", "adapters.requests"},
        {"cli"},
    ],
    "infra": [
        {"leash"},
        {"consul", "consul.agent"},
        {"fleet"},
        {"load"},
        {
            "demo",
            "bench",
            "bench.baseline",
            "bench.catalog",
            "bench.echo",
            "bench.sink",
            "bench.material",
            "bench.relay",
            "bench.closed",
            "bench.dashboard_fleet",
            "bench.keeper",
            "bench.processes",
            "bench.environments",
            "bench.rivals",
            "bench.rivals.frozen",
        },
        {"bench.dashboard_folding", "bench.dashboard_registry", "bench.dashboard_viewers"},
        {"bench.pressure", "bench.rivals.litserve_app", "bench.rivals.mosec_app", "bench.rivals.naive"},
        {"bench.bare", "bench.weights", "bench.servers"},
        {"bench.outage", "bench.readers", "bench.watcher", "bench.engine", "bench.child"},
        {"bench.engines"},
        {"bench.arrivals"},
        {"bench.turns"},
        {"bench.standing"},
        {"bench.start", "bench.registry", "bench.tails", "bench.picks", "bench.node", "bench.dashboard"},
        {"bench.client"},
        {"bench.cli"},
        {"cli"},
    ],
}


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its name below the package; the package's own ``__init__`` is left out."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


def imports(path: Path) -> set[str]:
    """The dotted names a file imports anywhere, also inside functions; ``from a import b`` gives ``a`` and ``a.b``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module))
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_packages_below_it(package: str) -> None:
    forbidden = set(PACKAGES) - PACKAGES[package] - {package}
    for name, path in modules(package).items():
        used = {imported.partition(".")[0] for imported in imports(path)}
        assert not used & forbidden, f"{package}.{name} imports {used & forbidden}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_its_floor(package: str) -> None:
    listed = set().union(*FLOORS[package])
    assert set(modules(package)) == listed


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_inside_a_package_point_down(package: str) -> None:
    floor_of = {name: number for number, floor in enumerate(FLOORS[package]) for name in floor}
    for name, path in modules(package).items():
        for imported in imports(path):
            below = imported.removeprefix(f"{package}.")
            if imported.startswith(f"{package}.") and below in floor_of and below != name:
                assert floor_of[below] <= floor_of[name], f"{package}.{name} imports {imported}, which is above it"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_through_others(package: str) -> None:
    known = modules(package)
    graph = {
        name: {
            used
            for imported in imports(path)
            if (used := imported.removeprefix(f"{package}.")) in known and imported != used and used != name
        }
        for name, path in known.items()
    }

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            each = waiting.pop()
            if each not in seen:
                seen.add(each)
                waiting.extend(graph[each])
        return seen

    circular = [name for name in graph if name in reach(name)]
    assert not circular


def test_the_parts_beside_each_other_know_nothing_of_each_other() -> None:
    parts = ("embedded", "lookup", "dashboard")
    for name, path in modules("registry").items():
        part = name.partition(".")[0]
        if part in parts:
            others = {f"registry.{other}" for other in parts if other != part} - {"registry.lookup.client"}
            used = {each for each in imports(path) if any(each.startswith(f"{other}.") for other in others)}
            assert not {each for each in used if not each.startswith("registry.lookup.client")}, f"registry.{name}"


def test_the_embedded_registry_is_used_by_the_command_only() -> None:
    users = {
        f"{package}.{name}"
        for package in PACKAGES
        for name, path in modules(package).items()
        if any(imported.startswith("registry.embedded") for imported in imports(path))
        and not f"{package}.{name}".startswith("registry.embedded")
    }
    assert users == {"registry.cli"}
