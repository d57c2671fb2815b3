"""Noticing new versions in model folders.

Folders are looked at now and then, which works on every file system, network ones included. A version counts only
when its files have been the same for two looks in a row, so that one that is still being copied is never read. What
failed to load is tried again only after its files have changed. Which versions serve is the repository's affair; this
says when to look there again. A version that has gone from the disk goes on being served until another replaces it.
"""

from pathlib import Path

from node.models import fingerprint, versions
from node.repository import Wanted

Seen = dict[int, str]


class Watcher:
    """What one model folder looked like, and whether the repository should look at it again."""

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self._folder = folder
        self._wanted = wanted
        self._settled: Seen = {}
        self._last: Seen = {}

    def start(self) -> None:
        """Take what is there now as known."""
        self._last = self._settled = self._look()

    def due(self) -> bool:
        """Look once; whether wanted versions are there that are whole and were not there before."""
        seen = self._look()
        whole = {number: print_ for number, print_ in seen.items() if self._last.get(number) == print_}
        self._last = seen
        wanted = self._wanted.choose(sorted(whole))
        fresh = any(self._settled.get(number) != whole[number] for number in wanted)
        if fresh:
            self._settled = whole
        return fresh

    def _look(self) -> Seen:
        return {number: fingerprint(self._folder / str(number)) for number in versions(self._folder)}
