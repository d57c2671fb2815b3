"""Models whose answers tell which version computed them, for tests of what is loaded when."""

import threading
from collections import defaultdict
from pathlib import Path

from node.errors import ModelError
from node.models import MANIFEST, Manifest, ModelSource, publish
from node.testing import CLASSES, PREPROCESSING, ScriptedRuntime, write_model


class Versioned(ScriptedRuntime):
    """Says its own version whatever it is shown; counts how often it was closed, and what was run after that."""

    def __init__(self, version):
        super().__init__()
        self.version = int(version)
        self.closes = 0
        self.late = 0

    def run(self, inputs):
        self.late += bool(self.closes)
        outputs = super().run(inputs)
        outputs["scores"][:] = 0.01
        outputs["scores"][:, self.version % CLASSES] = 0.91
        return outputs

    def close(self):
        self.closes += 1


class Opener:
    """Stands in for the runtimes: ``opened`` has those it made, by version; those in ``broken`` it refuses.

    Clear ``gate`` to make loading wait, in its thread; ``hold`` makes one version wait.
    """

    def __init__(self):
        self.opened = defaultdict(list)
        self.broken = {}
        self.asked = []
        self.loading = 0
        self.most_at_once = 0
        self.gate = threading.Event()
        self.gate.set()
        self.held = {}

    def __call__(self, source: ModelSource):
        self.asked.append((source.name, source.version))
        self.loading += 1
        self.most_at_once = max(self.most_at_once, self.loading)
        try:
            self.held.get(source.version, self.gate).wait(30)
            if source.version in self.broken:
                raise self.broken[source.version]
            runtime = Versioned(source.version)
            self.opened[source.version].append(runtime)
            return runtime
        finally:
            self.loading -= 1

    def refuse(self, version, error=None):
        """From now on ``version`` cannot be loaded."""
        self.broken[version] = error or ModelError(f"version {version} is broken")

    def hold(self, version) -> threading.Event:
        """Make loading ``version`` wait until the event is set."""
        self.held[version] = threading.Event()
        return self.held[version]

    def only(self, version) -> Versioned:
        """The one runtime that was made for ``version``."""
        (runtime,) = self.opened[version]
        return runtime


def add_version(folder: Path, version: int) -> None:
    """Write a version elsewhere and rename it into place, whole."""
    staged = write_model(folder.parent / "staged" / folder.name, version=version)
    folder.mkdir(exist_ok=True)
    (staged / str(version)).rename(folder / str(version))


def publish_next(folder: Path) -> Path:
    """Publish the next version as ``twostep train`` does."""
    staging = folder / ".partial-1"
    staging.mkdir(parents=True)
    (staging / "model.keras").write_bytes(b"not a model")
    manifest = Manifest(format="keras", file="model.keras", name=folder.name, preprocessing=PREPROCESSING)
    assert not (staging / MANIFEST).exists()
    return publish(staging, folder, manifest)
