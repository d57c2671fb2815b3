import asyncio
import random
from pathlib import Path

import pytest
from aiohttp import web

from registry.errors import RegistryUnavailable
from registry.model import Health
from registry.testing import ManualClock, ScriptedDirectory, instance
from smartclient import AsyncSmartClient
from smartclient.errors import (
    BadInput,
    BadOption,
    ClientClosed,
    NoEndpoints,
    RegistryGone,
    ServiceUnknown,
)
from smartclient.testing import DEAD, Reply, ScriptedTransport, classified


@pytest.fixture
def transport(clock: ManualClock) -> ScriptedTransport:
    return ScriptedTransport(clock, otherwise=classified("7"))


@pytest.fixture
async def client(clock: ManualClock, transport: ScriptedTransport):
    directory = ScriptedDirectory([instance(1), instance(2)])
    async with AsyncSmartClient("digits", directory, transport=transport, clock=clock, rng=random.Random(1)) as made:
        yield made


async def test_classify_gives_the_best_class_and_who_said_so(client: AsyncSmartClient, tmp_path: Path) -> None:
    path = tmp_path / "7.png"
    path.write_bytes(b"png")
    best = await client.classify(path, top=3)
    assert (best.label, best.score, best.node, best.attempts) == ("7", 0.9, "digits-1", 1)


async def test_classify_is_tried_again_elsewhere(client: AsyncSmartClient, transport: ScriptedTransport) -> None:
    transport.script("127.0.0.1:9001", Reply(status=500), classified())
    results = [await client.classify(b"png") for _ in range(2)]
    assert sum(result.attempts for result in results) == 3
    assert {each.request.target for each in transport.sent} == {"/classify?top=5"}


async def test_classify_many_reports_each_failure_and_goes_on(
    client: AsyncSmartClient, transport: ScriptedTransport, tmp_path: Path
) -> None:
    good = tmp_path / "good.png"
    good.write_bytes(b"png")
    results = {each.image: each async for each in client.classify_many([good, "nowhere.png", b"png"])}
    assert results[good].result.label == results[b"png"].result.label == "7"
    assert isinstance(results["nowhere.png"].error, BadInput)


LACKING = Reply(status=404, body=b'{"error": "there is no model \'cats\' here", "reason": "not_found"}')


async def test_a_model_and_a_version_may_be_named(client: AsyncSmartClient, transport: ScriptedTransport) -> None:
    await client.classify(b"png", model="cats", version="2")
    assert [each.result.label async for each in client.classify_many([b"a"], model="cats")] == ["7"]
    targets = [each.request.target for each in transport.sent]
    assert targets == ["/classify?top=5&model=cats&version=2", "/classify?top=5&model=cats"]


async def test_where_one_node_lacks_the_model_another_is_asked(
    client: AsyncSmartClient, transport: ScriptedTransport
) -> None:
    transport.script("127.0.0.1:9001", LACKING)
    results = [await client.classify(b"png", version="2") for _ in range(10)]
    assert {result.label for result in results} == {"7"}
    assert sum(result.attempts for result in results) == len(transport.sent) > 10
    endpoints = client.snapshot()["balancer"]["endpoints"]
    assert [(each["state"], each["failed"]) for each in endpoints] == [("closed", 0)] * 2


async def test_a_model_that_no_node_has_is_asked_of_each_once_and_told_with_their_names(
    client: AsyncSmartClient, transport: ScriptedTransport
) -> None:
    for node in ("127.0.0.1:9001", "127.0.0.1:9002"):
        transport.script(node, LACKING)
    with pytest.raises(
        BadInput, match=r"^digits-[12]: there is no model 'cats' here \(digits-[12]: HTTP 404"
    ) as caught:
        await client.classify(b"png", model="cats")
    assert (caught.value.status, caught.value.reason) == (404, "not_found")
    assert {each.endpoint for each in transport.sent} == {"127.0.0.1:9001", "127.0.0.1:9002"}
    assert len(transport.sent) == 2


async def test_a_404_for_no_model_in_particular_is_not_asked_about_again(
    client: AsyncSmartClient, transport: ScriptedTransport
) -> None:
    for node in ("127.0.0.1:9001", "127.0.0.1:9002"):
        transport.script(node, LACKING)
    with pytest.raises(BadInput):
        await client.classify(b"png")
    assert (await client.get("/v2/models/cats")).status == 404
    assert len(transport.sent) == 2


async def test_asking_elsewhere_for_a_model_is_paid_from_the_budget_of_retries(clock: ManualClock) -> None:
    transport = ScriptedTransport(clock, otherwise=LACKING)
    directory = ScriptedDirectory([instance(number) for number in range(1, 9)])
    async with AsyncSmartClient("digits", directory, transport=transport, clock=clock, attempts=2) as client:
        for _ in range(200):
            with pytest.raises(BadInput):
                await client.classify(b"png", model="cats")
    assert len(transport.sent) == 240, "a fifth more"


async def test_a_request_carries_what_it_was_given(client: AsyncSmartClient, transport: ScriptedTransport) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await client.post("things", json={"a": 1}, params={"q": "a b", "n": 2}, headers={"traceparent": trace})
    await client.request("put", "/x?y=1", params={"z": 1}, data="é")
    first, second = transport.sent
    assert (first.request.method, first.request.target) == ("POST", "/things?q=a+b&n=2")
    assert first.request.body == b'{"a":1}'
    assert first.headers["Content-Type"] == "application/json"
    assert first.headers["traceparent"] == trace
    assert (second.request.method, second.request.target) == ("PUT", "/x?y=1&z=1")
    assert second.request.body == "é".encode()


async def test_a_caller_may_take_the_content_type_into_his_own_hands(
    client: AsyncSmartClient, transport: ScriptedTransport
) -> None:
    await client.post("/", json={}, headers={"Content-Type": "application/vnd.x+json"})
    assert transport.sent[0].headers["Content-Type"] == "application/vnd.x+json"


async def test_any_status_is_returned_by_request(client: AsyncSmartClient, transport: ScriptedTransport) -> None:
    transport.script("127.0.0.1:9001", Reply(status=404, body=b"none"))
    transport.script("127.0.0.1:9002", Reply(status=404, body=b"none"))
    response = await client.get("/")
    assert (response.status, response.text(), response.ok) == (404, "none", False)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"attempts": 0}, {"policy": "fastest"}, {"registry": "gopher://somewhere"}]
)
def test_an_option_that_cannot_be_used_is_refused_at_once(options: dict[str, object]) -> None:
    with pytest.raises(BadOption):
        AsyncSmartClient("digits", **options)


async def test_bad_arguments_of_a_call_are_refused(client: AsyncSmartClient) -> None:
    with pytest.raises(BadOption, match="not both"):
        await client.post("/", data=b"x", json={})
    with pytest.raises(BadOption, match="json cannot be encoded"):
        await client.post("/", json={"a": object()})
    with pytest.raises(BadOption, match="above 0"):
        await client.get("/", timeout=0)


async def test_no_registry_and_an_unknown_service_are_told_at_the_first_call(
    clock: ManualClock, transport: ScriptedTransport
) -> None:
    directory = ScriptedDirectory([])
    async with AsyncSmartClient("digits", directory, transport=transport, clock=clock) as client:
        directory.fail(RegistryUnavailable("connection refused"))
        with pytest.raises(RegistryGone, match="connection refused"):
            await client.classify(b"png")
        directory.heal()
        with pytest.raises(ServiceUnknown, match="twostep node"):
            await client.ready()
        directory.set([instance(1, health=Health.DRAINING)])
        await clock.settle()
        with pytest.raises(NoEndpoints, match="1 draining"):
            await client.classify(b"png")
        directory.set([instance(1)])
        await clock.settle()
        assert (await client.classify(b"png")).label == "7"


async def test_a_registry_that_never_answers_costs_the_deadline_at_most(transport: ScriptedTransport) -> None:
    class Silent(ScriptedDirectory):
        async def lookup(self, service: str, **filters: object) -> None:
            await asyncio.Event().wait()

    async with AsyncSmartClient("digits", Silent([]), transport=transport) as client:
        with pytest.raises(RegistryGone, match=r"scripted.*said nothing within 0\.05 s"):
            await client.get("/", timeout=0.05)


async def test_after_close_it_says_so(client: AsyncSmartClient, transport: ScriptedTransport) -> None:
    await client.classify(b"png")
    await client.close()
    await client.close()
    with pytest.raises(ClientClosed, match="'digits' is closed; make another"):
        await client.classify(b"png")
    with pytest.raises(ClientClosed):
        await client.ready()
    assert not transport.closed, "it was handed in, so it is not ours to close"
    assert client.snapshot()["closed"]


async def test_the_snapshot_shows_every_part(client: AsyncSmartClient, transport: ScriptedTransport) -> None:
    transport.script("127.0.0.1:9001", DEAD)
    for _ in range(3):
        await client.classify(b"png")
    shown = client.snapshot()
    assert shown["service"] == "digits"
    assert shown["discovery"]["instances"] == 2
    assert shown["balancer"]["policy"] == "probed"
    assert [each["id"] for each in shown["balancer"]["endpoints"]] == ["digits-1", "digits-2"]
    assert shown["calls"]["calls"] == 3
    assert shown["transport"]["sent"] == 3 + shown["calls"]["retries"]


async def test_the_registry_comes_from_the_environment(fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = await fleet(2)
    monkeypatch.setenv("TWOSTEP_REGISTRY", f"static://{nodes[0].address},{nodes[1].address}")
    async with AsyncSmartClient("digits") as client:
        assert {(await client.classify(b"png")).node for _ in range(4)} == {"digits-1", "digits-2"}


async def test_another_kind_of_server_still_takes_requests(fleet) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read(), headers={"X-Path": request.path_qs})

    nodes = await fleet(1, handler=echo)
    async with AsyncSmartClient("echo", f"static://{nodes[0].address}") as client:
        response = await client.post("/anything", data=b"..", params={"a": "1"})
        assert (response.body, response.headers["x-path"]) == (b"..", "/anything?a=1")
        assert (await client.request("HEAD", "/x")).status == 200
