"""Fixtures every folder uses: real tools and a real Consul.

A tool that is missing skips the test on a developer's machine and says so; with ``CI`` set it is a failure, so that
nothing is left out in silence.
"""

import shutil
from collections.abc import Iterator

import pytest

from infra.consul.agent import ConsulAgent, ConsulUnavailable, binary
from tests.support import missing


@pytest.fixture(scope="session")
def curl() -> str:
    """Path of curl."""
    return shutil.which("curl") or missing("curl", "apt-get install curl")


@pytest.fixture(scope="session")
def consul_binary() -> str:
    """Path of a real consul binary."""
    try:
        return binary()
    except ConsulUnavailable as error:
        missing("consul", str(error))


@pytest.fixture(scope="session")
def consul_agent(consul_binary: str) -> Iterator[ConsulAgent]:
    """One real Consul agent for the whole session: use service names of your own."""
    with ConsulAgent.dev() as agent:
        yield agent
