"""Adapters send what the program sends: no service gets the nodes' token beside it."""

import asyncio
from collections.abc import Callable

import aiohttp
import httpx
import pytest
import requests

from smartclient.adapters.aiohttp import SmartConnector, SmartMiddleware
from smartclient.adapters.httpx import AsyncSmartTransport, SmartTransport
from smartclient.adapters.requests import SmartAdapter
from smartclient.errors import BadOption

URL = "http://digits.service.consul/"
OWN = {"Authorization": "Basic eDp5"}


async def by_httpx(registry: str) -> None:
    def work() -> None:
        with httpx.Client(transport=SmartTransport(registry), trust_env=False) as client:
            client.get(URL)
            client.get(URL, headers=OWN)

    await asyncio.to_thread(work)


async def by_async_httpx(registry: str) -> None:
    async with httpx.AsyncClient(transport=AsyncSmartTransport(registry), trust_env=False) as client:
        await client.get(URL)
        await client.get(URL, headers=OWN)


async def by_requests(registry: str) -> None:
    def work() -> None:
        with requests.Session() as session:
            session.mount("http://", SmartAdapter(registry))
            session.get(URL)
            session.get(URL, headers=OWN)

    await asyncio.to_thread(work)


async def by_connector(registry: str) -> None:
    async with aiohttp.ClientSession(connector=SmartConnector(registry)) as session:
        await session.get(URL)
        await session.get(URL, headers=OWN)


async def by_middleware(registry: str) -> None:
    async with SmartMiddleware(registry) as middleware, aiohttp.ClientSession(middlewares=[middleware]) as session:
        await session.get(URL)
        await session.get(URL, headers=OWN)


@pytest.mark.parametrize("ask", [by_httpx, by_async_httpx, by_requests, by_connector, by_middleware])
async def test_the_environments_token_is_not_sent_and_the_programs_header_is(
    fleet, monkeypatch: pytest.MonkeyPatch, ask: Callable
) -> None:
    monkeypatch.setenv("TWOSTEP_NODE_TOKEN", "s3cret")
    monkeypatch.setenv("TWOSTEP_NODE_TOKEN_FILE", "/nowhere/token")
    [node] = await fleet(1)
    await ask(f"static://{node.address}")
    assert [headers.get("Authorization") for headers in node.seen] == [None, "Basic eDp5"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: SmartTransport("static://127.0.0.1:1", token="x"),
        lambda: AsyncSmartTransport("static://127.0.0.1:1", token="x"),
        lambda: SmartAdapter("static://127.0.0.1:1", token="x"),
        lambda: SmartMiddleware("static://127.0.0.1:1", token="x"),
        lambda: SmartConnector("static://127.0.0.1:1", client={"token": "x"}),
    ],
)
async def test_a_token_as_an_option_is_refused_with_what_to_do(make: Callable[[], object]) -> None:
    with pytest.raises(BadOption, match="token cannot be used here; set the Authorization header"):
        make()
