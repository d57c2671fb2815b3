"""What the browser tests look at: a registry, nodes and a dashboard as processes of their own, and clients' traffic.

The model is plain Python that sleeps, so a node is up in a second and a request takes a time that can be seen. Ports
are kept over a restart, for that is what an open page has to live through.
"""

import asyncio
import json
import signal
import textwrap
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from infra.consul.agent import free_port
from infra.fleet import LocalFleet, Supervised
from node.images import encode_png
from smartclient import AsyncSmartClient
from smartclient.errors import ClientError
from smartclient.policies.select import DEFAULT
from tests.support import wait_until

SERVICE = "plain"
STARTED = 30.0  # seconds within which anything started here is up
SLOW = 200  # a picture this bright takes seconds, any other one milliseconds
MODEL = """
    import time

    import numpy as np

    inputs = [("pixels", "UINT8", (8, 8, 1))]
    outputs = [("scores", "FP32", (10,))]

    def load(folder):
        def run(batch):
            levels = batch["pixels"].reshape(len(batch["pixels"]), -1).mean(axis=1)
            time.sleep(3.0 if (levels == 200).any() else 0.03)
            return np.full((len(levels), 10), 0.1, np.float32)

        return run
"""


def write_model(folder: Path) -> Path:
    """Write a model that needs no engine, called as the service is."""
    model = folder / SERVICE
    model.mkdir()
    (model / "model.py").write_text(textwrap.dedent(MODEL))
    return model


def picture(level: int = 7) -> bytes:
    return encode_png(np.full((8, 8, 1), level, np.uint8))


class Scene(LocalFleet):
    """A fleet with a dashboard over it. What it registers by hand has no process, so nothing moves but by the test."""

    def __init__(self, model: Path) -> None:
        super().__init__()
        self.model = model
        self._registry_port = free_port()
        self._dashboard_port = free_port()
        self.address = f"consul://127.0.0.1:{self._registry_port}"
        self.origin = f"http://127.0.0.1:{self._dashboard_port}"

    def start_registry(self) -> None:
        """Start the registry, at the same port and with what it knew before."""
        state = str(self.folder / "registry.json")
        self._registry = self._spawn("registry", ["registry", "--port", str(self._registry_port), "--file", state])
        self._until_ready(self._registry)

    def start_dashboard(self, *options: str, operators: bool = True) -> None:  # type: ignore[override]
        """Start the dashboard, at the same port."""
        if operators:
            options = (*options, "--operator-token-file", str(self.secret("operator")))
        # A file of its own, so that it can be wrong while the nodes' is right.
        self.admin_token = self.folder / "dashboard-admin.token"
        self.admin_token.write_text(self.secret("admin").read_text())
        options = (*options, "--admin-token-file", str(self.admin_token))
        super().start_dashboard(self._dashboard_port, *options)
        assert self._dashboard is not None
        self._until_ready(self._dashboard)

    def add_nodes(self, *names: str) -> None:
        """Start nodes that the dashboard may steer, and wait until they pass."""
        for name in names:
            steered = ("--admin-token-file", str(self.secret("admin")), "--check-interval", "1")
            self.start_node(name, self.model, *steered, "--zone", "eu-1")
        wait_until(lambda: set(self.nodes) <= set(self.passing()), STARTED, "the nodes pass")

    def passing(self, service: str = SERVICE) -> list[str]:
        """Ids that the registry says are passing."""
        entries = json.loads(self.ask("GET", f"/v1/health/service/{service}?passing"))
        return [each["Service"]["ID"] for each in entries]

    def register(
        self,
        service: str,
        identity: str,
        *,
        ttl: bool = False,
        output: str = "",
        meta: Mapping[str, str] | None = None,
        tags: tuple[str, ...] = (),
    ) -> None:
        """Register something that is no process; with ``ttl`` it has a check that ``say`` changes."""
        definition: dict[str, Any] = {
            "Name": service,
            "ID": identity,
            "Address": "127.0.0.1",
            "Port": 9,
            "Meta": dict(meta or {}),
            "Tags": list(tags),
        }
        if ttl:
            definition["Check"] = {"TTL": "3600s", "Status": "passing", "CheckID": f"check:{identity}", "Name": "alive"}
        self.ask("PUT", "/v1/agent/service/register", definition)
        if output:
            self.say(identity, "critical", output)

    def say(self, identity: str, status: str, output: str = "") -> None:
        """Report what the check of an instance says."""
        check = urllib.parse.quote(f"check:{identity}", safe="")
        self.ask("PUT", f"/v1/agent/check/update/{check}", {"Status": status, "Output": output})

    def deregister(self, identity: str) -> None:
        """Take an instance out of the registry."""
        self.ask("PUT", f"/v1/agent/service/deregister/{urllib.parse.quote(identity, safe='')}")

    def ask(self, method: str, path: str, body: object = None) -> str:
        """Ask the registry; returns the body."""
        return _http(method, f"http://127.0.0.1:{self._registry_port}{path}", body)

    def twin(self, path: str) -> Any:
        """What the dashboard says at a path, as JSON."""
        return json.loads(_http("GET", f"{self.origin}/api/v1{path}"))

    def state_of(self, name: str) -> Any:
        """What a node says of itself to whoever steers it."""
        url = self.nodes[name].log.read_text().split("ready at ")[1].split()[0]
        return json.loads(_http("GET", f"{url}/admin/state", token=self.token("admin")))

    def token(self, name: str) -> str:
        """A secret of this fleet."""
        return self.secret(name).read_text().strip()

    def kill_dashboard(self) -> None:
        """End the dashboard with SIGKILL."""
        assert self._dashboard is not None
        self._dashboard.popen.kill()
        self._dashboard.popen.wait()
        self._dashboard = None

    def stop_dashboard(self) -> float:
        """End the dashboard as an operator would; returns the seconds it took."""
        assert self._dashboard is not None
        begun = time.monotonic()
        self._dashboard.send(signal.SIGTERM)
        assert self._dashboard.wait() == 0, self._dashboard.tail(10)
        self._dashboard = None
        return time.monotonic() - begun

    def complaints(self) -> list[str]:
        """Lines of the dashboard's log that say that it failed at something."""
        log = self.folder / "dashboard.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return [each for each in lines if "Traceback" in each or " ERROR " in each]

    def _until_ready(self, process: Supervised) -> None:
        def ready() -> bool:
            assert process.running, process.tail(5)
            return "ready at" in process.log.read_text(errors="replace")

        wait_until(ready, STARTED, f"{process.name} is ready")


class Traffic:
    """Clients that ask without pause, from a thread with a loop of its own, and report to the dashboard."""

    def __init__(self, scene: Scene, *, workers: int = 4, policy: str = DEFAULT) -> None:
        self._scene = scene
        self._workers = workers
        self._policy = policy
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._slow = 0
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []

    def since(self, before: Counter[str]) -> Counter[str]:
        """What was answered by whom since ``before``."""
        return self.answers - before

    def one_slow(self) -> None:
        """Send one request that takes seconds."""
        self._slow += 1

    async def _run(self) -> None:
        async with AsyncSmartClient(
            SERVICE, self._scene.address, policy=self._policy, reporter=self._scene.origin, reporter_name="shop"
        ) as client:
            await asyncio.gather(*(self._ask(client) for _ in range(self._workers)))

    async def _ask(self, client: AsyncSmartClient) -> None:
        while not self._stop.is_set():
            level = 7
            if self._slow:
                self._slow, level = self._slow - 1, SLOW
            try:
                self.answers[(await client.classify(picture(level))).node] += 1
            except ClientError as error:
                self.failures.append(str(error))
                await asyncio.sleep(0.1)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.answers.total() or self.failures, STARTED, "the first answer")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(STARTED)


def _http(method: str, url: str, body: object = None, *, token: str = "") -> str:
    request = urllib.request.Request(url, method=method)
    if body is not None:
        request.data = json.dumps(body).encode()
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())
