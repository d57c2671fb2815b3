"""Bytes to pixels: one array of the model's height, width and channels for each image.

``Preprocessing`` is stored in the model folder, so that training and serving turn the same bytes into the same array.
Pixels stay uint8 where the model scales them itself, as models trained here do; ``scale``, ``mean`` and ``std`` are for
models from elsewhere that expect it done. Only the header is parsed before format and pixel count are checked: a bomb
costs what its header costs. Nothing is guessed: a truncated file is refused (``LOAD_TRUNCATED_IMAGES`` stays False).
The cap of 50 megapixels lets every phone's photo through and bounds one decode at about 200 MB.
"""

import io
from enum import StrEnum
from typing import Any

import msgspec

from node.errors import BadImage, MissingExtra, TooLarge
from node.tensors import Array

try:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image, ImageOps, UnidentifiedImageError
except ImportError as error:
    raise MissingExtra(str(error.name), "node") from error

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 50_000_000

Pixels = NDArray[np.uint8]
# What decoding holds of each pixel: Pillow stores three channels in four bytes.
_BYTES_A_PIXEL = 4


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
    """An image file whose header has been read and held to the limits; nothing is decoded yet."""

    __slots__ = ("_image",)

    def __init__(self, data: bytes | bytearray, *, max_pixels: int = MAX_PIXELS) -> None:
        """Parse the header. Raises ``TooLarge`` above ``max_pixels``, ``BadImage`` for what is none of ``FORMATS``."""
        self._image = _open(data, max_pixels)

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self._image.width * self._image.height

    def memory(self, wanted: Preprocessing) -> int:
        """Bytes that decoding will hold at once, about; a JPEG is decoded at a reduced size and needs less."""
        _reduce_early(self._image, wanted)
        return self.pixels * _BYTES_A_PIXEL

    def decode(self, wanted: Preprocessing) -> Array:
        """Return a new array of ``wanted.shape``; once only. Raises ``BadImage`` when the rest is damaged.

        Orientation from EXIF is applied; transparency is laid on white, as browsers do; of 16 bits the upper 8 count.
        """
        with self._image as image:
            try:
                picture = _fit(_flatten(_shrink(_load(image, wanted), wanted), wanted.colour), wanted)
            except MemoryError:
                raise
            except Exception as error:  # Pillow's readers raise whatever the bytes provoke
                raise BadImage(f"the {image.format} image is damaged: {_first_line(error)}") from error
            return wanted.arrange(
                np.asarray(picture, dtype=np.uint8).reshape(wanted.height, wanted.width, wanted.channels)
            )


def decode(data: bytes | bytearray, wanted: Preprocessing, *, max_pixels: int = MAX_PIXELS) -> Array:
    """Parse and decode one image file in one go; raises what ``Picture`` raises."""
    return Picture(data, max_pixels=max_pixels).decode(wanted)


def encode_png(pixels: Pixels) -> bytes:
    """Return ``pixels`` (height, width, 1 or 3 channels) as a PNG file, which ``decode`` gives back unchanged."""
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(out, "PNG", optimize=True)
    return out.getvalue()


def _open(data: bytes | bytearray, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
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


def _load(image: Image.Image, wanted: Preprocessing) -> Image.Image:
    """Decode, in a JPEG's own fast reduced size where that is still large enough, and turn upright."""
    _reduce_early(image, wanted)
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _reduce_early(image: Image.Image, wanted: Preprocessing) -> None:
    """Choose the size a JPEG is decoded at; asking twice changes nothing."""
    # Upright and on its side the picture must cover the model's rectangle, so both sides ask for the longer one.
    side = max(wanted.height, wanted.width)
    image.draft(wanted.colour.value, (side, side))


def _shrink(image: Image.Image, wanted: Preprocessing) -> Image.Image:
    """Average whole blocks down to twice the size in need: far quicker than a filter, and hardly to be told from it.

    It also comes before any change of mode, so that the largest picture allowed is never held several times over.
    """
    factor = min(image.width // (2 * wanted.width), image.height // (2 * wanted.height))
    return image.reduce(factor) if factor > 1 and image.mode in ("L", "LA", "RGB", "RGBA", "CMYK") else image


def _flatten(image: Image.Image, colour: Colour) -> Image.Image:
    """Bring any of Pillow's modes to L or RGB."""
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion clips at 255 instead of scaling
        deep = np.asarray(image).clip(0, 65535)
        image = Image.fromarray((deep >> 8).astype(np.uint8))
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("LA", "La", "PA", "RGBa", "RGBA"):
        upper = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(upper, mask=upper.getchannel("A"))
    return image if image.mode == colour.value else image.convert(colour.value)


def _fit(image: Image.Image, wanted: Preprocessing) -> Image.Image:
    size = (wanted.width, wanted.height)
    if image.size == size:
        return image
    resample = Image.Resampling[wanted.resample.name]
    if wanted.fit is Fit.CROP_CENTRE:
        return ImageOps.fit(image, size, method=resample)
    return image.resize(size, resample)


def _first_line(error: Any) -> str:
    text = str(error).splitlines()
    return text[0][:200] if text else type(error).__name__
