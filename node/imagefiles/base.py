"""What is known of an image file before it is decoded, and the parts of it a decoder gets to see.

A library that opens a file believes it: it keeps every comment, unpacks every text, follows every directory. Here only
the structure is walked, in as many steps as a real file needs, and metadata is left out: what remains costs what its
pixels cost. ``File.memory`` says how much that is. Nothing is copied: the parts are views of the file.
"""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, cast

from node.errors import BadImage

# EXIF: upright, and the seven other ways a camera can have been held.
UPRIGHT = 1
_ORIENTATIONS = range(1, 9)
_ORIENTATION_TAG = 0x0112
_SHORT = 3

# What a decoder holds for each row, a pointer, and for each column, a few lines in work: little but for strange shapes.
_ROW = 8
_LINES = 16
# Up to so many bytes are copied together.
_COPIED = 64 * 1024

Part = bytes | memoryview
Data = bytes | bytearray


@dataclass(frozen=True, slots=True)
class File:
    """One picture: sizes in pixels as stored, and the ``parts`` that make a file of its pixels alone.

    ``pixel`` is what decoding holds of each pixel it gives out, ``fixed`` what it holds besides, in bytes.
    ``scalable``: it can be decoded at 1/2, 1/4 and 1/8 of its size.
    """

    format: str
    width: int
    height: int
    parts: tuple[Part, ...]
    pixel: int
    fixed: int = 0
    orientation: int = UPRIGHT
    scalable: bool = False

    @property
    def sideways(self) -> bool:
        """Whether it is turned by a quarter, so that width and height change places."""
        return self.orientation > 4

    def memory(self, scale: int = 1) -> int:
        """Bytes that decoding holds at its peak, when decoded at ``1 / scale`` of the size."""
        width, height = -(-self.width // scale), -(-self.height // scale)
        return self.fixed + width * height * self.pixel + height * _ROW + width * _LINES


def opened(parts: Sequence[Part]) -> IO[bytes]:
    """Return the parts as one file to read; where they are few bytes a copy is quicker."""
    if sum(map(len, parts)) <= _COPIED:
        return io.BytesIO(b"".join(parts))
    return cast("IO[bytes]", _Reader(parts))


class _Reader(io.RawIOBase):
    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self._parts = [memoryview(part) for part in parts]
        self._ends = [0]
        for part in self._parts:
            self._ends.append(self._ends[-1] + len(part))
        self._at = 0

    def readable(self) -> bool:
        """See ``io.RawIOBase``."""
        return True

    def seekable(self) -> bool:
        """See ``io.RawIOBase``."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See ``io.RawIOBase``."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """See ``io.RawIOBase``."""
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """See ``io.RawIOBase``."""
        end = self._ends[-1] if size is None or size < 0 else min(self._at + size, self._ends[-1])
        pieces = [
            part[max(0, self._at - start) : end - start]
            for part, (start, stop) in zip(self._parts, pairwise(self._ends), strict=True)
            if start < end and self._at < stop
        ]
        self._at = max(self._at, end)
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)


class Span:
    """Stretches of one file, put together; neighbours become one part."""

    def __init__(self, data: Data) -> None:
        self.size = 0
        self._view = memoryview(data)
        self._stretches: list[tuple[int, int]] = []

    def keep(self, start: int, end: int) -> None:
        """Add ``[start, end)``, which comes after what was added before."""
        self.size += end - start
        if self._stretches and self._stretches[-1][1] == start:
            start = self._stretches.pop()[0]
        self._stretches.append((start, end))

    @property
    def parts(self) -> tuple[Part, ...]:
        """What was kept."""
        return tuple(self._view[start:end] for start, end in self._stretches)


def damaged(format: str, what: str) -> BadImage:  # noqa: A002 - it is one
    """Return the error for a file whose structure cannot be followed."""
    return BadImage(f"the {format} image is damaged: {what}")


def orientation(exif: Part) -> int:
    """Which way up EXIF metadata says the picture is; upright where it says nothing, or nonsense.

    ``exif`` starts with its byte order, ``II`` or ``MM``. Only the first directory is looked at, one entry at a time.
    """
    order = {b"II": "<", b"MM": ">"}.get(bytes(exif[:2]))
    try:
        if order is None:
            return UPRIGHT
        (start,) = struct.unpack_from(f"{order}L", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHLH", exif, at)
            if tag == _ORIENTATION_TAG:
                return int(value) if kind == _SHORT and value in _ORIENTATIONS else UPRIGHT
    except struct.error:  # it ends too early
        pass
    return UPRIGHT
