"""Files and bodies that mean no good, made on the spot: real images, broken and monstrous ones.

``SEEDS`` are sound images of every kind the node reads, to be damaged. ``BOMBS`` are files that are small to send and
large to decode, or that make a reader work for hours; each with the status of its answer.
"""

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

SIDE = 7071  # squared, just under 50 megapixels
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's colour type


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(width: int, height: int, *, bits: int = 8, colour: int = 2, before: bytes = b"") -> bytes:
    """A sound PNG of zeros, made without holding its pixels; ``before``: chunks in front of the picture."""
    row = bytes(1 + (width * bits * CHANNELS[colour] + 7) // 8)
    packer = zlib.compressobj(9)
    at_once = max(1, min(height, 65536 // len(row)))
    rows = [packer.compress(row * at_once) for _ in range(height // at_once)]
    rows += [packer.compress(row * (height % at_once)), packer.flush()]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(256)) * 3) if colour == 3 else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + palette
        + before
        + chunk(b"IDAT", b"".join(rows))
        + chunk(b"IEND", b"")
    )


def file(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image as a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _noise(mode: str = "RGB", width: int = 48, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _exif(garbage: bytes) -> bytes:
    """A JPEG whose EXIF is ``garbage``."""
    plain = file(_noise(), "JPEG")
    return plain[:2] + b"\xff\xe1" + (8 + len(garbage)).to_bytes(2, "big") + b"Exif\0\0" + garbage + plain[2:]


def _ycck() -> bytes:
    """A CMYK JPEG whose Adobe marker says that it is stored as YCCK."""
    plain = file(_noise("CMYK"), "JPEG")
    at = plain.index(b"Adobe")
    return plain[: at + 11] + b"\x02" + plain[at + 12 :]


def _sixteen_bits() -> bytes:
    deep = np.random.default_rng(6).integers(0, 65536, (40, 48), np.uint16)
    return file(Image.fromarray(deep), "PNG")


def _several(kind: str) -> bytes:
    frames = [_noise().rotate(turn) for turn in (0, 90, 180)]
    return file(frames[0], kind, save_all=True, append_images=frames[1:])


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file(_noise(), "JPEG", exif=exif)


SEEDS: dict[str, bytes] = {
    "jpeg": file(_noise(), "JPEG"),
    "jpeg grey": file(_noise("L"), "JPEG"),
    "jpeg progressive": file(_noise(width=200, height=160), "JPEG", progressive=True),
    "jpeg cmyk": file(_noise("CMYK"), "JPEG"),
    "jpeg ycck": _ycck(),
    "jpeg turned": _turned(6),
    "jpeg turned by nonsense": _turned(77),
    "jpeg exif of garbage": _exif(random.Random(1).randbytes(3000)),
    "jpeg exif that runs away": _exif(
        b"MM\0\x2a\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\xff\xff\xff\xff\x7f\xff\xff\xff" * 400
    ),
    "png": file(_noise(), "PNG"),
    "png 1 bit": file(_noise("1"), "PNG"),
    "png 16 bits": _sixteen_bits(),
    "png 16 bits, one level clear": png(48, 40, bits=16, colour=0, before=chunk(b"tRNS", b"\0\0")),
    "png 16 bits colour": png(48, 40, bits=16, colour=2, before=chunk(b"tRNS", b"\xff\xfe\xfd\xfc\xfb\xfa")),
    "png rgba": file(_noise("RGBA"), "PNG"),
    "png palette": file(_noise("P"), "PNG"),
    "png palette with clear entries": file(_noise("P"), "PNG", transparency=bytes(range(256))),
    "apng": _several("PNG"),
    "gif": file(_noise("P"), "GIF"),
    "gif with a clear colour": file(_noise("P"), "GIF", transparency=3),
    "gif of three": _several("GIF"),
    "webp": file(_noise(), "WEBP"),
    "webp lossless": file(_noise("RGBA"), "WEBP", lossless=True),
    "webp of three": _several("WEBP"),
    "bmp": file(_noise(), "BMP"),
    "bmp 1 bit": file(_noise("1"), "BMP"),
}


def grey(level: int) -> bytes:
    """A good picture: ``pictures`` names its level, ``level // 26``."""
    return file(Image.new("RGB", (64, 48), (level,) * 3), "PNG")


def _bitmap(width: int, height: int, *, bits: int, compression: int, data: bytes) -> bytes:
    offset = 54 + (1024 if bits == 8 else 0)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<III", offset, 0, offset) + info + bytes(offset - 54) + data


def _in_jpeg(segments: bytes) -> bytes:
    plain = file(_noise(), "JPEG")
    return plain[:2] + segments + plain[2:]


def _text_bomb() -> bytes:
    """Sixty texts of a megabyte each, whose one wide character makes four bytes of every other."""
    text = zlib.compress(("\N{GRINNING FACE}" + "x" * 1_040_000).encode())
    return png(48, 40, before=b"".join(chunk(b"iTXt", b"k%d\0\1\0\0\0" % number + text) for number in range(60)))


def _scans() -> bytes:
    """A progressive JPEG whose last scan comes two thousand times."""
    plain = file(Image.new("RGB", (3000, 2000), "teal"), "JPEG", progressive=True)
    last = plain.rindex(b"\xff\xda")
    return plain[:last] + plain[last:-2] * 2000 + plain[-2:]


def _gif_comments() -> bytes:
    plain = file(_noise("P"), "GIF")
    at = 13 + 3 * 256
    return plain[:at] + b"!\xfe" + (b"\xff" + b"x" * 255) * 60_000 + b"\0" + plain[at:]


def _webp_xmp(size: int) -> bytes:
    """A small WebP with so many bytes of XMP."""
    plain = file(_noise(width=48, height=48), "WEBP")
    header = b"VP8X\x0a\0\0\0" + bytes([4, 0, 0, 0]) + (47).to_bytes(3, "little") * 2
    chunks = b"WEBP" + header + plain[12:] + b"XMP " + size.to_bytes(4, "little") + bytes(size)
    return b"RIFF" + len(chunks).to_bytes(4, "little") + chunks


def _cut(data: bytes) -> bytes:
    return data[: len(data) * 9 // 10]


OK, HUGE, BAD = 200, 413, 422
BOMBS: dict[str, tuple[Callable[[], bytes], int]] = {
    "PNG of 50,000 x 50,000": (lambda: png(50_000, 50_000, bits=1, colour=0), HUGE),
    "PNG at the cap": (lambda: png(SIDE, SIDE), OK),
    "PNG at the cap, alpha": (lambda: png(SIDE, SIDE, colour=6), OK),
    "WebP with 60 MB of XMP": (lambda: _webp_xmp(60_000_000), OK),
    "PNG at the cap, grey and alpha": (lambda: png(SIDE, SIDE, colour=4), OK),
    "PNG at the cap, 16 bits": (lambda: png(SIDE, SIDE, bits=16, colour=0), OK),
    "PNG at the cap, 16 bits, alpha": (lambda: png(SIDE, SIDE, bits=16, colour=6), OK),
    "PNG with 60 MB of nothing": (lambda: png(48, 40, before=chunk(b"prVt", bytes(60_000_000))), OK),
    "PNG at the cap, palette": (
        lambda: png(SIDE, SIDE, colour=3, before=chunk(b"tRNS", bytes([3, 0, 5, 7]))),
        OK,
    ),
    "PNG at the cap, one clear colour": (lambda: png(SIDE, SIDE, before=chunk(b"tRNS", bytes(6))), OK),
    "PNG with 60 MB of text": (lambda: png(48, 40, before=chunk(b"tEXt", b"k\0" + b"x" * 60_000_000)), BAD),
    "PNG at the cap, 1 bit": (lambda: png(SIDE, SIDE, bits=1, colour=0), OK),
    "PNG at the cap, alpha, cut off": (lambda: _cut(png(SIDE, SIDE, colour=6)), BAD),
    "PNG at the cap, 16 bits, cut off": (lambda: _cut(png(SIDE, SIDE, bits=16, colour=0)), BAD),
    "PNG at the cap, narrow": (lambda: png(16, 3_000_000, colour=0), OK),
    "PNG at the cap, one column": (lambda: png(1, 49_000_000, bits=1, colour=0), HUGE),
    "PNG at the cap, one row": (lambda: png(49_000_000, 1, bits=1, colour=0), HUGE),
    "PNG with texts that unpack": (_text_bomb, BAD),
    "PNG of a million chunks": (lambda: png(8, 8, before=chunk(b"prVt", b"") * 1_000_000), BAD),
    "WebP at the cap": (lambda: file(Image.new("RGB", (SIDE, SIDE)), "WEBP"), HUGE),
    "WebP at the cap, lossless": (lambda: file(Image.new("RGBA", (SIDE, SIDE)), "WEBP", lossless=True), HUGE),
    "WebP of a phone": (lambda: file(Image.new("RGB", (4032, 3024)), "WEBP"), OK),
    "JPEG with 60 MB of comments": (lambda: _in_jpeg((b"\xff\xfe\xff\xff" + bytes(65533)) * 930), OK),
    "JPEG at the cap": (lambda: file(Image.new("RGB", (SIDE, SIDE)), "JPEG"), OK),
    "JPEG at the cap, CMYK": (lambda: file(Image.new("CMYK", (SIDE, SIDE)), "JPEG"), OK),
    "JPEG at the cap, progressive": (
        lambda: file(Image.new("RGB", (SIDE, SIDE)), "JPEG", progressive=True, subsampling=0),
        HUGE,
    ),
    "JPEG of two thousand scans": (_scans, BAD),
    "JPEG of four million segments": (lambda: _in_jpeg(b"\xff\xe1\0\2" * (4 << 20)), BAD),
    "JPEG of endless padding": (lambda: _in_jpeg(b"\xff" * (16 << 20)), BAD),
    "JPEG with 60 MB of EXIF": (
        lambda: _in_jpeg((b"\xff\xe1\xff\xffExif\0\0MM\0\x2a\0\0\0\x08\xff\xff" + bytes(65517)) * 900),
        BAD,
    ),
    "GIF at the cap": (lambda: file(Image.new("P", (SIDE, SIDE)), "GIF", transparency=0), OK),
    "GIF of comments": (_gif_comments, BAD),
    "GIF with a frame beyond its screen": (
        lambda: (
            SEEDS["gif"][:6]
            + b"\1\0\1\0"
            + SEEDS["gif"][10:].replace(b",\0\0\0\0\x30\0\x28\0", b",\0\0\0\0\xff\xff\xff\xff", 1)
        ),
        HUGE,
    ),
    "BMP at the cap": (lambda: _bitmap(4500, 4500, bits=24, compression=0, data=bytes(4500 * 4500 * 3)), OK),
    "BMP of run lengths": (lambda: _bitmap(5000, 5000, bits=8, compression=1, data=bytes(8 << 20)), BAD),
}


def packed_zeros(size: int) -> bytes:
    """A gzip file of ``size`` zero bytes, for size a multiple of a mebibyte."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1 << 20)
    return b"".join(packer.compress(block) for _ in range(size >> 20)) + packer.flush()


def large_bodies() -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """Bodies at the size the node takes, or that unpack to more than it takes: path, body, headers."""
    zeros, many = packed_zeros(1 << 30), b"0," * (20 << 20)
    gzip = {"Content-Encoding": "gzip"}
    row = b'{"inputs": [{"name": "x", "shape": [10000000, 4], "datatype": "FP32", "data": ['
    wide = b'{"inputs": [{"name": "n", "shape": [1, 20000000], "datatype": "INT64", "data": ['
    binary = (
        b'{"inputs": [{"name": "n", "shape": [1, 8000000], "datatype": "INT64", '
        b'"parameters": {"binary_data_size": 64000000}}]}'
    )
    form = b'--B\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    return {
        "gzip": ("/classify", zeros, gzip),
        "gzip of a form": ("/classify", zeros, {**gzip, "Content-Type": "multipart/form-data; boundary=B"}),
        "gzip of tensors": ("/v2/models/numbers/infer", zeros, gzip),
        "gzip of instances": ("/v1/models/numbers:predict", zeros, gzip),
        "gzip to nowhere": ("/nowhere", zeros, gzip),
        "deflate": ("/classify", zlib.compress(bytes(256 << 20), 9), {"Content-Encoding": "deflate"}),
        "many rows": ("/v2/models/numbers/infer", row + many[:40_000_000] + b"0]}]}", {}),
        "a wide row": ("/v2/models/numbers/infer", wide + many[:-2] + b"]}]}", {}),
        "binary": (
            "/v2/models/numbers/infer",
            binary + bytes(64_000_000),
            {"Inference-Header-Content-Length": str(len(binary))},
        ),
        "instances": ("/v1/models/numbers:predict", b'{"instances": [' + many + b"0]}", {}),
        "nested instances": ("/v1/models/numbers:predict", b'{"instances": [' + b"[0]," * (10 << 20) + b"0]}", {}),
        "objects": ("/v1/models/numbers:predict", b'{"instances": [' + b'{"x":[]},' * (5 << 20) + b"0]}", {}),
        "keys": ("/v2/models/numbers/infer", b"{" + b'"a":{},' * (6 << 20) + b'"b":1}', {}),
        "quotes": ("/v1/models/numbers:predict", b'{"instances": ["' + b'\\"' * (20 << 20) + b'"]}', {}),
        "b64": ("/v1/models/pictures:predict", b'{"instances": [{"b64": "' + b"A" * 60_000_000 + b'"}]}', {}),
        "a large image": ("/classify", _bitmap(4500, 4500, bits=24, compression=0, data=bytes(4500 * 4500 * 3)), {}),
        "noise": ("/classify", random.Random(3).randbytes(60_000_000), {}),
        "a large file in a form": (
            "/classify",
            form + bytes(60_000_000) + b"\r\n--B--\r\n",
            {"Content-Type": "multipart/form-data; boundary=B"},
        ),
        "lines in a form": ("/classify", b"\r\n" * (30 << 20), {"Content-Type": "multipart/form-data; boundary=B"}),
        "many files in a form": (
            "/classify",
            (form + SEEDS["gif"] + b"\r\n") * 2000 + b"--B--\r\n",
            {"Content-Type": "multipart/form-data; boundary=B"},
        ),
    }
