"""Bytes to pixels: one array of the model's height, width and channels for each image.

``Preprocessing`` is stored in the model folder, so that training and serving turn the same bytes into the same array.
Pixels stay uint8 where the model scales them itself, as models trained here do; ``scale``, ``mean`` and ``std`` are for
models from elsewhere that expect it done. A file is taken apart first (``imagefiles``): format, pixel count and what
decoding will hold are known before a decoder sees it, and the decoder sees no metadata. Nothing is guessed: a truncated
file is refused (``LOAD_TRUNCATED_IMAGES`` stays False). The cap of 50 megapixels lets every phone's photo through. A
large picture is held once, as it is decoded: it is flattened tile by tile and averaged down before anything else.
"""

import io
from enum import StrEnum
from typing import Any

import msgspec

from node.errors import BadImage, MissingExtra, TooLarge
from node.imagefiles.base import Data, File, opened
from node.imagefiles.walk import walk
from node.tensors import Array

try:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image, UnidentifiedImageError
except ImportError as error:
    raise MissingExtra(str(error.name), "node") from error

MAX_PIXELS = 50_000_000

Pixels = NDArray[np.uint8]
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


class Colour(StrEnum):
    """One channel of luminance, or three of red, green and blue."""

    GREY = "L"
    RGB = "RGB"


class Fit(StrEnum):
    """How a picture meets the model's rectangle: stretched to it, or its centre cut out in the right proportion."""

    STRETCH = "stretch"
    CROP_CENTRE = "crop-centre"


class Layout(StrEnum):
    """The order of a picture's dimensions: channels last, as TensorFlow has it, or first, as PyTorch."""

    NHWC = "nhwc"
    NCHW = "nchw"


class Resample(StrEnum):
    """The filter for resizing, by Pillow's names."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True):
    """What a picture becomes before the model sees it; sizes are in pixels.

    A pixel of value x (0 to 255) in channel c becomes ``(x * scale - mean[c]) / std[c]``; empty: no mean, no division.
    PyTorch's usual normalisation is ``scale`` 1/255 with its means and deviations.
    """

    height: int
    width: int
    colour: Colour = Colour.RGB
    fit: Fit = Fit.STRETCH
    resample: Resample = Resample.BILINEAR
    layout: Layout = Layout.NHWC
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for what makes no sense; msgspec says where in the file it stands."""
        if self.height < 1 or self.width < 1:
            raise ValueError(f"{self.height} x {self.width} is no size")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and len(values) != self.channels:
                raise ValueError(f"{name} has {len(values)} values for {self.channels} channels")
        if 0 in self.std:
            raise ValueError("std holds a zero")

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 1 if self.colour is Colour.GREY else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the array, in its layout: (height, width, channels) or (channels, height, width)."""
        if self.layout is Layout.NCHW:
            return self.channels, self.height, self.width
        return self.height, self.width, self.channels

    def arrange(self, pixels: Pixels) -> Array:
        """Return uint8 ``pixels`` (height, width, channels) as the model wants them: scaled float32, or untouched."""
        array: Array = pixels
        if self.scale != 1.0 or self.mean or self.std:
            array = pixels.astype(np.float32)
            array *= np.float32(self.scale)
            if self.mean:
                array -= np.asarray(self.mean, np.float32)
            if self.std:
                array /= np.asarray(self.std, np.float32)
        return np.ascontiguousarray(array.transpose(2, 0, 1)) if self.layout is Layout.NCHW else array


class Picture:
    """An image file taken apart and held to the limits; nothing is decoded yet."""

    __slots__ = ("_file",)

    def __init__(self, data: Data, *, max_pixels: int = MAX_PIXELS) -> None:
        """Raises ``TooLarge`` above ``max_pixels``, ``BadImage`` for what is no image, or has no sound header."""
        file = self._file = walk(data)
        if self.pixels > max_pixels:
            size = f"{file.width} x {file.height}"
            raise TooLarge(f"the image is {size}; this node decodes at most {max_pixels:,} pixels")

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self._file.width * self._file.height

    def memory(self, wanted: Preprocessing) -> int:
        """Bytes that decoding will hold at once; a JPEG is decoded at a reduced size and needs less."""
        return self._file.memory(_scale(self._file, _stored(self._file, wanted)))

    def decode(self, wanted: Preprocessing) -> Array:
        """Return a new array of ``wanted.shape``. Raises ``BadImage`` when the pixels are damaged.

        Orientation from EXIF is applied; transparency is laid on white, as browsers do; of 16 bits the upper 8 count.
        """
        damage = ""
        try:
            picture = _decoded(self._file, wanted)
        except MemoryError:
            raise
        except UnidentifiedImageError:
            damage = "its header makes no sense"
        except Exception as error:  # noqa: BLE001 - Pillow's readers raise whatever the bytes provoke
            damage = _first_line(error)
        if damage:  # raised out here, or the error's traceback would keep all pixels of a large picture
            raise BadImage(f"the {self._file.format} image is damaged: {damage}")
        return wanted.arrange(np.asarray(picture, dtype=np.uint8).reshape(wanted.height, wanted.width, wanted.channels))


def decode(data: Data, wanted: Preprocessing, *, max_pixels: int = MAX_PIXELS) -> Array:
    """Take one image file apart and decode it in one go; raises what ``Picture`` raises."""
    return Picture(data, max_pixels=max_pixels).decode(wanted)


def encode_png(pixels: Pixels) -> bytes:
    """Return ``pixels`` (height, width, 1 or 3 channels) as a PNG file, which ``decode`` gives back unchanged."""
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(out, "PNG", optimize=True)
    return out.getvalue()


def _stored(file: File, wanted: Preprocessing) -> tuple[int, int]:
    """Width and height wanted, as the file has them: the other way round while it lies on its side."""
    return (wanted.height, wanted.width) if file.sideways else (wanted.width, wanted.height)


def _scale(file: File, size: tuple[int, int]) -> int:
    """The part of a JPEG's size at which it is still as large as ``size``: decoded so, it takes a fraction of the time.

    The rule is that of Pillow's ``draft``.
    """
    room = min(file.width // size[0], file.height // size[1]) if file.scalable else 1
    return next((scale for scale in (8, 4, 2) if room >= scale), 1)


def _decoded(file: File, wanted: Preprocessing) -> Image.Image:
    """Decode and bring to the size and colours wanted, upright. Raises whatever Pillow does."""
    size = _stored(file, wanted)
    image: Image.Image = Image.open(opened(file.parts), formats=(file.format,))
    if image.size != (file.width, file.height):
        raise ValueError("it states two sizes")
    if file.scalable:
        image.draft(wanted.colour.value, size)
    image.load()
    box = _window(image.size, size, wanted.fit)
    blocks = (0, 0)
    while blocks != (1, 1):
        blocks = _blocks(box, size)
        part, box = _around(image.size, box, blocks)
        image = _flat(image, part, blocks, wanted.colour)
    if image.size != size:  # of the same size, the box is all of it
        image = image.resize(size, Image.Resampling[wanted.resample.name], box)
    return image.transpose(_TURNS[file.orientation]) if file.orientation in _TURNS else image


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
