"""What contracts run over: registries with real checks behind every way there is to reach them, and the fake."""

from contextlib import asynccontextmanager

import pytest

from infra.consul.agent import cluster
from registry import connect
from registry.embedded import EmbeddedRegistry
from registry.lookup.service import LookupService
from registry.testing import ScriptedDirectory
from tests.contracts.elsewhere import Elsewhere


@pytest.fixture(params=["embedded", pytest.param("consul", marks=pytest.mark.consul)])
async def registry_url(request):
    """Address of a running registry."""
    if request.param == "consul":
        yield f"consul://{request.getfixturevalue('consul_agent').address}"
        return
    async with EmbeddedRegistry() as embedded:
        yield embedded.url


@pytest.fixture(scope="session")
def cluster_servers(consul_binary):
    """Three real Consul servers."""
    members = cluster(3)
    yield members
    for member in members:
        member.remove()


@asynccontextmanager
async def _through_a_service(url):
    upstream = connect(url)
    async with LookupService(upstream, port=0) as service:
        yield Elsewhere(connect(url), connect(service.url))
    await upstream.close()


@asynccontextmanager
async def _open(kind, request):
    if kind == "scripted":
        yield ScriptedDirectory()
    elif kind == "embedded":
        async with EmbeddedRegistry() as embedded:
            yield connect(embedded.url)
    elif kind == "consul":
        yield connect(request.getfixturevalue("consul_agent").address)
    elif kind == "cluster":
        one, other, _ = request.getfixturevalue("cluster_servers")
        yield Elsewhere(connect(one.address), connect(other.address))
    elif kind == "lookup over embedded":
        async with EmbeddedRegistry() as embedded, _through_a_service(embedded.url) as directory:
            yield directory
    else:
        async with _through_a_service(request.getfixturevalue("consul_agent").address) as directory:
            yield directory


REAL = [
    "embedded",
    pytest.param("consul", marks=pytest.mark.consul),
    pytest.param("cluster", marks=pytest.mark.consul),
    "lookup over embedded",
    pytest.param("lookup over consul", marks=pytest.mark.consul),
]


@pytest.fixture(params=REAL)
async def real(request):
    """A directory on a registry with real checks."""
    async with _open(request.param, request) as directory:
        yield directory
        await directory.close()


@pytest.fixture(params=[*REAL, "scripted"])
async def directory(request):
    """Any directory that takes registrations."""
    async with _open(request.param, request) as directory:
        yield directory
        await directory.close()
