"""The servers of ``bench node`` as processes: start, ask, hold still, end.

Each serves the same model on a port of its own on loopback. One that burns processor time while nobody asks it is
stopped by a signal until its turn comes, so that it weighs on nobody else's.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import infra
from infra.bench.environments import python_with
from infra.bench.keeper import GRACE
from infra.bench.pressure import FORMS, HOST, PATH, Failed
from infra.bench.processes import Usage, child_of, usage
from infra.bench.rivals import VARIABLE
from infra.consul.agent import free_port
from infra.fleet import FleetError, Supervised, twostep

LITSERVE = ("litserve==0.2.19", "python-multipart==0.0.34")
MOSEC = ("mosec==0.9.8",)
NODES = {"node_tensorflow": ("tensorflow",), "node_auto": ("auto",), "node_int8": ("auto", "--quantize", "int8")}
INT8 = "litert int8"
# Seconds from start to the first answer, at most: a node that chooses converts its model several times.
PATIENCE = 300.0
# What a node's log says where it has chosen, and its metrics where it has not.
_CHOICE = re.compile(r": (\S+(?: int8)?) is chosen of ")
_SERVED = re.compile(r'^node_model_info\{.*runtime="([^"]*)"', re.MULTILINE)


class Server:
    """One server: how it wants to be asked (a key of ``pressure.FORMS``), and its processes."""

    def __init__(self, name: str, form: str, port: int, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.form = form
        self.port = port
        self.log = log
        self.started = time.monotonic()
        self._keeper = Supervised(name, [sys.executable, "-P", "-m", "infra.bench.keeper", *command], log)
        self._held = False

    @property
    def address(self) -> dict[str, Any]:
        """Where a ``closed.Turn`` goes, and in what form."""
        return {"port": self.port, "form": self.form}

    def ready(self, image: bytes) -> float:
        """Wait for its first answer to an image; seconds since it was started. Raises ``FleetError``."""
        form, last = FORMS[self.form], "no answer"
        while time.monotonic() < self.started + PATIENCE:
            try:
                form.prediction(self._answer("POST", PATH, form.body(image), form.content_type))
            except Failed as error:
                raise FleetError(f"{self.name} gives no right answer: {error}") from error
            except (OSError, HTTPException) as error:  # it does not listen yet, or says that it is not ready
                last = str(error)
            else:
                return time.monotonic() - self.started
            if not self._keeper.running:
                raise FleetError(f"{self.name} ended with {self._keeper.popen.returncode}: {self._keeper.tail()}")
            time.sleep(0.02)
        raise FleetError(f"{self.name} was not ready within {PATIENCE:.0f} s ({last}): {self._keeper.tail()}")

    def about(self) -> dict[str, str]:
        """What a node says it runs, and how well that agrees with the model as it was made; of others nothing."""
        if self.form != "node":
            return {}
        log = self.log.read_text(errors="replace")
        if (choice := _CHOICE.search(log)) is not None:
            # Eight bits that were asked for and did not agree: that they did not is what there is to say.
            tried = INT8 if "int8" in NODES.get(self.name, ()) else choice[1]
            compared = re.search(rf"  {re.escape(tried)}: .*(largest difference.*)", log)
            return {"runtime": choice[1]} | ({"agreement": compared[1]} if compared else {})
        served = _SERVED.search(self._answer("GET", "/metrics").decode())
        return {"runtime": served[1] if served else ""}

    def usage(self) -> Usage:
        """What its processes have used."""
        return usage(self._session())

    def hold(self) -> None:
        """Stop its processes where they are; they go on only while ``awake``."""
        self._held = True
        os.killpg(self._session(), signal.SIGSTOP)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run, if it was stopped."""
        if not self._held:
            yield
            return
        os.killpg(self._session(), signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self._session(), signal.SIGSTOP)

    def stop(self) -> None:
        """End it."""
        self._keeper.send(signal.SIGTERM)
        self._keeper.wait(2 * GRACE)

    def _answer(self, method: str, path: str, body: bytes | None = None, content_type: str = "text/plain") -> bytes:
        """The body of a 200. Raises ``OSError`` and ``HTTPException``."""
        connection = HTTPConnection(HOST, self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": content_type})
            reply = connection.getresponse()
            answer = reply.read()
        finally:
            connection.close()
        if reply.status != 200:
            raise HTTPException(f"{reply.status}: {answer[:200].decode(errors='replace')}")
        return answer

    def _session(self) -> int:
        session = child_of(self._keeper.popen.pid)
        if session is None:
            raise FleetError(f"{self.name} has ended: {self._keeper.tail()}")
        return session


def start(name: str, folder: Path, logs: Path) -> Server:
    """Start the server of an arm over the model in ``folder``. Raises ``FleetError``."""
    port = free_port()
    model, log = folder / "model.keras", logs / f"{name}.log"
    if name in NODES:
        options = ("--port", str(port), "--no-register", "--drain-grace", "0", "--runtime", *NODES[name])
        return Server(name, "node", port, twostep("node", "--model", str(model), *options), log)
    if name == "naive":
        command = [sys.executable, "-P", "-m", "infra.bench.rivals.naive", str(model), str(port)]
        return Server(name, "multipart", port, command, log)
    if name == "litserve":
        return Server(name, "multipart", port, _elsewhere(name, folder, LITSERVE, str(port)), log)
    options = ("--address", HOST, "--port", str(port), "--timeout", "30000", "--log-level", "error")
    return Server(name, "raw", port, _elsewhere(name, folder, MOSEC, *options), log)


def _elsewhere(name: str, folder: Path, packages: Sequence[str], *arguments: str) -> list[str]:
    """The command of a rival in an environment of its own, which sees this package and nothing else from here."""
    python = python_with(name, packages)
    link = folder / "path" / "infra"
    if not link.exists():
        link.parent.mkdir()
        link.symlink_to(Path(infra.__file__).parent, target_is_directory=True)
    settings = {"PYTHONPATH": link.parent, VARIABLE: folder / "frozen.pb", "TF_CPP_MIN_LOG_LEVEL": 2}
    command = ["env", *(f"{key}={value}" for key, value in settings.items())]
    return [*command, str(python), "-P", "-m", f"infra.bench.rivals.{name}_app", *arguments]
