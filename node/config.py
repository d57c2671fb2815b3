"""What a node is told, as one value; the command line and tests both make it."""

from pathlib import Path

import msgspec

from node.repository import Model
from node.runtimes.select import Choice


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is told; empty strings are filled in: ``service`` from the first model, ``id`` at random.

    Sizes in bytes, times in seconds. ``registry`` is an address for ``registry.connect`` (empty: the environment's).
    ``watch``: seconds between two looks for new versions, 0: none.
    """

    models: tuple[Model, ...]
    runtime: Choice = Choice()
    watch: float = 0.0
    labels: tuple[tuple[str, str, str], ...] = ()
    service: str = ""
    id: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    advertise: str = ""
    registry: str = ""
    register: bool = True
    zone: str = ""
    tags: tuple[str, ...] = ()
    weight: int = 1
    check_interval: float = 2.0
    max_batch: int = 32
    max_body: int = 64 * 1024 * 1024
    body_timeout: float = 30.0
    header_timeout: float = 10.0
    max_connections: int = 1024
    queue_limit: float = 2.0
    drain_grace: float = 1.5
    drain_timeout: float = 15.0
    token_file: Path | None = None
    admin_token_file: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
