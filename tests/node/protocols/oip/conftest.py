"""Nodes whose model gives back what it gets."""

from tests.node.protocols.oip.echoing import serve_echo

__all__ = ["serve_echo"]
