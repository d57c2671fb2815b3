"""Real Consul agents on this machine, for the demo and for tests: start, stop, kill, start again.

One development agent (``ConsulAgent.dev``), or servers of a cluster on 127.0.0.1, 127.0.0.2, … that share their port
numbers (``cluster``). Everything is bound to loopback; ports are free ones unless given. Works with Consul 1.8 and
with today's. In production run Consul's own packages and service files instead.
"""

import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from infra.leash import leashed

INSTALL = Path(__file__).with_name("install.sh")


class ConsulUnavailable(RuntimeError):
    """There is no consul binary, or it did not come up; the message says what to do."""


def binary() -> str:
    """Path of a ``consul`` binary, fetched by ``install.sh`` if need be. Raises ``ConsulUnavailable``."""
    done = subprocess.run([str(INSTALL)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["install.sh failed without a word"]
        raise ConsulUnavailable(lines[-1])
    return done.stdout.strip()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port nobody listens on now; bind it soon."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether nobody listens on this TCP port now."""
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) != 0


def _version(path: str) -> tuple[int, int]:
    text = subprocess.run([path, "version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@dataclass
class ConsulAgent:
    """One agent process: what it was told, and the process while it runs.

    ``config`` is Consul's own configuration (JSON keys); ``directory`` holds the configuration, data and log.
    """

    config: dict[str, Any]
    directory: Path
    host: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @classmethod
    def dev(cls, *, host: str = "127.0.0.1", port: int | None = None, **config: Any) -> "ConsulAgent":
        """Return a one-server agent, not yet started; ``config`` adds Consul's own keys."""
        base = _base(host, port or free_port(host))
        base |= {"node_name": "dev", "server": True, "bootstrap": True}
        return cls(config=base | config, directory=Path(tempfile.mkdtemp(prefix="twostep-consul-")), host=host)

    @property
    def port(self) -> int:
        """The HTTP API's port."""
        return int(self.config["ports"]["http"])

    @property
    def address(self) -> str:
        """``host:port`` of the HTTP API."""
        return f"{self.host}:{self.port}"

    @property
    def token(self) -> str:
        """The secret that may do everything (``acl.tokens.initial_management``), if there is one."""
        return str(self.config.get("acl", {}).get("tokens", {}).get("initial_management", ""))

    @property
    def log(self) -> Path:
        """Where the agent's output goes."""
        return self.directory / "consul.log"

    def start(self, *, wait: float = 30.0) -> Self:
        """Start the process; with ``wait`` > 0 return when its cluster has a leader and the agent answers with it.

        Raises ``ConsulUnavailable`` when it ends or stays silent for ``wait`` seconds.
        """
        path = binary()
        self.directory.mkdir(parents=True, exist_ok=True)
        config = dict(self.config)
        version = _version(path)
        if version >= (1, 14):
            config["ports"] = config["ports"] | {"grpc_tls": -1}
        if version < (1, 11) and self.token:
            config["acl"] = config["acl"] | {"tokens": {"master": self.token, "agent": self.token}}
        (self.directory / "config.json").write_text(json.dumps(config, indent=1))
        (self.directory / "data").mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            command = [path, "agent", "-config-file", str(self.directory / "config.json")]
            command += ["-data-dir", str(self.directory / "data")]
            self.process = subprocess.Popen(leashed(command), stdout=log, stderr=log, start_new_session=True)
        if wait > 0:
            self.wait_ready(wait)
        return self

    def wait_ready(self, seconds: float = 30.0) -> None:
        """Wait until the agent reports a leader and lists its own node. Raises ``ConsulUnavailable``."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            if self.process is None or self.process.poll() is not None:
                break
            if self.leader() and self.get(f"/v1/catalog/node/{self.config['node_name']}"):
                return
            time.sleep(0.05)
        tail = self.log.read_text(errors="replace").splitlines()[-3:]
        self.remove()
        raise ConsulUnavailable(f"consul on {self.address} did not become ready: {' | '.join(tail)}")

    def get(self, path: str) -> Any:
        """Return the JSON answer to a GET of the HTTP API, or None when there is none."""
        request = urllib.request.Request(f"http://{self.address}{path}", headers={"X-Consul-Token": self.token})
        try:
            with urllib.request.urlopen(request, timeout=2) as reply:  # noqa: S310 - http, as written above
                return json.load(reply)
        except (OSError, ValueError, urllib.error.HTTPError):
            return None

    def leader(self) -> str:
        """``host:port`` of the raft leader as this agent knows it, or an empty string."""
        return str(self.get("/v1/status/leader") or "")

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """End it in an orderly way, killing it after 5 s; stopping a stopped one is fine."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
            self.process = None
        except subprocess.TimeoutExpired:
            self.kill()

    def remove(self) -> None:
        """Stop it and delete its folder."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def wipe(self) -> None:
        """Forget the data directory, as a replaced disk would; only while stopped."""
        shutil.rmtree(self.directory / "data", ignore_errors=True)

    def __enter__(self) -> Self:
        return self if self.process else self.start()

    def __exit__(self, *exception: object) -> None:
        self.remove()


def cluster(servers: int = 3, **config: Any) -> list[ConsulAgent]:
    """Return ``servers`` agents of one cluster on 127.0.0.1, .2, …, started, with a leader.

    They share one set of port numbers, each on its own loopback address. The caller removes them.
    """
    hosts = [f"127.0.0.{number + 1}" for number in range(servers)]
    ports = _base("127.0.0.1", free_port())["ports"]
    ports |= {"server": free_port(), "serf_lan": free_port()}
    members = []
    for number, host in enumerate(hosts):
        own = _base(host, ports["http"]) | {"node_name": f"server-{number + 1}", "server": True, "ports": ports}
        own |= {"bootstrap_expect": servers, "retry_join": [f"{peer}:{ports['serf_lan']}" for peer in hosts]}
        own |= {"retry_interval": "1s", "leave_on_terminate": False}
        directory = Path(tempfile.mkdtemp(prefix=f"twostep-consul-{number + 1}-"))
        members.append(ConsulAgent(config=own | config, directory=directory, host=host))
    try:
        for member in members:
            member.start(wait=0)
        for member in members:
            member.wait_ready()
    except ConsulUnavailable:
        for member in members:
            member.remove()
        raise
    return members


def _base(host: str, http_port: int) -> dict[str, Any]:
    ports = {"http": http_port, "dns": -1, "grpc": -1, "serf_wan": -1}
    ports |= {"server": free_port(host), "serf_lan": free_port(host)}
    return {
        "bind_addr": host,
        "client_addr": host,
        "ports": ports,
        "log_level": "WARN",
        "disable_update_check": True,
        "performance": {"raft_multiplier": 1},
    }
