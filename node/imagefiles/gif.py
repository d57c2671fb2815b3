"""GIF (89a): blocks up to the first picture.

Kept are palettes, that picture and what says which of its colours is transparent; comments are left out, and the
decoder stops before further frames.
"""

from node.imagefiles.base import Data, File, Span, damaged

MAGIC = b"GIF8"
_MOST_BLOCKS = 20_000
_EXTENSION, _PICTURE, _GRAPHIC_CONTROL = 0x21, 0x2C, 0xF9


def read(data: Data) -> File:
    """Walk to the first picture. Raises ``BadImage``."""
    if len(data) < 13:
        raise damaged("GIF", "its header is cut off")
    kept = Span(data)
    width, height = _two(data, 6), _two(data, 8)
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    kept.keep(0, min(at, len(data)))
    steps = _MOST_BLOCKS
    while steps > 0 and at + 2 < len(data):
        steps -= 1
        start, kind = at, data[at]
        if kind == _PICTURE and at + 10 <= len(data):
            kept.keep(at, len(data))
            width = max(width, _two(data, at + 1) + _two(data, at + 5))
            height = max(height, _two(data, at + 3) + _two(data, at + 7))
            return File("GIF", width, height, kept.parts, pixel=1)
        if kind != _EXTENSION:
            raise damaged("GIF", "there is something between its blocks")
        label, at = data[at + 1], at + 2
        while steps > 0 and at < len(data) and data[at]:
            steps -= 1
            at += 1 + data[at]
        at += 1
        if label == _GRAPHIC_CONTROL and at <= len(data):
            kept.keep(start, at)
    what = "there is no picture in it" if steps else f"more than {_MOST_BLOCKS:,} blocks come before its picture"
    raise damaged("GIF", what)


def _two(data: Data, at: int) -> int:
    return data[at] | data[at + 1] << 8
