"""One machine that answers: loads a model, serves it over HTTP, registers, drains."""

from node.errors import NodeError

__all__ = ["NodeError"]
