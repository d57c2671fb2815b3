"""Bytes to pixels: one array of the model's height, width and channels for each image.

Pillow reads the files; what is done here is bounding what that costs. Only the header is read before format and pixel
count are checked, and how much memory the decoder will hold is known before it begins. Nothing is guessed: a truncated
file is refused (``LOAD_TRUNCATED_IMAGES`` stays False). The cap of 50 megapixels lets every phone's photo through. A
large picture is held once, as it is decoded: it is flattened tile by tile and averaged down before anything else.
"""

import io
from typing import IO, Any, cast

from node.errors import BadImage, MissingExtra, TooLarge
from node.preprocessing import Colour, Fit, Pixels, Preprocessing
from node.tensors import Array

try:
    import numpy as np
    from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError
except ImportError as error:
    raise MissingExtra(str(error.name), "node") from error

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 50_000_000
# What a PNG's texts may unpack to, all of them; Pillow's own bound is 64 MiB.
PngImagePlugin.MAX_TEXT_MEMORY = 4 * 1024 * 1024

# Bytes that decoding holds of each pixel, at its peak (measured with 49 megapixels): Pillow keeps three channels in
# four bytes, and libwebp's decoder of animations, which reads stills as well, keeps canvases of its own.
_HELD = {"1": 1, "L": 1, "I;16": 2}
_HELD_WEBP = 16
_COPIES_WEBP = 3  # of the whole file
# How often a library may read from a file, header and pixels: so many times, and once for so many bytes. A file made of
# tiny pieces costs hundreds of times its size in memory, and seconds; those that programs write take far less.
_READS = 2_000
_BYTES_A_READ = 256
# EXIF fits into one segment of a JPEG. Pillow joins any number of them, each time copying what it has.
_EXIF = b"Exif\0\0"
_MOST_EXIF = 64 * 1024
_MOST_EXIFS = 16
# Of each row a pointer, and of each column a few lines in work: little but for strange shapes.
_ROW, _COLUMN = 8, 16
# A picture of several scans is held whole as coefficients of two bytes, whatever size is asked for, and each scan goes
# over all of them: a real progressive one has about ten.
_COEFFICIENT = 2
_SCAN = b"\xff\xda"
_SCAN_HEADER = 32
_MOST_SCANS = 100
Box = tuple[float, float, float, float]
# Whole blocks of pixels are averaged down to this many times the size wanted, then a filter does the rest.
_FINER = 2
# One averaging takes at most so many rows or columns together: Pillow's fixed point is exact enough up to there.
_MOST_AT_ONCE = 128
# What a filter looks at beyond the edge of what it is asked for: three pixels of the result, and some.
_MARGIN = 16
# Side of the tiles in which a picture is flattened.
_TILE = 512
# How EXIF says a picture is turned, and how it is turned back.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _File:
    """The bytes of a file as Pillow reads one: without a copy of them all, and not in too small pieces."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = memoryview(data)
        self._at = 0
        self._left = _READS + len(data) // _BYTES_A_READ

    def read(self, size: int = -1) -> bytes:
        """See ``io.RawIOBase``."""
        self._left -= 1
        if self._left < 0:
            raise ValueError("it is made of too many pieces")
        begin = self._at
        self._at = len(self._data) if size < 0 else max(begin, min(begin + size, len(self._data)))
        return bytes(self._data[begin : self._at])

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See ``io.RawIOBase``."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """See ``io.RawIOBase``."""
        return self._at

    def close(self) -> None:
        """See ``io.RawIOBase``."""
        self._data = memoryview(b"")


class Picture:
    """An image file whose header has been read and held to the limits; nothing is decoded yet."""

    __slots__ = ("_bytes", "_height", "_image", "_scans", "_width")

    def __init__(self, data: bytes | bytearray, *, max_pixels: int = MAX_PIXELS) -> None:
        """Read the header. Raises ``TooLarge`` above ``max_pixels``, ``BadImage`` for what is none of ``FORMATS``."""
        self._image = image = _opened(data, max_pixels)
        self._bytes = len(data)
        self._width, self._height = image.size
        self._scans = _scans(data, image) if image.format == "JPEG" else 1
        if self._scans > _MOST_SCANS:
            raise BadImage(f"the JPEG image has more than {_MOST_SCANS} scans; send it with fewer")

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self._width * self._height

    def memory(self, wanted: Preprocessing) -> int:
        """Bytes that decoding will hold at its peak, the file's metadata included; less where a JPEG shrinks."""
        image = self._image
        _reduce_early(image, wanted)
        width, height = image.size
        held, copies = (_HELD_WEBP, _COPIES_WEBP) if image.format == "WEBP" else (_HELD.get(image.mode, 4), 1)
        coefficients = self.pixels * _sampled(image) * _COEFFICIENT if self._scans > 1 else 0
        return copies * self._bytes + round(coefficients) + width * height * held + height * _ROW + width * _COLUMN

    def decode(self, wanted: Preprocessing) -> Array:
        """Return a new array of ``wanted.shape``; once only. Raises ``BadImage`` when the pixels are damaged.

        Orientation from EXIF is applied; transparency is laid on white, as browsers do; of 16 bits the upper 8 count.
        """
        image, kind, damage = self._image, self._image.format, ""
        del self._image  # what keeps this, an error that came through here for one, keeps no pixels
        try:
            picture = _rendered(image, wanted)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - Pillow's readers raise whatever the bytes provoke
            damage = _first_line(error)
        finally:
            del image
        if damage:  # raised out here, or the error's traceback would keep them as well
            raise BadImage(f"the {kind} image is damaged: {damage}")
        return wanted.arrange(np.asarray(picture, dtype=np.uint8).reshape(wanted.height, wanted.width, wanted.channels))


def decode(data: bytes | bytearray, wanted: Preprocessing, *, max_pixels: int = MAX_PIXELS) -> Array:
    """Read and decode one image file in one go; raises what ``Picture`` raises."""
    return Picture(data, max_pixels=max_pixels).decode(wanted)


def encode_png(pixels: Pixels) -> bytes:
    """Return ``pixels`` (height, width, 1 or 3 channels) as a PNG file, which ``decode`` gives back unchanged."""
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(out, "PNG", optimize=True)
    return out.getvalue()


def _opened(data: bytes | bytearray, max_pixels: int) -> Image.Image:
    if _pairs(data, _EXIF[:2]) > _MOST_EXIFS and data.count(_EXIF) > _MOST_EXIFS:
        raise BadImage(f"the image has its EXIF more than {_MOST_EXIFS} times; send it once")
    try:
        image = Image.open(cast("IO[bytes]", _File(data)), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"the image has more than {max_pixels:,} pixels") from error
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise BadImage(f"the bytes are no image this node reads ({known})") from error
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise BadImage(f"the image's header is damaged: {_first_line(error)}") from error
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise TooLarge(f"the image is {width} x {height}; this node decodes at most {max_pixels:,} pixels")
    return image


def _scans(data: bytes | bytearray, image: Any) -> int:
    """How many scans a JPEG may have: one, as most do, where its first holds every channel in full."""
    # Pillow has read up to the first scan, its header included.
    begin = data.rfind(_SCAN, max(0, image.fp.tell() - _SCAN_HEADER), image.fp.tell())
    whole = 0 <= begin < len(data) - 4 and data[begin + 4] == image.layers
    if whole and "progressive" not in image.info:
        return 1
    # A camera's preview inside the metadata has scans of its own.
    return _pairs(memoryview(data)[len(image.info.get("exif", b"")) :], _SCAN)


def _pairs(data: bytes | bytearray | memoryview, pair: bytes) -> int:
    """How often two unlike bytes follow each other; ``bytes.count`` takes ten times as long."""
    wanted, size = np.frombuffer(pair, np.uint16)[0], len(data)
    at_even = np.frombuffer(data, np.uint16, size // 2)
    at_odd = np.frombuffer(data, np.uint16, (size - 1) // 2, 1) if size > 2 else at_even[:0]
    return int(np.count_nonzero(at_even == wanted) + np.count_nonzero(at_odd == wanted))


def _orientation(image: Image.Image) -> int:
    """Which way up EXIF says the picture is; upright where it says nothing, or nonsense.

    Only what has been read so far is looked at: Pillow's own ``getexif`` would decode a PNG to find it.
    """
    written = image.info.get("exif", b"")
    if not 0 < len(written) <= _MOST_EXIF:
        return 1
    exif = Image.Exif()
    try:
        exif.load(written)
        found = exif.get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - Pillow's reader raises whatever the bytes provoke
        return 1
    return found if found in _TURNS else 1


def _stored(wanted: Preprocessing, orientation: int) -> tuple[int, int]:
    """Width and height wanted, as the file has them: the other way round while it lies on its side."""
    return (wanted.height, wanted.width) if orientation > 4 else (wanted.width, wanted.height)


def _reduce_early(image: Image.Image, wanted: Preprocessing) -> None:
    """Choose the size a JPEG is decoded at, quick and still large enough; asking twice changes nothing."""
    image.draft(wanted.colour.value, _stored(wanted, _orientation(image)))


def _sampled(image: Any) -> float:
    """Coefficients a JPEG has for each pixel: 3 where no channel is coarser than the others, 1.5 as cameras write."""
    factors: list[tuple[int, int]] = [(across, down) for _, across, down, _ in image.layer]
    finest = max(across for across, _ in factors) * max(down for _, down in factors)
    return sum(across * down for across, down in factors) / finest


def _rendered(image: Image.Image, wanted: Preprocessing) -> Image.Image:
    """Decode and bring to the size and colours wanted, upright. Raises whatever Pillow does."""
    _reduce_early(image, wanted)
    image.load()
    orientation = _orientation(image)  # a PNG may say so behind its pixels
    size = _stored(wanted, orientation)
    box = _window(image.size, size, wanted.fit)
    blocks = (0, 0)
    while blocks != (1, 1):
        blocks = _blocks(box, size)
        part, box = _around(image.size, box, blocks)
        image = _flat(image, part, blocks, wanted.colour)
    if image.size != size:  # of the same size, the box is all of it
        image = image.resize(size, Image.Resampling[wanted.resample.name], box)
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _blocks(box: Box, size: tuple[int, int]) -> tuple[int, int]:
    """How many columns and rows of pixels to average to one, so that what is in the box is still a bit too fine."""
    across, down = (box[2] - box[0]) // (_FINER * size[0]), (box[3] - box[1]) // (_FINER * size[1])
    return max(1, min(_MOST_AT_ONCE, int(across))), max(1, min(_MOST_AT_ONCE, int(down)))


def _around(whole: tuple[int, int], box: Box, blocks: tuple[int, int]) -> tuple[tuple[int, int, int, int], Box]:
    """The pixels a filter needs for what is in the box, and where the box will be among their blocks."""
    across, down = blocks
    left, top = max(0, int(box[0]) - _MARGIN * across), max(0, int(box[1]) - _MARGIN * down)
    right = min(whole[0], int(box[2]) + 1 + _MARGIN * across)
    bottom = min(whole[1], int(box[3]) + 1 + _MARGIN * down)
    box = (box[0] - left) / across, (box[1] - top) / down, (box[2] - left) / across, (box[3] - top) / down
    return (left, top, right, bottom), box


def _window(whole: tuple[int, int], size: tuple[int, int], fit: Fit) -> Box:
    """The part of a picture that is shown: all of it, or its centre in the proportion of ``size``."""
    width, height = whole
    if fit is Fit.STRETCH:
        return 0, 0, width, height
    across, down = min(width, height * size[0] / size[1]), min(height, width * size[1] / size[0])
    left, top = (width - across) / 2, (height - down) / 2
    return left, top, left + across, top + down


def _flat(image: Image.Image, box: tuple[int, int, int, int], blocks: tuple[int, int], colour: Colour) -> Image.Image:
    """Return a part of a picture in L or RGB, each block of pixels averaged to one."""
    left, top, right, bottom = box
    across, down = blocks
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        if blocks != (1, 1):
            part = image.reduce(blocks, box)
        else:
            part = image if box == (0, 0, *image.size) else image.crop(box)
        return part if part.mode == colour.value else part.convert(colour.value)
    flat = Image.new(colour.value, (-(-(right - left) // across), -(-(bottom - top) // down)))
    # Tiles start where blocks start.
    wide, high = across * max(1, _TILE // across), down * max(1, _TILE // down)
    for y in range(top, bottom, high):
        for x in range(left, right, wide):
            tile = _flatten(image.crop((x, y, min(x + wide, right), min(y + high, bottom))), colour)
            flat.paste(tile if blocks == (1, 1) else tile.reduce(blocks), ((x - left) // across, (y - top) // down))
    return flat


def _flatten(image: Image.Image, colour: Colour) -> Image.Image:
    """Bring any of Pillow's modes to L or RGB."""
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion clips at 255 instead of scaling
        deep = np.asarray(image).clip(0, 65535)
        grey = (deep >> 8).astype(np.uint8)
        if "transparency" in image.info:
            grey[deep == image.info["transparency"]] = 255
        image = Image.fromarray(grey)
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("LA", "La", "PA", "RGBa", "RGBA"):
        upper = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(upper, mask=upper.getchannel("A"))
    return image if image.mode == colour.value else image.convert(colour.value)


def _first_line(error: Any) -> str:
    text = str(error).splitlines()
    return text[0][:200] if text else type(error).__name__
