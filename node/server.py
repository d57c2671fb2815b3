"""One node: binds, loads, warms, registers, serves, drains. The concrete parts meet here.

The port is bound before anything is loaded, so a taken port is known at once and ``/healthz`` answers while TensorFlow
is still being imported. The registry hears of the node only when it is warm, and an outage of the registry never stops
it. Signals are handled here: aiohttp's own handler would close the listener first. The first SIGTERM or SIGINT drains
in the order of ``lifecycle``, a second one hurries.
"""

import asyncio
import contextlib
import logging
import random
import signal
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from node import machine
from node.access import Access
from node.admission import Admission
from node.compute import Compute
from node.decoding import Decoders
from node.errors import NodeError, PortInUse
from node.intake import Intake
from node.lifecycle import Lifecycle, State, Step, drain, drain_order
from node.load import PATH as LOAD_PATH
from node.metrics import Metrics
from node.models import ModelSource
from node.protocols.admin import Admin
from node.protocols.image import Images
from node.repository import Model, Repository
from node.runtimes.base import Runtime
from node.runtimes.select import Choice, open_runtime
from node.served import Served, Shared
from node.surface import ClientFaults, Spoken, Surface
from node.versions import Watcher
from registry.connect import connect
from registry.directory import Directory, HttpCheck, Registration
from registry.registration import Registrar
from registry.timing import Clock, SystemClock

log = logging.getLogger(__name__)

# How long cleanup waits for a handler, and again for its connection, in seconds.
_CLEANUP = 1.0


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


class NodeServer:
    """A node in this process: ``start``, then ``drain`` (in the order of ``lifecycle``) or ``stop`` (at once).

    Raises ``ModelError`` or ``MissingExtra`` when made, before anything heavy is imported, if there is no model to
    serve. ``open`` and ``directory`` stand in for the runtimes and for the registry in tests.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        open: Callable[[ModelSource], Runtime] | None = None,  # noqa: A002 - it says what it does
        directory: Directory | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._config = config
        self.metrics = Metrics()
        self.admission = Admission(limit=config.queue_limit)
        self._compute = Compute(self._clock)
        self._decoders = Decoders(self._clock)
        self._shared = Shared(self._compute, self._decoders, self.admission, self.metrics, self._clock, config.max_batch)
        self.repository = Repository(
            config.models,
            open=open or (lambda source: open_runtime(source, config.runtime)),
            make=self._put_to_work,
            metrics=self.metrics,
            clock=self._clock,
            on_change=self._models_changed,
        )
        self.service = config.service or self.repository.names[0]
        self.id = config.id or f"{self.service}-{self._rng.getrandbits(24):06x}"
        self.port = config.port
        self.lifecycle = Lifecycle(self._clock, self.id)
        access = Access.from_files(config.token_file, config.admin_token_file)
        self.intake = Intake(
            self.id,
            self.repository,
            self.lifecycle,
            self.admission,
            access,
            clock=self._clock,
            max_body=config.max_body,
            body_timeout=config.body_timeout,
        )
        self._directory = directory
        self._registrar: Registrar | None = None
        self._registered = AsyncExitStack()
        self._runner: web.AppRunner | None = None
        self._tasks: set[asyncio.Task[None]] = set()
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
        for name in self.repository.names:
            await self.repository.load(name)
        for name, label, version in self._config.labels:
            self.repository.label(name, label, version)
        self.intake.open = True
        self.lifecycle.to(State.READY)
        if self._config.register:
            await self._register()
        if self._config.watch:
            self._keep(self._watch())

    async def drain(self) -> None:
        """Leave in the order of ``lifecycle.drain_order``, losing no request; ends stopped."""
        order = drain_order(grace=self._config.drain_grace, finish=self._config.drain_timeout)
        await drain(
            order,
            {
                Step.UNREADY: self._become_unready,
                Step.LEAVE_REGISTRY: lambda: self._leave_registry("draining"),
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
        started = self.lifecycle.state is not State.STARTING
        if started:
            self.lifecycle.to(State.DRAINING)
            self.intake.refusing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if started and self.lifecycle.state is not State.STOPPED:
            await self.repository.close()
            await self._compute.close()
            self._decoders.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        self._registrar = None
        await self._registered.aclose()
        directory, self._directory = self._directory, None
        if directory is not None:
            await directory.close()
        if started:
            self.lifecycle.to(State.STOPPED)

    def snapshot(self) -> dict[str, object]:
        """State, what is held, and every model."""
        return {
            "node": self.id,
            "service": self.service,
            **self.lifecycle.snapshot(),
            "refusing": self.intake.refusing,
            "held": self.admission.snapshot(),
            **self._decoders.snapshot(),
            "models": self.repository.snapshot(),
        }

    async def _listen(self) -> None:
        sock = machine.listen(self._config.host, self._config.port)
        self.port = int(sock.getsockname()[1])
        server_log = log.getChild("http")
        server_log.addFilter(ClientFaults())
        self._runner = web.AppRunner(
            self._surface().application(), access_log=None, logger=server_log, shutdown_timeout=_CLEANUP
        )
        await self._runner.setup()
        try:
            await web.SockSite(self._runner, sock, backlog=machine.BACKLOG).start()
        except OSError as error:
            raise PortInUse(f"port {self.port} on {self._config.host} is in use; choose another with --port") from error

    def _put_to_work(self, source: ModelSource, runtime: Runtime) -> Served:
        self.lifecycle.to(State.WARMING)
        return Served(source, runtime, self._shared)

    def _surface(self) -> Surface:
        protocols: list[Spoken] = [
            Images(self.id, self.intake, self.metrics),
            Admin(self.intake, drain=self._step_aside, undrain=self._come_back, state=self.snapshot),
        ]
        return Surface(self.id, self.lifecycle, self.intake, self.metrics, protocols, clock=self._clock, rng=self._rng)

    async def _register(self) -> None:
        directory = self._directory = self._directory or connect(
            self._config.registry or None, clock=self._clock, rng=self._rng
        )
        self._registrar = await self._registered.enter_async_context(
            Registrar(
                directory,
                self._registration(),
                clock=self._clock,
                rng=self._rng,
                on_failure=self.metrics.sync_failures.inc,
            )
        )

    def _registration(self) -> Registration:
        first = self.repository.first
        return Registration(
            service=self.service,
            id=self.id,
            address=self._address(),
            port=self.port,
            check=HttpCheck(url=f"{self.url}/readyz", interval=self._config.check_interval),
            tags=self._config.tags,
            meta={
                "model": self.repository.names[0],
                "runtime": "" if first is None else first.runtime.name,
                "load": LOAD_PATH,
                **({"models": ",".join(self.repository.names)} if len(self.repository.names) > 1 else {}),
            },
            zone=self._config.zone,
            version="" if first is None else first.version,
            weight=self._config.weight,
        )

    def _models_changed(self) -> None:
        """Say in the registry which version is served now."""
        if self._registrar is not None:
            self._keep(self._registrar.update(self._registration()))

    async def _watch(self) -> None:
        """Look for new versions for ever; what cannot be served is logged, and what serves goes on."""
        watchers = {
            entry.name: Watcher(entry.model.path, entry.model.wanted)
            for entry in self.repository.entries()
            if isinstance(entry.model.path, Path)
        }
        for watcher in watchers.values():
            await asyncio.to_thread(watcher.start)
        while True:
            await self._clock.sleep(self._config.watch)
            for name, watcher in watchers.items():
                if await asyncio.to_thread(watcher.due):
                    with contextlib.suppress(NodeError):  # logged where it was refused
                        await self.repository.load(name)

    def _keep(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something beside the requests until the node stops."""
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _address(self) -> str:
        registry = "" if self._directory is None else urlsplit(self._directory.source).hostname or ""
        return self._config.advertise or machine.advertised(self._config.host, registry)

    async def _become_unready(self) -> None:
        self.lifecycle.to(State.DRAINING)

    async def _leave_registry(self, reason: str) -> None:
        if self._registrar is not None:
            await self._registrar.maintenance(True, reason)

    async def _refuse(self) -> None:
        self.intake.refusing = True

    async def _step_aside(self, reason: str) -> None:
        """Drain without ending: out of service now, refusing after the grace."""
        if not self.lifecycle.ready:
            return
        self.lifecycle.to(State.DRAINING)
        await self._leave_registry(reason or "drained by an operator")
        self._keep(self._refuse_later())

    async def _refuse_later(self) -> None:
        await self._clock.sleep(self._config.drain_grace)
        if self.lifecycle.leaving:  # not called back meanwhile
            await self._refuse()

    async def _come_back(self) -> None:
        """Undo ``_step_aside``."""
        self.lifecycle.back()
        if self.lifecycle.ready:
            self.intake.refusing = False
            if self._registrar is not None:
                await self._registrar.maintenance(False)

    def _add_gauges(self) -> None:
        gauge, life = self.metrics.gauge, self.lifecycle
        gauge("node_inflight_requests", "Requests inside now.", lambda: self.admission.requests)
        gauge("node_queue_depth", "Images waiting for a batch.", self._depth)
        gauge("node_ready", "1 while new work is welcome.", lambda: float(life.ready))
        gauge("node_draining", "1 while it is leaving.", lambda: float(life.leaving))

    def _depth(self) -> float:
        return sum(served.batcher.depth for served in self.repository.serving())


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
