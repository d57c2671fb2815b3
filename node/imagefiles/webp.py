"""WebP: the chunks of its container (RIFF).

Kept is the first picture; metadata and the further frames of an animation are left out. Decoding holds a canvas and its
copy, what it hands out, and the decoded picture, four bytes a pixel each, and the file about three times over.
"""

from node.imagefiles.base import UPRIGHT, Data, File, Part, damaged, orientation

MAGIC = b"RIFF"
_MOST_CHUNKS = 1_000
_PIXEL = 16
_COPIES = 3
_ALPHA, _ANIMATION = 0x10, 0x02


def read(data: Data) -> File:
    """Walk the chunks up to the first picture. Raises ``BadImage``."""
    view = memoryview(data)
    size: tuple[int, int] | None = None
    flags = 0
    parts: list[Part] = []
    upright = UPRIGHT
    complete = False
    at = 12
    for _ in range(_MOST_CHUNKS):
        kind, length = bytes(view[at : at + 4]), int.from_bytes(view[at + 4 : at + 8], "little")
        body = view[at + 8 : at + 8 + length]
        end = at + 8 + length + length % 2
        if len(kind) < 4:
            break
        if kind == b"EXIF":
            upright = orientation(body[6:] if bytes(body[:6]) == b"Exif\0\0" else body)
        elif complete:
            pass
        elif kind == b"VP8X" and size is None:
            if len(body) < 10:
                raise damaged("WEBP", "its header is cut off")
            flags = body[0] & (_ALPHA | _ANIMATION)
            size = 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
            parts.append(b"VP8X\x0a\0\0\0" + bytes([flags]) + bytes(body[1:10]))
        elif kind in (b"ALPH", b"ANIM", b"VP8 ", b"VP8L", b"ANMF"):
            size = size or _size(kind, body)
            parts += [view[at:end], bytes(-len(view[at:end]) % 2)]
            complete = kind not in (b"ALPH", b"ANIM")
        at = end
    if size is None:
        raise damaged("WEBP", "there is no picture in it")
    total = sum(len(part) for part in parts)
    header = b"RIFF" + (4 + total).to_bytes(4, "little") + b"WEBP"
    return File("WEBP", *size, (header, *parts), pixel=_PIXEL, fixed=_COPIES * total, orientation=upright)


def _size(kind: bytes, body: Part) -> tuple[int, int]:
    """Width and height as a bare picture, lossy or lossless, states them."""
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a" and len(body) >= 10:
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    if kind == b"VP8L" and body[:1] == b"\x2f" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise damaged("WEBP", "its picture's header makes no sense")
