"""A Consul-compatible registry in one process, for a laptop and for tests."""

from registry.embedded.server import EmbeddedRegistry

__all__ = ["EmbeddedRegistry"]
