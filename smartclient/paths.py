"""Which files to classify: named ones, those under folders, and lines of a pipe; all found lazily.

A named file is taken as it is, there or not: whether it can be read is for its own result to say. Folders are searched
recursively for the extensions of image files, in order of name; what is hidden is left out.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_PIECE = 1 << 16


def find_images(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield each path that is no folder, and the images under each that is one."""
    for path in paths:
        if path.is_dir():
            yield from _under(path)
        else:
            yield path


def read_lines(descriptor: int) -> Iterator[Path]:
    """Yield the path on each line of a file descriptor; empty lines are skipped.

    Read without Python's buffered layer, whose lock a reader that still waits would hold at the interpreter's end.
    """
    rest = b""
    while piece := os.read(descriptor, _PIECE):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (Path(os.fsdecode(line)) for line in map(_stripped, lines) if line)
    if line := _stripped(rest):
        yield Path(os.fsdecode(line))


def shown(path: object) -> str:
    """Return a path as text that any terminal takes: bytes that are no text are replaced."""
    return os.fsencode(str(path)).decode(errors="replace")


def _under(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(where, name)
            if not name.startswith(".") and path.suffix.lower() in EXTENSIONS:
                yield path


def _stripped(line: bytes) -> bytes:
    return line.removesuffix(b"\r")
