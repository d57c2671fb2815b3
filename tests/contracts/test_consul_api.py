"""The embedded registry answers as Consul does: the same requests to both, and what the first says the second says.

The embedded one may say less (no service mesh, no machine statistics) and never something else. Where Consul's own
versions differ, the newer way is accepted.
"""

import asyncio
import json
import os
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
import pytest

from registry.embedded import EmbeddedRegistry

pytestmark = pytest.mark.consul

S = f"api-{os.getpid()}"
HTTP = {"HTTP": "http://127.0.0.1:1/", "Interval": "1h", "Status": "passing"}
FULL = {
    "ID": f"{S}-1", "Name": S, "Address": "10.0.0.1", "Port": 9001, "Tags": ["x", "y"], "Meta": {"zone": "a"},
    "Weights": {"Passing": 10, "Warning": 2}, "Check": HTTP | {"CheckID": f"service:{S}-1", "Notes": "n"},
    "TaggedAddresses": {"wan": {"Address": "1.2.3.4", "Port": 80}},
}  # fmt: skip
# What belongs to the machine, the moment or the version, and not to the interface.
VOLATILE = {"Node", "NodeMeta", "CreateIndex", "ModifyIndex", "Output", "ContentHash", "Config", "Member", "Stats",
            "DebugConfig", "Type"}  # fmt: skip


@dataclass
class Step:
    """One request; ``newer``: the status newer versions of Consul give, where this one's agent gives another."""

    method: str
    path: str
    body: object = None
    newer: int | None = None

    def __str__(self):
        return f"{self.method} {self.path}"


def get(path):
    return Step("GET", path)


def put(path, body=None, newer=None):
    return Step("PUT", path, body, newer)


MINE = f"/v1/health/service/{S}"
OF_MINE = f'ServiceName == "{S}"'
# Where each may be asked, and the questions; wrong ones are 500 from old agents and 400 from newer ones.
FILTERS = {
    MINE: [
        "Service.Meta.zone == a",
        'Service.Meta["zone"] == `a`',
        "Service.Meta.zone != a",
        "Service.Meta.none == a",
        "Service.Meta.none != a",
        "Service.Meta.none not contains a",
        "Service.Meta is empty",
        "Service.Meta contains zone",
        "zone not in Service.Meta",
        "Service.Meta.zone contains a",
        "x in Service.Tags",
        '"x" not in Service.Tags',
        "Service.Tags contains y and Service.Tags not contains z",
        "Service.Tags is not empty",
        "Service.Tags contains 1",
        "Service.Port == 9002",
        'Service.Port != "9002"',
        'Service.Port == "0x2329"',
        "Service.Weights.Passing == 10",
        'Service.Address == ""',
        'Service["ID"] != ``',
        "Service.EnableTagOverride == F",
        "Service.TaggedAddresses.wan.Port == 80",
        "Service.TaggedAddresses contains lan_ipv4",
        "Service.TaggedAddresses.none.Port != 1",
        "Service.Kind == ``",
        "Service.Connect.Native == false",
        "Checks.Status == critical",
        "Checks.Status != passing",
        "Checks is empty",
        "Checks.ServiceTags not contains x",
        "Checks.Type == ttl",
        'Checks.CheckID == "serfHealth"',
        'Node.Node matches "^(dev|embedded)$"',
        "Node.Datacenter == dc1",
        "Node.TaggedAddresses contains lan_ipv4",
        "Service.ID matches `-[12]$`",
        'Service.ID not matches "-[^12]"',
        'Service.ID matches "(?i)^API-\\\\d+"',
        "Service.ID matches `^a.*[[:digit:]]{1,9}-(1|3)$`",
        f'Service.ID == "{S}-1" or Service.ID == "{S}-2" and Service.Port == 1',
        f'(Service.ID == "{S}-1" or Service.ID == "{S}-2") and Service.Port == 1',
        f' ( not ( Service.ID == "{S}-1" ) ) ',
        f'not not Service.ID == "{S}\\x2d1"',
        "Service.ID==a.b_c\nor Service.ID == -1.5",
        "Service.Tags contains not or Service.Tags contains contains",
        "  ",
        "==",
        "Service.ID",
        "Service.ID ==",
        'Service.ID == "a',
        "Service.ID == 'a'",
        "Service.ID == a-b",
        "Service.ID == 01",
        "Service.ID == 1a",
        'Service.ID == "\\q"',
        "(Service.ID == a",
        "Service.ID == a)",
        "Service.ID == a b",
        "Service.ID == a or",
        "Service.ID == a AND Service.ID == a",
        "not(Service.ID == a)",
        "(Service.ID == a)or Service.ID == b",
        'Service.ID == "a"and Service.ID == a',
        "Service.Meta[zone] == a",
        "Service.Meta.zone.x == a",
        "Service . ID == a",
        "Service.CreateIndex == 1",
        "Service.Port > 1",
        "Service.Port == a",
        'Service.Port == ""',
        "Service.Port == 99999999999999999999",
        "Service.Port contains 1",
        "Service.Port matches 1",
        "Service.Port is empty",
        "Service.ID is empty",
        "Service.EnableTagOverride == maybe",
        "Service.Tags == x",
        "Service.Tags.x == x",
        "Service == x",
        "Service.Bogus == x",
        "service.ID == x",
        "Checks == x",
        "Checks.Status in passing",
        "passing in Checks",
        "Service.ID matches `(`",
        "Service.ID matches `(?=a)`",
        "Service.ID matches `a**`",
        "Service.ID matches `a{1001}`",
        "not == x",
    ],
    f"{MINE}?passing&tag=x": ["Service.Meta.zone == a", "Service.Meta.zone == b"],
    f"/v1/catalog/service/{S}": [
        "ServiceMeta.zone == a", "ServiceTags contains x", "ServicePort != 9001", "ServiceWeights.Warning == 2",
        "ServiceTaggedAddresses.wan.Address == `1.2.3.4`", "ServiceKind == ``", "ServiceConnect.Native != true",
        "NodeMeta is not empty", "Datacenter != dc1", "Meta is empty", "Service == x",
    ],
    f"/v1/health/checks/{S}": ["Status == passing", "ServiceTags contains x", "Notes == n", "Bogus == n"],
    "/v1/health/state/any": [f"{OF_MINE} and Status == passing", f"{OF_MINE} and not Type == ttl", "x == 1"],
    "/v1/health/state/critical": [OF_MINE],
    "/v1/catalog/nodes": ["Meta is not empty", "Datacenter != dc1", "ID is empty"],
    "/v1/agent/services": [f'Service == "{S}"', f'Service == "{S}" and Meta.zone == a', "Datacenter == dc1"],
    "/v1/agent/checks": [OF_MINE, f"{OF_MINE} and Status != passing", "x == 1"],
}  # fmt: skip


def filters():
    return [
        Step("GET", f"{path}{'&' if '?' in path else '?'}filter={quote(expression)}", newer=400)
        for path, expressions in FILTERS.items()
        for expression in expressions
    ]


SCRIPT = [
    get(MINE),
    put("/v1/agent/service/register", FULL),
    put("/v1/agent/service/register", {"name": S, "id": f"{S}-2", "port": 9002, "checks": [{"ttl": "1h"}, HTTP]}),
    put("/v1/agent/service/register", {"Name": S, "ID": f"{S}-3", "Port": 9003}),
    get(MINE),
    get(f"{MINE}?passing"),
    get(f"{MINE}?passing=false"),
    get(f"{MINE}?passing&tag=x&tag=y"),
    get(f"{MINE}?tag=x&tag=none"),
    get(MINE.upper().replace("/V1/HEALTH/SERVICE", "/v1/health/service")),
    get(f"/v1/catalog/service/{S}"),
    get(f"/v1/catalog/service/{S}?tag=y"),
    get(f"/v1/health/checks/{S}"),
    get(f"/v1/agent/service/{S}-1"),
    get(f"/v1/agent/service/{S}-9"),
    get(f"/v1/agent/service/{S}-1?hash=another"),
    get(f"/v1/agent/service/{S}-1?hash=another&wait=x"),
    get(f"/v1/agent/service/{S}-9?hash=another"),
    get(f"/v1/agent/health/service/id/{S}-1?format=json"),
    get(f"/v1/agent/health/service/id/{S}-2?format=json"),
    get(f"/v1/agent/health/service/id/{S}-9?format=json"),
    get(f"/v1/agent/health/service/id/{S}-1?format=text"),
    get(f"/v1/agent/health/service/id/{S}-2?format=text"),
    get(f"/v1/agent/health/service/name/{S}"),
    get(f"/v1/agent/health/service/name/{S}?format=text"),
    get(f"/v1/agent/health/service/name/{S}-none"),
    *filters(),
    get(f"{MINE}?near=_agent&tag=x"),
    get(f"{MINE}?node-meta=no:thing"),
    get(f"{MINE}?cached&tag=x"),
    get(f"/v1/health/checks/{S}?node-meta=no:thing"),
    get(f"/v1/catalog/service/{S}?node-meta=no:thing"),
    get("/v1/catalog/services?node-meta=no:thing"),
    get("/v1/catalog/nodes?node-meta=no:thing"),
    get("/v1/catalog/nodes"),
    get("/v1/health/state/any?node-meta=no:thing"),
    get("/v1/health/state/odd"),
    get("/v1/health/node/none"),
    get("/v1/catalog/node/none"),
    get("/v1/status/leader"),
    put(f"/v1/agent/check/pass/service:{S}-2:1?note=hello"),
    put(f"/v1/agent/check/pass/service:{S}-1"),
    put(f"/v1/agent/check/pass/service:{S}-9", newer=404),
    get(f"{MINE}?passing"),
    put(f"/v1/agent/check/warn/service:{S}-2:1"),
    get(f"/v1/agent/health/service/id/{S}-2?format=json"),
    put(f"/v1/agent/check/update/service:{S}-2:1", {"Status": "critical", "Output": "o"}),
    put(f"/v1/agent/check/update/service:{S}-2:1", {"Status": "odd"}),
    get(MINE),
    put(f"/v1/agent/service/maintenance/{S}-1?enable=true&reason=why"),
    put(f"/v1/agent/service/maintenance/{S}-1"),
    put(f"/v1/agent/service/maintenance/{S}-1?enable=maybe"),
    put(f"/v1/agent/service/maintenance/{S}-9?enable=true"),
    get(MINE),
    get(f"/v1/agent/health/service/id/{S}-1?format=json"),
    put("/v1/agent/service/register", FULL),
    get(MINE),
    put("/v1/agent/service/register?replace-existing-checks=true", FULL),
    get(MINE),
    put("/v1/agent/check/register", {"Name": f"{S}-extra", "TTL": "1h", "ServiceID": f"{S}-3"}),
    put("/v1/agent/check/register", {"Name": f"{S}-extra", "TTL": "1h", "ServiceID": f"{S}-9"}),
    put("/v1/agent/check/register", {"TTL": "1h"}),
    get(MINE),
    put(f"/v1/agent/check/deregister/{S}-extra"),
    get(MINE),
    put("/v1/agent/service/register", {"ID": "x"}),
    put("/v1/agent/service/register", {"Name": S, "Weights": {"Passing": 0}}),
    put("/v1/agent/service/register", {"Name": S, "Meta": {"a b": ""}}),
    put("/v1/agent/service/register", {"Name": S, "Bogus": 1}),
    put("/v1/agent/service/register", {"Name": S, "Check": {"HTTP": "http://h/"}}),
    put("/v1/agent/service/register", {"Name": S, "Check": {"TTL": "soon"}}),
    put("/v1/agent/service/register", {"Name": S, "Check": {"TTL": "1h", "Status": "great"}}),
    get(f"{MINE}?index=x"),
    get(f"{MINE}?wait=x"),
    get(f"{MINE}?dc=none"),
    get(f"{MINE}?index=99999999999999999999999"),
    get(f"{MINE}?wait=10"),
    get(f"{MINE}?passing=maybe"),
    get(f"{MINE}?stale&consistent"),
    get(f"{MINE}?ns=other"),
    get("/v1/agent/services?ns=other"),
    get("/v1/agent/services?dc=none&index=x&tag=none&node-meta=no:thing&filter=ID==none"),
    get("/v1/health/service/"),
    get("/v1/health/checks/"),
    get("/v1/health/state/"),
    get("/v1/health/node/"),
    get("/v1/catalog/service/"),
    get("/v1/catalog/node/"),
    get("/v1/agent/service/"),
    put("/v1/agent/service/maintenance/?enable=true"),
    put("/v1/agent/service/deregister/", newer=400),
    put("/v1/agent/check/deregister/", newer=400),
    put("/v1/agent/check/pass/", newer=400),
    put("/v1/agent/check/update/"),
    put("/v1/agent/maintenance"),
    put("/v1/agent/service/register", "no json"),
    put("/v1/agent/service/register", ""),
    put("/v1/agent/service/register", "null"),
    put("/v1/agent/service/register", "[]"),
    put("/v1/agent/service/register", '{"Name": 1}'),
    put("/v1/agent/service/register", '{"Name": "s", "Tags": "x"}'),
    put("/v1/agent/service/register", '{"Name": "s", "Port": "80"}'),
    put("/v1/agent/service/register", '{"Name": "s", "Port": 99999999999999999999}'),
    put("/v1/agent/service/register", {"Name": S, "Weights": {"Passing": 70000}}),
    put("/v1/agent/service/register", {"Name": S, "Weights": {"Passing": 1, "Warning": -1}}),
    put("/v1/agent/service/register", {"Name": S, "Check": {"TTL": "10s", "HTTP": "http://h/", "Interval": "1s"}}),
    put("/v1/agent/service/register", {"Name": S, "Check": {"TTL": "10s", "DeregisterCriticalServiceAfter": "x"}}),
    put("/v1/agent/service/register", {"Name": S, "Check": {"TTL": "10000000000h"}}),
    put("/v1/agent/service/register", {"Name": S, "Checks": [{}]}),
    put("/v1/agent/service/register", {"Name": S, "ID": f"{S}-4", "Check": {}}),
    put(f"/v1/agent/service/deregister/{S}-4"),
    put("/v1/agent/check/register", ""),
    put("/v1/agent/check/register", "null"),
    put("/v1/agent/check/register", {"Name": "n", "TTL": "-1s"}),
    put(f"/v1/agent/check/update/service:{S}-2:1", ""),
    put(f"/v1/agent/check/update/service:{S}-2:1", "{}"),
    put(f"/v1/agent/check/update/{S}-none", {"Status": "passing"}, newer=404),
    Step("HEAD", MINE),
    Step("POST", "/v1/agent/service/register"),
    *[put(f"/v1/agent/service/deregister/{S}-{number}") for number in (1, 2, 3)],
    put(f"/v1/agent/service/deregister/{S}-9", newer=404),
    get(MINE),
    get(f"/v1/catalog/service/{S}"),
    put(f"/v1/kv/{S}/a?flags=3", "text"),
    put(f"/v1/kv/{S}/b/c", "more"),
    put(f"/v1/kv/{S}/empty"),
    put(f"/v1/kv/{S}/a?cas=0", "never"),
    get(f"/v1/kv/{S}/a"),
    get(f"/v1/kv/{S}/empty"),
    get(f"/v1/kv/{S}/a?raw"),
    get(f"/v1/kv/{S}/?recurse"),
    get(f"/v1/kv/{S}/?keys"),
    get(f"/v1/kv/{S}/?keys&separator=/"),
    get(f"/v1/kv/{S}/none"),
    get(f"/v1/kv/{S}/none?keys"),
    get("/v1/kv/"),
    get(f"/v1/kv/{S}/none?raw"),
    get(f"/v1/kv/{S}/a?dc=none"),
    get(f"/v1/kv/{S}/a?stale&consistent"),
    put("/v1/kv/", "text"),
    put(f"/v1/kv/{S}/a?flags=x", "text", newer=400),
    put(f"/v1/kv/{S}/a?flags=18446744073709551616", "text", newer=400),
    put(f"/v1/kv/{S}/a?flags=18446744073709551615", "text"),
    get(f"/v1/kv/{S}/a"),
    put(f"/v1/kv/{S}/a?cas=x", "text", newer=400),
    put(f"/v1/kv/{S}/large", "x" * (512 * 1024 + 1)),
    Step("DELETE", "/v1/kv/"),
    Step("DELETE", f"/v1/kv/{S}/a?cas=1"),
    Step("DELETE", f"/v1/kv/{S}/none"),
    Step("DELETE", f"/v1/kv/{S}?recurse"),
    get(f"/v1/kv/{S}/a"),
    get("/v1/catalog/datacenters"),
    get("/v1/no/such/thing"),
]


def differences(embedded, real, where=""):
    """What the embedded registry says that Consul does not."""
    if not embedded and not real:
        return []  # null, [] and {} are one to every client
    if isinstance(embedded, dict) and isinstance(real, dict):
        return [
            found
            for key, value in embedded.items()
            if key not in VOLATILE
            for found in (differences(value, real[key], f"{where}.{key}") if key in real else [f"{where}.{key} is new"])
        ]
    if isinstance(embedded, list) and isinstance(real, list) and len(embedded) == len(real):
        pairs = zip(embedded, real, strict=True)
        return [found for n, (mine, its) in enumerate(pairs) for found in differences(mine, its, f"{where}[{n}]")]
    return [] if embedded == real else [f"{where}: {embedded!r} and not {real!r}"]


def meaning(text):
    """JSON as it is, but for the order of checks, and the id and address of the machine."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, dict) and isinstance(value.get("Checks"), list):
        value["Checks"].sort(key=lambda check: check["CheckID"])
    for entry in value if isinstance(value, list) else []:
        if isinstance(entry, dict) and "Checks" in entry:
            entry["Checks"].sort(key=lambda check: check["CheckID"])
        elif isinstance(entry, dict) and "Node" in entry:
            entry.pop("ID", None)
            entry.pop("Meta", None)
    if isinstance(value, list) and all(isinstance(entry, dict) and "CheckID" in entry for entry in value):
        value.sort(key=lambda check: check["CheckID"])
    return "" if isinstance(value, str) else value


async def say(session, step):
    body = step.body if isinstance(step.body, str | None) else json.dumps(step.body)
    async with session.request(step.method, step.path, data=body) as reply:
        return reply.status, {name.lower() for name in reply.headers}, await reply.text()


async def test_the_embedded_registry_answers_as_consul_does(consul_agent):
    wrong = []
    async with (
        EmbeddedRegistry() as embedded,
        aiohttp.ClientSession(f"http://{embedded.address}") as mine,
        aiohttp.ClientSession(f"http://{consul_agent.address}") as its,
    ):
        for step in SCRIPT:
            status, headers, text = await say(mine, step)
            # An agent takes its own time to tell the catalog.
            for _ in range(40):
                real_status, real_headers, real_text = await say(its, step)
                same = not (status == 200 and differences(meaning(text), meaning(real_text)))
                if status == step.newer or (status == real_status and same):
                    break
                if step.method != "GET":
                    break
                await asyncio.sleep(0.05)
            if status not in {real_status, step.newer}:
                wrong.append(f"{step}: {status} and not {real_status}: {text!r}, {real_text!r}")
            elif status == 200 == real_status:
                wrong += [f"{step}: {found}" for found in differences(meaning(text), meaning(real_text))]
            missing = {name for name in real_headers - headers if name.startswith("x-consul")}
            if status == real_status < 500 and missing:
                wrong.append(f"{step}: lacks {missing}")
    assert not wrong, "\n".join(wrong)
