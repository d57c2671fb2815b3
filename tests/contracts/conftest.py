"""The registries every contract runs over: the embedded one and a real Consul agent."""

import pytest

from registry.embedded import EmbeddedRegistry


@pytest.fixture(params=["embedded", pytest.param("consul", marks=pytest.mark.consul)])
async def registry_url(request):
    """Address of a running registry."""
    if request.param == "consul":
        yield f"consul://{request.getfixturevalue('consul_agent').address}"
        return
    async with EmbeddedRegistry() as embedded:
        yield embedded.url
