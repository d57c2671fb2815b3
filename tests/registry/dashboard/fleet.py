"""Fleets to look at: members, services, a world around them, and what clients and nodes say of them."""

import msgspec

from registry.consul.reports import CheckReport
from registry.dashboard.calls import Calls
from registry.dashboard.journal import Journal
from registry.dashboard.model import Fleet, Member, NodeLoad, Registry, Service
from registry.dashboard.orders import Order, Stage, Step
from registry.dashboard.series import Series
from registry.dashboard.shell import parts, shell
from registry.dashboard.wire import NodeReport, Report
from registry.dashboard.world import World
from registry.model import Health, Instance
from registry.testing import ManualClock
from tests.registry.dashboard.drawing import RENDERER, roots

NOW = ManualClock().time()


class Said:
    """What nodes say, by (service, id), as ``Loads`` answers."""

    def __init__(self, loads=()):
        self.loads = dict(loads)

    def get(self, service, instance):
        return self.loads.get((service, instance))


class Given:
    """Orders, newest last, as ``Drains`` answers."""

    def __init__(self, *orders):
        self.given = orders

    def order(self, order_id):
        return next((each for each in self.given if each.id == order_id), None)

    def orders(self):
        return self.given[::-1]

    def of(self, service, instance):
        return next((each for each in self.orders() if each.service == service and instance in each.steps), None)


def member(name="digits-1", service="digits", *, health="passing", since=60.0, checks=(), twostep=True, **fields):
    """A member so for ``since`` seconds; ``twostep``: it is a Twostep node, else one that takes no orders."""
    meta = {**({"load": "/load"} if twostep else {}), **fields.pop("meta", {})}
    fields = {"address": "10.0.0.1", "port": 8080, "node": "machine-1", **fields}
    found = Instance(id=name, service=service, health=Health(health), meta=meta, **fields)
    return Member(instance=found, checks=tuple(checks), since=NOW - since, joined=NOW - 3600, witnessed=True)


def check(status="passing", output="", **fields):
    """A check of the service itself."""
    return CheckReport(
        **{"check_id": "c", "name": "HTTP", "service_id": "s", "status": status, "output": output, **fields}
    )


def service(name, *members):
    """A service, members in the order of their ids."""
    return Service(name=name, members=tuple(sorted(members, key=lambda each: each.id)))


def many(count, name="digits", **fields):
    """A service of so many members, ids padded so that they sort as they count."""
    return service(name, *(member(f"{name}-{number:04}", name, **fields) for number in range(count)))


def fleet(*services, version=1, live=True, heard=True):
    """A fleet of services, ordered by name."""
    registry = Registry(source="consul://127.0.0.1:8500", live=live, heard_at=NOW if heard else None)
    named = {each.name: each for each in sorted(services, key=lambda each: each.name)}
    return Fleet(registry=registry, services=named, version=version)


def world(*services, seen=None, loads=(), calls=None, journal=None, series=None, orders=(), can_act=True, floor=1):
    """A world at ``NOW`` of these services, or of the fleet ``seen``."""
    return World(
        now=NOW,
        fleet=seen or fleet(*services),
        loads=Said(loads),
        calls=calls or Calls(ManualClock()),
        journal=journal or Journal(),
        series=series or Series(),
        drains=Given(*orders),
        cluster="lab",
        floor=floor,
        about={},
        can_act=can_act,
    )


def load(**said):
    """What a node said just now."""
    return NodeLoad(**{"at": NOW, **said})


def reported(*nodes, service="digits", client="ada", period=5.0, clock=None, calls=None):
    """``Calls`` after one report about ``nodes``: fields of ``NodeReport``."""
    calls = calls or Calls(clock or ManualClock())
    report = Report(client=client, service=service, period=period, nodes=[NodeReport(**each) for each in nodes])
    calls.take(msgspec.json.encode(report), "10.0.0.9")
    return calls


def order(number=1, kind="drain", *, service="digits", **stages):
    """An order of ada's; ``stages``: by instance id with ``_`` for ``-``, a stage or fields of ``Step``."""
    steps = {
        name.replace("_", "-"): Step(**{"at": NOW - 10, **said, "stage": Stage(said["stage"])})
        for name, said in ((name, said if isinstance(said, dict) else {"stage": said}) for name, said in stages.items())
    }
    return Order(
        id=str(number), kind=kind, service=service, who="ada", why="kernel update", begun_at=NOW - 60, steps=steps
    )


def draw(page, seen, session=None):
    """Return the page's view and its HTML; a part is one element with its id, on the page or not."""
    view = page.view(seen)
    made = {name: RENDERER.part(part) for name, part in page.parts(view, seen).items()}
    again = page.parts(page.view(seen), seen)
    for name, html in made.items():
        assert roots(html) == [name]
        assert again[name].key == page.parts(view, seen)[name].key
        hash(again[name].key)
    assert set(page.order(view)) <= set(made)
    around = shell(seen, name=page.name, here=page.here, version="v", theme="auto", session=session, live=True)
    framed = {name: RENDERER.part(part) for name, part in parts(seen).items()}
    html = RENDERER.page(
        page.template, shell=around, title=page.title, view=view, parts={**framed, **made}, page=page, now=seen.now
    )
    assert all(each in html or f'id="{name}"' not in html for name, each in made.items())
    assert set(page.order(view)) <= {name for name, each in made.items() if each in html}
    msgspec.json.encode(view, enc_hook=str)
    return view, html
