"""PNG (W3C, third edition): chunks.

Kept are header, palette, transparency and picture; EXIF is looked at for the orientation. Text that unpacks to
megabytes, colour profiles and the frames of an animation are left out: an animated picture is its still.
"""

from node.imagefiles.base import UPRIGHT, Data, File, Span, damaged, orientation

MAGIC = b"\x89PNG\r\n\x1a\n"
_MOST_CHUNKS = 100_000  # 64 MiB in the 8 KiB that libpng writes at a time are 8,192
_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_GREY, _PALETTE = 0, 3


def read(data: Data) -> File:
    """Walk all chunks. Raises ``BadImage``."""
    kept = Span(data)
    kept.keep(0, len(MAGIC))
    upright = UPRIGHT
    at = len(MAGIC)
    if data[at + 4 : at + 8] != b"IHDR" or len(data) < at + 21:
        raise damaged("PNG", "it does not start with its header")
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (at + 8, at + 12))
    bits, colour = data[at + 16], data[at + 17]
    for _ in range(_MOST_CHUNKS):
        kind = bytes(data[at + 4 : at + 8])
        if len(kind) < 4:  # cut off: the decoder will say so
            break
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"eXIf":
            upright = orientation(memoryview(data)[at + 8 : end - 4])
        elif kind in _KEPT:
            kept.keep(at, min(end, len(data)))
        if kind == b"IEND" or end >= len(data):
            break
        at = end
    else:
        raise damaged("PNG", f"it has more than {_MOST_CHUNKS:,} chunks")
    return File("PNG", width, height, kept.parts, pixel=_pixel(bits, colour), orientation=upright)


def _pixel(bits: int, colour: int) -> int:
    """Bytes a pixel: one channel, or everything else in four bytes."""
    if colour == _PALETTE or (colour == _GREY and bits <= 8):
        return 1
    return 2 if colour == _GREY else 4
