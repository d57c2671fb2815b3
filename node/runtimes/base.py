"""The seam between a node and whatever runs its model.

A runtime takes a batch of uint8 images and returns one row of scores for each; everything the model wants besides
(scaling, casting) is its own affair. Each is loaded once and called from one thread.
"""

from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from node.images import Pixels

Scores = NDArray[np.float32]


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What the model takes: pixels (None where any size goes), channels, and the element type it was made for."""

    height: int | None
    width: int | None
    channels: int
    dtype: str


class Runtime(Protocol):
    """A loaded model."""

    @property
    def name(self) -> str:
        """The engine, in a word: ``tensorflow``."""
        ...

    @property
    def signature(self) -> Signature:
        """What the model takes."""
        ...

    def run(self, batch: Pixels) -> Scores:
        """Return one row of scores for each image of ``batch`` (n, height, width, channels), any n; it may block."""
        ...

    def close(self) -> None:
        """Give the model's memory back."""
        ...

    def snapshot(self) -> dict[str, object]:
        """Engine, signature and whatever helps to explain its speed."""
        ...
