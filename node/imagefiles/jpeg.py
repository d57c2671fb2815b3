"""JPEG (ITU-T T.81): segments up to the first scan.

Kept are tables and frame, JFIF and Adobe; EXIF is looked at for the orientation and left out with all other metadata,
of which there can be megabytes. A progressive picture, or one whose channels come one after the other, is held whole as
coefficients, two bytes each, whatever size is asked for. Each scan goes over all of them: a real picture has about ten.
"""

import re

from node.errors import BadImage
from node.imagefiles.base import UPRIGHT, Data, File, Part, Span, damaged, orientation

MAGIC = b"\xff\xd8\xff"
_MOST_SEGMENTS = 2_000  # metadata comes in pieces of 64 KiB; a phone's depth map takes hundreds
_MOST_TABLES = 256 * 1024  # bytes; real ones take one or two thousand, a thumbnail in JFIF up to 64 KiB
_MOST_SCANS = 100
_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA} | _OTHER_FRAMES  # baseline, extended, progressive; twice arithmetic-coded
_PROGRESSIVE = {0xC2, 0xCA}
_ALONE = {0x00, 0x01, *range(0xD0, 0xD9)}  # markers without a segment; FF 00 is none at all
_SCAN = 0xDA
_END = 0xD9
_EXIF = 0xE1
_METADATA = {0xFE, *range(0xE1, 0xEE), 0xEF}  # comments and applications, but for JFIF (E0) and Adobe (EE)
_BLOCK = 64 * 2  # bytes of a block's coefficients


class _Frame:
    """What a frame header says: sizes, and each channel's sampling factors."""

    def __init__(self, marker: int, body: Part) -> None:
        """Raises ``BadImage``."""
        if marker in _OTHER_FRAMES:
            raise BadImage("a lossless or hierarchical JPEG is not read here; send a usual one")
        channels = body[5] if len(body) >= 6 else 0
        if channels not in (1, 3, 4) or len(body) < 6 + 3 * channels:
            raise damaged("JPEG", "its frame header makes no sense")
        self.progressive = marker in _PROGRESSIVE
        self.height = int.from_bytes(body[1:3], "big")
        self.width = int.from_bytes(body[3:5], "big")
        self.sampling = [(body[at] >> 4, body[at] & 15) for at in range(7, 7 + 3 * channels, 3)]
        if not all(1 <= h <= 4 and 1 <= v <= 4 for h, v in self.sampling):
            raise damaged("JPEG", "its sampling factors make no sense")

    @property
    def coefficients(self) -> int:
        """Bytes of all of them."""
        most_h, most_v = max(h for h, _ in self.sampling), max(v for _, v in self.sampling)
        across, down = -(-self.width // (8 * most_h)), -(-self.height // (8 * most_v))
        return across * down * sum(h * v for h, v in self.sampling) * _BLOCK


def read(data: Data) -> File:
    """Walk to the first scan. Raises ``BadImage``."""
    view = memoryview(data)
    kept = Span(data)
    kept.keep(0, 2)
    frame: _Frame | None = None
    upright: int | None = None
    at = 2
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, at)  # over what stands in between, as decoders do
        marker = data[found.start(1)] if found is not None else _END
        at = found.end() if found is not None else len(data)
        if marker in _ALONE:
            continue
        end = at + int.from_bytes(view[at : at + 2], "big")
        if marker == _END or end < at + 2 or end > len(data):
            raise damaged("JPEG", "it ends before its picture")
        if marker == _SCAN:
            if frame is None or end < at + 3:
                raise damaged("JPEG", "a scan comes before its frame")
            return _picture(data, at - 2, kept, frame, upright or UPRIGHT)
        if marker in _FRAMES:
            if frame is not None:
                raise damaged("JPEG", "it has two frames")
            frame = _Frame(marker, view[at + 2 : end])
        elif marker == _EXIF and upright is None and bytes(view[at + 2 : at + 8]) == b"Exif\0\0":
            upright = orientation(view[at + 8 : end])
        if marker not in _METADATA:
            kept.keep(at - 2, end)
        at = end
    raise damaged("JPEG", f"there are more than {_MOST_SEGMENTS:,} segments before its picture")


def _picture(data: Data, scan: int, kept: Span, frame: _Frame, upright: int) -> File:
    """Describe the picture whose first scan begins at ``scan``."""
    if kept.size > _MOST_TABLES:
        raise damaged("JPEG", f"its tables take more than {_MOST_TABLES // 1024} KiB")
    channels = len(frame.sampling)
    whole = frame.progressive or data[scan + 4] != channels
    if whole and data.count(b"\xff\xda", scan) > _MOST_SCANS:
        raise damaged("JPEG", f"it has more than {_MOST_SCANS} scans")
    kept.keep(scan, len(data))
    return File(
        "JPEG",
        frame.width,
        frame.height,
        kept.parts,
        pixel=1 if channels == 1 else 4,
        fixed=frame.coefficients if whole else 0,
        orientation=upright,
        scalable=True,
    )
