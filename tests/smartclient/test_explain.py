"""Why a node was chosen, as a client tells it and in words."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from registry.model import Health
from registry.testing import ManualClock, ScriptedDirectory, instance
from smartclient import AsyncSmartClient
from smartclient.explain import SHOWN, told
from smartclient.testing import DEAD, HUNG, Reply, ScriptedTransport


def client_of(clock: ManualClock, policy: str, *instances: object) -> AsyncSmartClient:
    return AsyncSmartClient(
        "digits",
        ScriptedDirectory(instances or [instance(1), instance(2), instance(3)]),
        policy=policy,
        transport=ScriptedTransport(clock),
        clock=clock,
        rng=random.Random(4),
    )


def transport_of(client: AsyncSmartClient) -> ScriptedTransport:
    return client._transport


@pytest.fixture
async def client(clock: ManualClock) -> AsyncIterator[AsyncSmartClient]:
    async with client_of(clock, "rotation") as made:
        yield made


async def test_what_is_told_is_the_choice_that_was_made(client: AsyncSmartClient) -> None:
    for _ in range(6):
        with client.choices() as choices:
            answer = await client.get("/")
        [choice] = choices
        assert (choice["policy"], choice["node"]) == ("rotation", answer.node)
        assert [row["id"] for row in choice["endpoints"] if row["chosen"]] == [answer.node]
        assert choice["endpoints"][0]["id"] == answer.node
        assert choice["endpoints"][0]["in_flight"] == 0, "as it was just before the pick"
        assert "rotation goes by turns" in choice["why"]


async def test_nothing_is_noted_after_the_block(client: AsyncSmartClient) -> None:
    with client.choices() as choices:
        pass
    await client.get("/")
    assert choices == []


async def test_each_attempt_has_its_choice_and_the_tried_are_out(client: AsyncSmartClient) -> None:
    transport_of(client).script("127.0.0.1:9001", DEAD)
    with client.choices() as choices:
        while (answer := await client.get("/")).attempts == 1:
            choices.clear()
    assert [choice["node"] for choice in choices] == ["digits-1", answer.node]
    out = {row["id"]: row["why"] for row in choices[1]["endpoints"] if not row["may"]}
    assert out == {"digits-1": "tried already"}


async def test_a_policy_that_compares_says_so_with_its_scores(clock: ManualClock) -> None:
    async with client_of(clock, "least_request", instance(1), instance(2)) as client:
        transport_of(client).script("127.0.0.1:9001", HUNG)
        with client.choices() as choices:
            held = [asyncio.ensure_future(client.get("/"))]
            while not any(choice["node"] == "digits-1" for choice in choices):
                await clock.settle()
                held.append(asyncio.ensure_future(client.get("/")))
                await clock.settle()
            choices.clear()
            await client.get("/")
        [choice] = choices
        assert choice["node"] == "digits-2"
        assert choice["why"] == "no score of the 2 is lower"
        assert {row["id"]: row["score"] for row in choice["endpoints"]} == {"digits-1": 2.0, "digits-2": 1.0}
        for each in held:
            each.cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def test_nodes_that_were_asked_how_busy_they_are_are_marked(clock: ManualClock) -> None:
    nodes = [instance(number, meta={"load": "/load"}) for number in (1, 2, 3)]
    async with client_of(clock, "probed", *nodes) as client:
        for number, wait in ((1, 500), (2, 500), (3, 1)):
            report = b'{"wait_ms": %d, "inflight": 2}' % wait
            transport_of(client).script(f"127.0.0.1:900{number}", Reply(body=report, after=0.05))
        with client.choices() as choices:
            for _ in range(12):
                call = asyncio.ensure_future(client.get("/"))
                await clock.advance(0.3)
                await call
        asked = [choice for choice in choices if any(row["asked"] for row in choice["endpoints"])]
        assert asked
        assert any("that were asked how busy they are" in choice["why"] for choice in asked)
        assert all(choice["endpoints"][0]["chosen"] for choice in asked)


async def test_who_is_not_used_at_all_is_named_with_the_reason(clock: ManualClock) -> None:
    nodes = (instance(1), instance(2, health=Health.DRAINING), instance(3, health=Health.CRITICAL))
    async with client_of(clock, "rotation", *nodes) as client:
        assert client.explain()["unused"] == []
        await client.ready()
        explanation = client.explain()
        assert [row["id"] for row in explanation["endpoints"]] == ["digits-1"]
        assert {row["id"]: row["health"] for row in explanation["unused"]} == {
            "digits-2": "draining",
            "digits-3": "critical",
        }
        lines = list(told(explanation | {"choices": []}))
        assert lines[0] == "policy rotation: 1 of 1 nodes stood to choose; nothing was sent, so none was chosen"
        assert lines[-2] == "  left out: digits-2 (127.0.0.1:9002) is draining: it takes no new requests"


async def test_critical_nodes_that_are_used_for_want_of_better_are_not_called_unused(clock: ManualClock) -> None:
    async with client_of(clock, "rotation", instance(1, health=Health.CRITICAL)) as client:
        await client.ready()
        assert client.explain()["unused"] == []


async def test_the_words_show_state_scores_and_when_an_ejected_node_may_return(
    client: AsyncSmartClient, clock: ManualClock
) -> None:
    transport_of(client).script("127.0.0.1:9001", DEAD)
    for _ in range(9):
        await client.get("/")
    explanation = client.explain()
    with client.choices() as choices:
        answer = await client.get("/")
    head, columns, chosen, *_, last = told(explanation | {"choices": choices})
    assert head.startswith(f"policy rotation: 2 of 3 nodes stood to choose; {answer.node} was chosen: ")
    assert columns.split() == ["node", "endpoint", "health", "state", "in", "flight", "latency", "wait", "score"]
    assert chosen.split()[:2] == [">", answer.node]
    assert chosen.endswith("chosen")
    assert "digits-1" in last
    assert "ejected, to be tried again in" in last


async def test_a_lone_node_needs_no_more_reason(clock: ManualClock) -> None:
    async with client_of(clock, "p2c", instance(1)) as client:
        with client.choices() as choices:
            await client.get("/")
        assert choices[0]["why"] == "no other one stood to choose"


async def test_when_all_were_tried_one_is_tried_again(clock: ManualClock) -> None:
    async with client_of(clock, "rotation", instance(1), instance(2)) as client:
        for number in (1, 2):
            transport_of(client).script(f"127.0.0.1:900{number}", DEAD)
        with client.choices() as choices:
            call = asyncio.ensure_future(client.get("/"))
            await clock.advance(5.0)
            await asyncio.gather(call, return_exceptions=True)
        assert [choice["why"].partition(",")[0] for choice in choices][2] == "tried already"


async def test_in_panic_all_stand_to_choose(clock: ManualClock) -> None:
    async with client_of(clock, "rotation") as client:
        for number in (1, 2, 3):
            transport_of(client).script(f"127.0.0.1:900{number}", Reply(status=429))
        await asyncio.gather(*(client.post("/") for _ in range(6)))
        assert {row["state"] for row in client.explain()["endpoints"]} == {"cooling"}
        [head, *_] = told(client.explain() | {"choices": []})
        assert head.startswith("policy rotation: 3 of 3 nodes stood to choose, for too few are well (panic)")


async def test_a_large_fleet_is_cut_short_and_names_cannot_reach_the_terminal(clock: ManualClock) -> None:
    nodes = [instance(number, id=f"n{number}\x1b[2J") for number in range(1, 41)]
    async with client_of(clock, "rotation", *nodes) as client:
        await client.ready()
        lines = list(told(client.explain() | {"choices": []}))
        assert len(lines) == 1 + 1 + SHOWN + 1
        assert lines[-1] == f"  and {40 - SHOWN} more"
        assert not any("\x1b" in line for line in lines)
