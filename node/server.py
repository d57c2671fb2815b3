"""One node: binds, loads, warms, registers, serves, drains. The concrete parts meet here.

The port is bound before anything is loaded, so a taken port is known at once and ``/healthz`` answers while TensorFlow
is still being imported. The registry hears of the node only when it is warm, and an outage of the registry never stops
it. Signals are handled here: aiohttp's own handler would close the listener first. The first SIGTERM or SIGINT drains
in the order of ``lifecycle``, a second one hurries.
"""

import asyncio
import importlib.util
import logging
import random
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from node import machine
from node.admission import Admission
from node.errors import MissingExtra, PortInUse
from node.lifecycle import Lifecycle, State, Step, drain, drain_order
from node.load import PATH as LOAD_PATH
from node.metrics import Metrics
from node.models import ModelSource, locate, verify
from node.pipeline import Pipeline
from node.runtimes.base import Runtime
from node.surface import ClientFaults, Surface
from registry.connect import connect
from registry.directory import Directory, HttpCheck, Registration
from registry.registration import Registrar
from registry.timing import Clock, SystemClock

log = logging.getLogger(__name__)

# How long cleanup waits for a handler, and again for its connection, in seconds.
_CLEANUP = 1.0


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is told; empty strings are filled in: ``service`` from the model, ``id`` at random.

    Sizes in bytes, times in seconds. ``registry`` is an address for ``registry.connect`` (empty: the environment's).
    """

    model: Path
    labels: Path | None = None
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
    queue_limit: float = 2.0
    drain_grace: float = 1.5
    drain_timeout: float = 15.0


class NodeServer:
    """A node in this process: ``start``, then ``drain`` (in the order of ``lifecycle``) or ``stop`` (at once).

    Raises ``ModelError`` or ``MissingExtra`` when made, before anything heavy is imported, if there is no model to
    serve or no TensorFlow to serve it with. ``load`` and ``directory`` stand in for TensorFlow and for the registry in
    tests.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        load: Callable[[ModelSource], Runtime] | None = None,
        directory: Directory | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        if load is None and importlib.util.find_spec("tensorflow") is None:
            raise MissingExtra("tensorflow", "node")
        self._source = locate(config.model, config.labels)
        self._config = config
        self._load = load or _tensorflow
        self.service = config.service or self._source.name
        self.id = config.id or f"{self.service}-{self._rng.getrandbits(24):06x}"
        self.port = config.port
        self.lifecycle = Lifecycle(self._clock, self.id)
        self.admission = Admission(limit=config.queue_limit)
        self.metrics = Metrics(self._source.name, self._source.version)
        self.surface = Surface(
            self.id,
            self.lifecycle,
            self.admission,
            self.metrics,
            clock=self._clock,
            rng=self._rng,
            max_body=config.max_body,
            body_timeout=config.body_timeout,
        )
        self._directory = directory
        self._registrar: Registrar | None = None
        self._registered = AsyncExitStack()
        self._runner: web.AppRunner | None = None
        self._pipeline: Pipeline | None = None
        self._hurry = asyncio.Event()
        self._add_gauges()

    @property
    def url(self) -> str:
        """Where it can be reached, once started."""
        host = self._address()
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def registry(self) -> str:
        """The registry it is registered in, for people; empty when it is in none."""
        return self._directory.source if self._registrar is not None and self._directory is not None else ""

    async def start(self) -> None:
        """Bind, load, warm, register. Raises ``PortInUse``, ``ModelError``, ``MissingExtra``, ``RegistrationRefused``.

        ``stop`` must follow also when this fails.
        """
        await self._listen()
        self.lifecycle.to(State.LOADING)
        started = self._clock.monotonic()
        runtime = await asyncio.to_thread(self._verified_runtime)
        self.metrics.loaded(runtime.name, self._clock.monotonic() - started)
        self.lifecycle.to(State.WARMING)
        self._pipeline = Pipeline(
            self._source,
            runtime,
            admission=self.admission,
            metrics=self.metrics,
            clock=self._clock,
            max_batch=self._config.max_batch,
        )
        await self._pipeline.warm()
        self.surface.pipeline = self._pipeline
        self.lifecycle.to(State.READY)
        if self._config.register:
            await self._register(runtime.name)

    async def drain(self) -> None:
        """Leave in the order of ``lifecycle.drain_order``, losing no request; ends stopped."""
        order = drain_order(grace=self._config.drain_grace, finish=self._config.drain_timeout)
        await drain(
            order,
            {
                Step.UNREADY: self._become_unready,
                Step.LEAVE_REGISTRY: self._leave_registry,
                Step.GRACE: lambda: self._clock.sleep(self._config.drain_grace),
                Step.REFUSE: self._refuse,
                Step.FINISH: self.admission.idle,
                Step.CLOSE: self.stop,
            },
            self._hurry,
        )

    def hurry(self) -> None:
        """Cut draining short: no grace, no waiting for what is queued."""
        self._hurry.set()

    async def stop(self) -> None:
        """Stop now: fail what waits, close connections, deregister. Stopping a stopped node is fine."""
        if self.lifecycle.state is not State.STARTING:
            self.lifecycle.to(State.DRAINING)
        self.surface.refusing = True
        pipeline, self._pipeline, self.surface.pipeline = self._pipeline, None, None
        if pipeline is not None:
            await pipeline.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        self._registrar = None
        await self._registered.aclose()
        directory, self._directory = self._directory, None
        if directory is not None:
            await directory.close()
        if self.lifecycle.state is not State.STARTING:
            self.lifecycle.to(State.STOPPED)

    def snapshot(self) -> dict[str, object]:
        """State, what is held, and the pipeline."""
        return {
            "node": self.id,
            "service": self.service,
            **self.lifecycle.snapshot(),
            "held": self.admission.snapshot(),
            "pipeline": None if self._pipeline is None else self._pipeline.snapshot(),
        }

    async def _listen(self) -> None:
        sock = machine.listen(self._config.host, self._config.port)
        self.port = int(sock.getsockname()[1])
        server_log = log.getChild("http")
        server_log.addFilter(ClientFaults())
        self._runner = web.AppRunner(
            self.surface.application(), access_log=None, logger=server_log, shutdown_timeout=_CLEANUP
        )
        await self._runner.setup()
        try:
            await web.SockSite(self._runner, sock, backlog=machine.BACKLOG).start()
        except OSError as error:
            raise PortInUse(f"port {self.port} on {self._config.host} is in use; choose another with --port") from error

    def _verified_runtime(self) -> Runtime:
        verify(self._source)
        return self._load(self._source)

    async def _register(self, runtime: str) -> None:
        directory = self._directory = self._directory or connect(
            self._config.registry or None, clock=self._clock, rng=self._rng
        )
        registration = Registration(
            service=self.service,
            id=self.id,
            address=self._address(),
            port=self.port,
            check=HttpCheck(url=f"{self.url}/readyz", interval=self._config.check_interval),
            tags=self._config.tags,
            meta={"model": self._source.name, "runtime": runtime, "load": LOAD_PATH},
            zone=self._config.zone,
            version=self._source.version,
            weight=self._config.weight,
        )
        self._registrar = await self._registered.enter_async_context(
            Registrar(
                directory, registration, clock=self._clock, rng=self._rng, on_failure=self.metrics.sync_failures.inc
            )
        )

    def _address(self) -> str:
        registry = "" if self._directory is None else urlsplit(self._directory.source).hostname or ""
        return self._config.advertise or machine.advertised(self._config.host, registry)

    async def _become_unready(self) -> None:
        self.lifecycle.to(State.DRAINING)

    async def _leave_registry(self) -> None:
        if self._registrar is not None:
            await self._registrar.maintenance(True, "draining")

    async def _refuse(self) -> None:
        self.surface.refusing = True

    def _add_gauges(self) -> None:
        gauge, life = self.metrics.gauge, self.lifecycle
        gauge("node_inflight_requests", "Requests inside now.", lambda: self.admission.requests)
        gauge("node_queue_depth", "Images waiting for a batch.", self._depth)
        gauge("node_ready", "1 while new work is welcome.", lambda: float(life.ready))
        gauge("node_draining", "1 while it is leaving.", lambda: float(life.leaving))

    def _depth(self) -> float:
        return 0.0 if self._pipeline is None else self._pipeline.batcher.depth


async def serve(config: NodeConfig, *, announce: Callable[[NodeServer], None] | None = None) -> None:
    """Run a node until SIGTERM or SIGINT, drain it and return; ``announce`` is called once it is ready.

    Raises what ``NodeServer`` and ``NodeServer.start`` raise.
    """
    node = NodeServer(config)
    loop = asyncio.get_running_loop()
    leave = asyncio.Event()

    def signalled() -> None:
        node.hurry() if leave.is_set() else leave.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    starting = asyncio.ensure_future(node.start())
    leaving = asyncio.ensure_future(leave.wait())
    try:
        await asyncio.wait({starting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            if announce is not None:
                announce(node)
            await leaving
            await node.drain()
    finally:
        for task in (starting, leaving):
            task.cancel()
        await asyncio.gather(starting, leaving, return_exceptions=True)
        await node.stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _tensorflow(source: ModelSource) -> Runtime:
    from node.runtimes.tensorflow import TensorFlowRuntime  # noqa: PLC0415 - so that importing this module stays quick

    return TensorFlowRuntime(source.path, source.kind)
