"""Ports and addresses."""

import pytest

from node.errors import NodeError, PortInUse
from node.machine import advertised, cores, listen


def test_there_is_at_least_one_core():
    assert cores() >= 1


def test_port_zero_is_any_free_one_and_a_taken_one_is_told():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert port > 0
        with pytest.raises(PortInUse, match=f"port {port} on 127.0.0.1 is in use"):
            listen("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_one_clear_line():
    with pytest.raises(NodeError, match=r"cannot listen on 192\.0\.2\.7"):
        listen("192.0.2.7", 0)
    with pytest.raises(NodeError, match="no port"):
        listen("127.0.0.1", 70000)


def test_a_bound_address_is_advertised_as_it_is():
    assert advertised("10.1.2.3", "consul.example") == "10.1.2.3"


def test_a_wildcard_is_never_advertised():
    for registry in ("127.0.0.1", "", "198.51.100.7", "no such host"):
        assert advertised("0.0.0.0", registry) not in {"0.0.0.0", ""}
    assert advertised("::", "::1") not in {"::", ""}


def test_towards_a_registry_elsewhere_the_routing_table_decides(monkeypatch):
    routes = {"198.51.100.7": "10.0.0.5", "192.0.2.1": "10.9.9.9", "127.0.0.1": "127.0.0.1"}
    monkeypatch.setattr("node.machine._source_address", lambda _, towards: routes.get(towards, ""))
    assert advertised("0.0.0.0", "198.51.100.7") == "10.0.0.5"
    assert advertised("0.0.0.0", "127.0.0.1") == "10.9.9.9"  # a local agent says nothing about the others' way
    routes.clear()
    assert advertised("0.0.0.0", "127.0.0.1") == "127.0.0.1"
