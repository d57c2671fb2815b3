"""One node: binds, loads, warms, registers, serves, drains. The concrete parts meet here.

The port is bound before anything is loaded, so a taken port is known at once and ``/healthz`` answers while TensorFlow
is still being imported. The registry hears of the node only when it is warm.
"""

import asyncio
import importlib.metadata
import logging
import random
import threading
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from node import machine
from node.access import Access
from node.admission import MAX_BYTES, Admission
from node.aside import Aside
from node.compute import Compute
from node.config import NodeConfig
from node.connections import Connections, Limits
from node.decoding import Decoders
from node.intake import Intake
from node.lifecycle import Lifecycle, State, Step, drain, drain_order
from node.listener import Listener, fit
from node.load import PATH as LOAD_PATH
from node.membership import Membership
from node.metrics import Metrics
from node.models import ModelSource, locate
from node.openapi.document import Description
from node.protocols.admin import Admin
from node.protocols.image import Images
from node.protocols.oip.control import Control
from node.protocols.oip.handlers import OpenInference
from node.protocols.tfserving.handlers import TensorFlowServing
from node.repository import Repository
from node.runtimes.base import Runtime
from node.runtimes.engines import ensure_installed
from node.runtimes.select import open_runtime
from node.served import Served, Shared
from node.surface import ClientFaults, Spoken, Surface
from node.tls import Certificates
from node.versions import Following
from registry.directory import Check, Directory, HttpCheck, Registration, TtlCheck
from registry.timing import Clock, SystemClock

log = logging.getLogger(__name__)

# How long cleanup waits for a handler, and again for its connection, in seconds.
_CLEANUP = 1.0
# How long stopping waits for the batch that runs.
_LAST_BATCH = 2.0


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
        self.admission = Admission(limit=config.queue_limit, max_bytes=max(MAX_BYTES, config.max_body))
        self._compute = Compute(self._clock)
        self._decoders = Decoders(self._clock)
        self._shared = Shared(
            self._compute, self._decoders, self.admission, self.metrics, self._clock, config.max_batch
        )
        if open is None and not config.runtime.runtime:
            for model in config.models:
                ensure_installed(locate(model.path))
        self._give_up = threading.Event()  # a load that is under way when the node is told to stop
        self.repository = Repository(
            config.models,
            open=open or (lambda source: open_runtime(source, config.runtime, stop=self._give_up)),
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
        self._membership = Membership(
            config.registry, self.metrics, clock=self._clock, rng=self._rng, directory=directory
        )
        self._aside = Aside(
            self.id, self.lifecycle, self.intake, self._membership, clock=self._clock, grace=config.drain_grace
        )
        self._certificates = Certificates.from_files(config.tls_certificate, config.tls_key, config.tls_client_ca)
        self.connections = Connections(fit(Limits(most=config.max_connections, header_timeout=config.header_timeout)))
        self._registry_host = ""
        self._runner: web.AppRunner | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Future[None] | None = None
        self._hurry = asyncio.Event()
        self._add_gauges()

    @property
    def url(self) -> str:
        """Where it can be reached, once started."""
        host = self._address()
        scheme = "http" if self._certificates is None else "https"
        return f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"

    @property
    def registry(self) -> str:
        """The registry it is registered in, for people; empty when it is in none."""
        return self._membership.source

    async def start(self) -> None:
        """Bind, load, warm, register. Raises ``PortInUse``, ``ModelError``, ``MissingExtra``, ``RegistrationRefused``.

        ``stop`` must follow also when this fails.
        """
        self._give_up.clear()
        await self._listen()
        self.lifecycle.to(State.LOADING)
        following = Following(self.repository, every=self._config.watch, clock=self._clock)
        if self._config.watch:
            await following.start()
        for name in self.repository.names:
            await self.repository.load(name)
        for name, label, version in self._config.labels:
            self.repository.label(name, label, version)
        self.intake.open = True
        self.lifecycle.to(State.READY)
        if self._config.register:
            self._registry_host = urlsplit(self._membership.connect()).hostname or ""
            await self._membership.join(self._registration())
        if self._config.watch:
            self._keep(following.run())

    async def drain(self) -> None:
        """Leave in the order of ``lifecycle.drain_order``, losing no request; ends stopped."""
        self._aside.ending = True
        self._give_up.set()
        order = drain_order(grace=self._config.drain_grace, finish=self._config.drain_timeout)
        await drain(
            order,
            {
                Step.UNREADY: self._become_unready,
                Step.LEAVE_REGISTRY: lambda: self._membership.out_of_service("draining"),
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
        self._give_up.set()
        if started:
            self.lifecycle.to(State.DRAINING)
            self.intake.refusing = True
        self._aside.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if started and self.lifecycle.state is not State.STOPPED:
            await self._close_models()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        await self._membership.leave()
        if started:
            self.lifecycle.to(State.STOPPED)

    async def _close_models(self) -> None:
        """Let the present batch end and free every model; one that does not come back is left behind."""
        self._decoders.close()

        async def close() -> None:
            await self.repository.close()
            await self._compute.close()

        self._closing = self._closing or asyncio.ensure_future(close())
        await asyncio.wait({self._closing}, timeout=_LAST_BATCH)
        if not self._closing.done():
            log.error("%s: the model has not come back within %g s; ending without it", self.id, _LAST_BATCH)
            self._compute.abandon()

    def snapshot(self) -> dict[str, object]:
        """State, what is held, and every model."""
        return {
            "node": self.id,
            "service": self.service,
            **self.lifecycle.snapshot(),
            "refusing": self.intake.refusing,
            "held": self.admission.snapshot(),
            "connections": self.connections.snapshot(),
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
        await Listener(
            self._runner,
            sock,
            self.connections,
            clock=self._clock,
            node=self.id,
            certificates=self._certificates,
            logger=server_log,
        ).start()
        if self._certificates is not None:
            self._keep(self._certificates.keep_fresh(self._clock))

    def _put_to_work(self, source: ModelSource, runtime: Runtime) -> Served:
        self.lifecycle.to(State.WARMING)
        return Served(source, runtime, self._shared)

    def _surface(self) -> Surface:
        version = importlib.metadata.version("twostep")
        protocols: list[Spoken] = [
            Images(self.id, self.intake, self.metrics),
            OpenInference(self.intake, self.lifecycle, version),
            Control(self.intake),
            TensorFlowServing(self.intake),
            Description(version),
            Admin(self.intake, drain=self._aside.step, undrain=self._aside.back, state=self.snapshot),
        ]
        return Surface(self.id, self.lifecycle, self.intake, self.metrics, protocols, clock=self._clock, rng=self._rng)

    def _registration(self) -> Registration:
        first = self.repository.first
        return Registration(
            service=self.service,
            id=self.id,
            address=self._address(),
            port=self.port,
            check=self._check(),
            tags=self._config.tags,
            meta={
                "model": self.repository.names[0],
                "runtime": "" if first is None else first.runtime.name,
                "load": LOAD_PATH,
                **({} if self._certificates is None else {"scheme": "https"}),
                **({"models": ",".join(self.repository.names)} if len(self.repository.names) > 1 else {}),
            },
            zone=self._config.zone,
            version="" if first is None else first.version,
            weight=self._config.weight,
        )

    def _check(self) -> Check:
        """The registry asks for itself, unless it would need a certificate to be let in."""
        if self._certificates is not None and self._certificates.demands_clients:
            return TtlCheck()
        return HttpCheck(
            url=f"{self.url}/readyz",
            interval=self._config.check_interval,
            tls_skip_verify=self._certificates is not None,
        )

    def _models_changed(self) -> None:
        """Say in the registry which version is served now."""
        if self._membership.source:
            self._keep(self._membership.update(self._registration()))

    def _keep(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something beside the requests until the node stops."""
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _address(self) -> str:
        return self._config.advertise or machine.advertised(self._config.host, self._registry_host)

    async def _become_unready(self) -> None:
        self.lifecycle.to(State.DRAINING)

    async def _refuse(self) -> None:
        self.intake.refusing = True

    def _add_gauges(self) -> None:
        gauge, life = self.metrics.gauge, self.lifecycle
        gauge("node_inflight_requests", "Requests inside now.", lambda: self.admission.requests)
        gauge("node_queue_depth", "Images waiting for a batch.", self._depth)
        gauge("node_connections", "Connections open now.", lambda: self.connections.open)
        self.metrics.counter(
            "node_connections_ended", "Connections turned away or ended early.", "reason", self.connections.counts
        )
        gauge("node_ready", "1 while new work is welcome.", self._ready)
        gauge("node_draining", "1 while it is leaving.", lambda: float(life.leaving))

    def _ready(self) -> float:
        return float(self.lifecycle.ready and bool(self.repository.serving()))

    def _depth(self) -> float:
        return sum(served.batcher.depth for served in self.repository.serving())
