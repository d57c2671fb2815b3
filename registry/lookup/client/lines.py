"""Newline-delimited JSON as it comes in, cut into lines and bounded. Reading can be cancelled and loses nothing."""

from collections import deque
from typing import Protocol

from registry.errors import InvalidAnswer

# What one list may take, in a stream or as one answer: half a million ordinary instances.
LARGEST = 64 * 1024 * 1024


class Content(Protocol):
    """Where bytes come from (aiohttp's ``StreamReader``)."""

    async def readany(self) -> bytes:
        """Whatever has come, at least a byte; nothing at the end. Must not lose any when cancelled."""
        ...


class Lines:
    """Takes chunks, gives lines. ``largest``: bytes a line may take."""

    def __init__(self, content: Content, largest: int = LARGEST) -> None:
        self._content = content
        self._largest = largest
        self._whole: deque[bytes] = deque()
        self._begun = bytearray()

    @property
    def ready(self) -> bool:
        """Whether a line is here already."""
        return bool(self._whole)

    async def more(self) -> bool:
        """Wait for the next line; False at the end. Raises ``InvalidAnswer`` and what ``content`` does."""
        while not self._whole:
            chunk = await self._content.readany()
            if not chunk:
                if self._begun:
                    raise InvalidAnswer("it broke off in the middle of a line")
                return False
            self._take(chunk)
        return True

    def take(self) -> bytes:
        """The next line, which is there, without its newline."""
        return self._whole.popleft()

    def _take(self, chunk: bytes) -> None:
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._whole.append(bytes(self._begun) + line)
            self._begun.clear()
        self._begun += rest
        if len(self._begun) > self._largest:
            raise InvalidAnswer(f"it sent a line of more than {self._largest >> 20} MB")
