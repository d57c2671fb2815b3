"""Noticing new versions in model folders.

Folders are looked at now and then, which works on every file system, network ones included. A version counts only
when its files have been the same for two looks in a row, so that one that is still being copied is never read. What
failed to load is tried again only after its files have changed. Which versions serve is the repository's affair; this
says when to look there again, and at which. A version that has gone from the disk goes on being served until another
replaces it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection
from pathlib import Path

from node.errors import NodeError
from node.models import fingerprint
from node.repository import Repository, Wanted
from registry.timing import Clock

log = logging.getLogger(__name__)

Seen = dict[int, str]


class Watcher:
    """What one model folder looked like, and whether the repository should look at it again.

    ``start`` it before the models are loaded, else what comes meanwhile is taken for known.
    """

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self._folder = folder
        self._wanted = wanted
        self._settled: Seen = {}
        self._last: Seen = {}
        self._trouble = ""

    def start(self) -> None:
        """Take what is there now as known."""
        self._last = self._settled = self._look()

    def due(self) -> Collection[int]:
        """Look once; the versions to choose from when wanted ones are whole that were not there before, else none."""
        seen = self._look()
        whole = {number: print_ for number, print_ in seen.items() if self._last.get(number) == print_}
        self._last = seen
        wanted = self._wanted.choose(sorted(whole))
        if all(self._settled.get(number) == whole[number] for number in wanted):
            return ()
        self._settled = whole
        return whole.keys()

    def _look(self) -> Seen:
        found: Seen = {}
        trouble = ""
        try:
            for each in self._folder.iterdir() if self._folder.is_dir() else ():
                if each.name.isascii() and each.name.isdigit() and each.is_dir():
                    found[int(each.name)] = fingerprint(each)
        except OSError as error:  # away for the moment, or being moved: what serves goes on
            trouble = str(error)
            if trouble != self._trouble:
                log.warning("new versions cannot be looked for: %s", error)
        self._trouble = trouble
        return found


class Following:
    """Looks at the folder of every model of a repository each ``every`` seconds, and has new versions loaded."""

    def __init__(self, repository: Repository, *, every: float, clock: Clock) -> None:
        self._repository = repository
        self._every = every
        self._clock = clock
        self._watchers = {
            entry.name: Watcher(entry.model.path, entry.model.wanted)
            for entry in repository.entries()
            if isinstance(entry.model.path, Path)
        }

    async def start(self) -> None:
        """Take what is there now as known; before the models are loaded."""
        for watcher in self._watchers.values():
            await asyncio.to_thread(watcher.start)

    async def run(self) -> None:
        """Look for new versions for ever; what cannot be served is logged, and what serves goes on."""
        while True:
            await self._clock.sleep(self._every)
            for name, watcher in self._watchers.items():
                if among := await asyncio.to_thread(watcher.due):
                    with contextlib.suppress(NodeError):  # logged where it was refused
                        await self._repository.load(name, among=among)
