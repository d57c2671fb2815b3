"""The models a node serves: which versions are loaded, what their labels mean, and how one replaces another.

A version is loaded and warmed beside those that serve, then put in place by one assignment; the one it replaces takes
no new requests, finishes those it has and is freed when its last user lets go. What cannot be loaded is refused, its
reason kept, and what served before goes on. Labels point only at loaded versions. A request holds the version it is
answered by (``use``), so an answer never names another than the one that computed it. Loads happen one at a time: two
models coming up at once would each make the other slow, and need the memory of both.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from node.errors import ModelError, NodeError, NotFound, Overloaded, RequestError
from node.machine import settle_memory
from node.metrics import Metrics
from node.models import ModelSource, locate, verify, versions
from node.runtimes.base import Runtime
from node.served import Served
from registry.timing import Clock

log = logging.getLogger(__name__)

Open = Callable[[ModelSource], Runtime]
Make = Callable[[ModelSource, Runtime], Served]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which versions of a model to serve: the ``latest`` so many (0: all there are), or exactly ``only`` these."""

    latest: int = 1
    only: tuple[int, ...] = ()

    def choose(self, there: list[int]) -> list[int]:
        """Return those to serve of the versions that are there (lowest first), lowest first."""
        if self.only:
            return [number for number in there if number in self.only]
        return there[-self.latest :] if self.latest else there


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model to serve: where it is, and which versions of it. ``name`` is empty where the model says it itself."""

    path: Path | str
    name: str = ""
    wanted: Wanted = Wanted()
    labels: Path | None = None


class Condition(StrEnum):
    """What has become of a version, in Triton's words."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(slots=True)
class Version:
    """One version of a model: its condition, the reason if it is not served, and the loaded thing if it is."""

    number: str
    condition: Condition = Condition.LOADING
    reason: str = ""
    served: Served | None = None


@dataclass(slots=True)
class Entry:
    """One model: what was asked for, its versions by number, and its labels."""

    model: Model
    name: str
    versions: dict[str, Version] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def ready(self) -> list[Version]:
        """The versions that serve, the oldest first."""
        ready = [each for each in self.versions.values() if each.served is not None]
        return sorted(ready, key=lambda each: _order(each.number))


class Repository:
    """Every model of one node. Belongs to one event loop.

    ``open`` loads a runtime (in a thread), ``make`` puts one to work. ``on_change`` is called after a version has come
    or gone.
    """

    def __init__(
        self,
        models: tuple[Model, ...],
        *,
        open: Open,  # noqa: A002 - it says what it does
        make: Make,
        metrics: Metrics,
        clock: Clock,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        """Look for every model. Raises ``ModelError`` where there is none, or where two have one name."""
        self._open = open
        self._make = make
        self._metrics = metrics
        self._clock = clock
        self._on_change = on_change
        self._loading = asyncio.Lock()
        # The tasks that free a version, with its name and what ends its waiting: not itself, lest it stay alive.
        self._leaving: dict[asyncio.Task[None], tuple[str, asyncio.Event]] = {}
        self._entries: dict[str, Entry] = {}
        for model in models:
            name = model.name or locate(model.path, model.labels).name
            if name in self._entries:
                raise ModelError(f"two models are called {name}; name one of them: --model OTHER={model.path}")
            self._entries[name] = Entry(model, name)

    @property
    def names(self) -> list[str]:
        """The models' names; the first is the one that is meant where nobody says."""
        return list(self._entries)

    @property
    def first(self) -> Served | None:
        """The newest version of the first model, if one serves."""
        ready = next(iter(self._entries.values())).ready()
        return ready[-1].served if ready else None

    def serving(self) -> list[Served]:
        """Every version that serves."""
        return [each.served for entry in self._entries.values() for each in entry.ready() if each.served is not None]

    def entry(self, name: str = "") -> Entry:
        """Return a model by its name, the first one for an empty name. Raises ``NotFound``."""
        entry = self._entries.get(name) if name else next(iter(self._entries.values()))
        if entry is None:
            known = ", ".join(self._entries)
            raise NotFound(f"there is no model {name[:100]!r} here; this node has {known}")
        return entry

    def find(self, name: str = "", *, version: str = "", label: str = "") -> Served:
        """Return the version that answers; the newest where neither version nor label is given.

        Raises ``NotFound``, and ``Overloaded`` while it is being loaded.
        """
        entry = self.entry(name)
        if label:
            if label not in entry.labels:
                raise NotFound(f"{entry.name} has no label {label[:100]!r}; it has {', '.join(entry.labels) or 'none'}")
            version = entry.labels[label]
        if not version:
            ready = entry.ready()
            if ready and ready[-1].served is not None:
                return ready[-1].served
            raise self._absent(entry, _telling(entry.versions.values()), "")
        found = entry.versions.get(version)
        if found is not None and found.served is not None:
            return found.served
        raise self._absent(entry, found, version)

    @contextmanager
    def use(self, name: str = "", *, version: str = "", label: str = "") -> Iterator[Served]:
        """Hold the version that answers, see ``find``, so that it is not freed meanwhile."""
        served = self.find(name, version=version, label=label)
        with served.held():
            yield served

    async def load(self, name: str = "", *, among: Collection[int] | None = None) -> None:
        """Bring one model to what is wanted of it: load what is missing, newest first, then let go of the rest.

        ``among``: choose from these versions only, for others may still be being copied. Raises ``ModelError`` or
        another ``NodeError`` when none of the wanted versions can be served; what served before goes on then.
        """
        entry = self.entry(name)
        async with self._loading:
            sources = await asyncio.to_thread(self._sources, entry, among)
            trouble: NodeError | None = None
            for source in reversed(sources):
                held = entry.versions.get(source.version)
                if held is not None and held.served is not None:
                    continue
                try:
                    await self._bring_up(entry, source)
                except NodeError as error:
                    trouble = error
                    log.error("%s version %s is not served: %s", entry.name, source.version, error)  # noqa: TRY400 - one line
            served = [source.version for source in sources if self._serves(entry, source.version)]
            if not served:
                raise trouble or ModelError(f"{entry.model.path} has none of the wanted versions")
            if trouble is None:
                for version in list(entry.versions.values()):
                    if version.number not in served:
                        self._retire(entry, version)

    async def unload(self, name: str) -> None:
        """Take every version of a model out of service; returns when the last request on it is answered."""
        entry = self.entry(name)
        async with self._loading:
            for version in list(entry.versions.values()):
                self._retire(entry, version)
        if going := [task for task, (leaving, _) in self._leaving.items() if leaving == entry.name]:
            await asyncio.wait(going)

    def label(self, name: str, label: str, version: str) -> None:
        """Point a label at a loaded version; an empty version takes the label away. Raises ``NotFound``."""
        entry = self.entry(name)
        if version:
            self.find(name, version=version)
            entry.labels[label] = version
        else:
            entry.labels.pop(label, None)

    async def close(self) -> None:
        """Fail what waits and free every model."""
        for _, unused in self._leaving.values():
            unused.set()  # nobody is waited for any more
        serving = [version for entry in self._entries.values() for version in entry.ready()]
        for version in serving:
            served, version.served = version.served, None
            if served is not None:
                await _close(served)
        await asyncio.gather(*self._leaving)

    def entries(self) -> list[Entry]:
        """Every model, for those who describe them."""
        return list(self._entries.values())

    def snapshot(self) -> dict[str, object]:
        """Every version with its condition."""
        return {
            entry.name: {
                "versions": {
                    each.number: {
                        "condition": str(each.condition),
                        **({"reason": each.reason} if each.reason else {}),
                        **({} if each.served is None else each.served.snapshot()),
                    }
                    for each in entry.versions.values()
                },
                "labels": dict(entry.labels),
            }
            for entry in self._entries.values()
        }

    def _sources(self, entry: Entry, among: Collection[int] | None) -> list[ModelSource]:
        """Find the wanted versions, lowest first; a model without versions is one source. Raises ``ModelError``."""
        model = entry.model
        try:
            there = versions(model.path) if isinstance(model.path, Path) else []
            chosen = model.wanted.choose([number for number in there if among is None or number in among])
            if there and not chosen:
                wanted = ", ".join(map(str, model.wanted.only)) or "one that is whole"
                raise ModelError(f"{model.path} has versions {', '.join(map(str, there))}, but not {wanted}")
            found = [locate(model.path, model.labels, version=number) for number in chosen] or [
                locate(model.path, model.labels)
            ]
        except OSError as error:
            raise ModelError(f"{model.path} cannot be read: {error}") from error
        return [msgspec.structs.replace(source, name=entry.name) for source in found]

    async def _bring_up(self, entry: Entry, source: ModelSource) -> None:
        """Load and warm one version, then put it in place. Raises ``NodeError``."""
        version = entry.versions[source.version] = Version(source.version)
        started = self._clock.monotonic()
        try:
            served = await self._warm(source)
        except BaseException as error:
            version.condition, version.reason = Condition.UNAVAILABLE, str(error) or "loading was broken off"
            self._metrics.load_failed(entry.name)
            raise
        version.served, version.condition = served, Condition.READY
        seconds, runtime = self._clock.monotonic() - started, served.runtime.name
        self._metrics.loaded(entry.name, source.version, runtime, seconds)
        log.info("%s version %s is served by %s after %.2f s", entry.name, source.version, runtime, seconds)
        self._changed()

    async def _warm(self, source: ModelSource) -> Served:
        """Load and warm one version; what fails is closed again. Raises ``NodeError``, whatever went wrong."""
        try:
            runtime = await asyncio.to_thread(self._verified, source)
            try:
                served = self._make(source, runtime)
            except BaseException:
                runtime.close()
                raise
            try:
                await served.warm()
            except BaseException:
                await served.close()
                raise
        except (NodeError, asyncio.CancelledError):
            raise
        except (Exception, SystemExit) as error:  # files that go away, memory that is not there, a model that exits
            why = next(iter(str(error).splitlines()), "")[:200]
            raise ModelError(f"{source.path} cannot be loaded: {type(error).__name__} {why}".rstrip()) from error
        await asyncio.to_thread(settle_memory)
        return served

    def _verified(self, source: ModelSource) -> Runtime:
        verify(source)
        return self._open(source)

    def _retire(self, entry: Entry, version: Version) -> None:
        """Give a version no more requests from now on; a task waits for those it has and frees it."""
        served, version.served = version.served, None
        if served is None:
            if version.condition is not Condition.UNLOADING:
                entry.versions.pop(version.number, None)
            return
        version.condition = Condition.UNLOADING
        entry.labels = {label: number for label, number in entry.labels.items() if number != version.number}
        self._metrics.unloaded(entry.name, version.number, served.runtime.name)
        self._changed()
        task = asyncio.ensure_future(self._free(entry, version, served))
        self._leaving[task] = entry.name, served.unused
        task.add_done_callback(self._leaving.pop)

    async def _free(self, entry: Entry, version: Version, served: Served) -> None:
        await served.unused.wait()
        await _close(served)
        if entry.versions.get(version.number) is version:
            del entry.versions[version.number]
        del served
        await asyncio.to_thread(settle_memory)
        log.info("%s version %s is unloaded", entry.name, version.number)

    def _serves(self, entry: Entry, number: str) -> bool:
        return number in entry.versions and entry.versions[number].served is not None

    def _absent(self, entry: Entry, version: Version | None, number: str) -> RequestError:
        if version is not None and version.condition is Condition.LOADING:
            return Overloaded(f"{entry.name} is still loading; ask another node or come back")
        if version is not None and version.reason:
            return NotFound(f"{entry.name} version {version.number} is not served here: {version.reason}")
        if not number:
            return NotFound(f"{entry.name} is not loaded here")
        there = ", ".join(each.number for each in entry.ready()) or "none"
        return NotFound(f"{entry.name} has no version {number[:40]!r} here; it has {there}")

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()


async def _close(served: Served) -> None:
    try:
        await served.close()
    except Exception:
        log.exception("%s version %s did not close", served.name, served.version)


def _order(number: str) -> tuple[int, str]:
    return (int(number), "") if number.isdigit() else (-1, number)


def _telling(found: Iterable[Version]) -> Version | None:
    """Of versions that do not serve, the one that says most about why: one that is coming, else the newest."""
    newest = sorted(found, key=lambda each: _order(each.number), reverse=True)
    return next((each for each in newest if each.condition is Condition.LOADING), next(iter(newest), None))
