"""What a picture becomes before a model sees it: stored in the model folder, done the same in training and in serving.

Pixels stay uint8 where the model scales them itself, as models trained here do; ``scale``, ``mean`` and ``std`` are for
models from elsewhere that expect it done.
"""

from enum import StrEnum

import msgspec

from node.errors import MissingExtra
from node.tensors import Array

try:
    import numpy as np
    from numpy.typing import NDArray
except ImportError as error:
    raise MissingExtra(str(error.name), "node") from error

Pixels = NDArray[np.uint8]


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
