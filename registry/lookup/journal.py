"""The last changes of a list as they go over the wire, so that readers are told from wherever they are. Pure.

A *place* counts changes; the line at place p leads from the list at p to that at p + 1. A journal longer than the
list it leads to would be of no use to anybody, so it is bounded by the size of the list.
"""

from collections import deque
from itertools import islice

# What is written to one reader at a time, in bytes.
PIECE = 64 * 1024
# What a line costs beside its bytes, and what an ordinary row takes, in bytes.
_OVERHEAD = 128
_ROW = 128
_LEAST = 4096


class Journal:
    """Lines from place ``start`` to place ``end``, of a list that has ``index`` now."""

    __slots__ = ("_indexes", "_joined", "_lines", "_renewed", "_size", "end", "start")

    def __init__(self, index: int) -> None:
        self.start = self.end = 0
        self._renewed = 0
        self._lines: deque[bytes] = deque()
        self._indexes = deque([index])  # of the places start, ..., end
        self._size = 0
        self._joined = (0, 0, b"", 0)

    def append(self, line: bytes, index: int, rows: int) -> None:
        """Add a change that led to ``index`` and a list of ``rows``."""
        self._lines.append(line)
        self._indexes.append(index)
        self._size += len(line) + _OVERHEAD
        self.end += 1
        while self._size > _LEAST + _ROW * rows:
            self._size -= len(self._lines.popleft()) + _OVERHEAD
            self._indexes.popleft()
            self.start += 1

    def renew(self, index: int) -> None:
        """Note a change that is told by sending the whole list."""
        self.end += 1
        self.start = self._renewed = self.end
        self._lines.clear()
        self._indexes = deque([index])
        self._size = 0

    def holds(self, place: int) -> bool:
        """Whether a reader at ``place`` can be told by lines alone."""
        return self.start <= place <= self.end

    def missed(self, place: int) -> bool:
        """Whether a reader at ``place`` cannot because it was late, not because the whole list changed."""
        return not self.holds(place) and not (place + 1 == self._renewed == self.start)

    def place_of(self, index: int) -> int | None:
        """The place of the list that had ``index``; None when that is unknown here."""
        for back, each in enumerate(reversed(self._indexes)):
            if each == index:
                return self.end - back
        return None

    def since(self, place: int) -> tuple[bytes, int]:
        """Give lines from ``place`` on, at most about ``PIECE`` bytes of them, and the place they lead to.

        Everybody who asks from the same place is given the same object.
        """
        known, end, lines, reached = self._joined
        if (known, end) == (place, self.end):
            return lines, reached
        found, size = [], 0
        for each in islice(self._lines, place - self.start, None):
            found.append(each)
            size += len(each)
            if size >= PIECE:
                break
        self._joined = (place, self.end, b"".join(found), place + len(found))
        return self._joined[2:]
