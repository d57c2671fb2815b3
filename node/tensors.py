"""Named arrays, and the words of the Open Inference Protocol for their element types.

A ``TensorSpec`` describes what a model takes or gives for *one* item: the batch dimension, always the first and always
free, is left out. ``bfloat16`` is missing because numpy has no such type.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from node.errors import MissingExtra

try:
    import numpy as np
    from numpy.typing import NDArray
except ImportError as error:
    raise MissingExtra(str(error.name), "node") from error

Array = NDArray[Any]
Tensors = Mapping[str, Array]

# https://github.com/kserve/open-inference-protocol, "Tensor Data Types"; BYTES are Python bytes in an object array.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
_WORDS = {dtype: word for word, dtype in DTYPES.items()}


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output: its name, its datatype as a word of ``DTYPES``, its shape without the batch dimension.

    None in the shape: any size goes.
    """

    name: str
    datatype: str
    shape: tuple[int | None, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Numpy's name of the datatype."""
        return DTYPES[self.datatype]

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of ``shape``, batch dimension left out, is one of these."""
        return len(shape) == len(self.shape) and all(
            mine is None or mine == given for mine, given in zip(self.shape, shape, strict=True)
        )


def datatype(dtype: Any) -> str | None:
    """Return the protocol's word for a numpy type (or the name of one), None where it has none."""
    try:
        return _WORDS.get(np.dtype(dtype))
    except TypeError:
        return None


def rows(tensors: Tensors) -> int:
    """How many items a batch holds."""
    return len(next(iter(tensors.values())))
