"""A tensor's elements as bytes, to numpy and back: the protocol's extension for binary data.

Elements lie row by row, little-endian, without gaps; one of BYTES has its length before it (uint32). Every length is
held against the bytes that are really there before anything is made of it. Numbers are not copied: an array is a
view of the body it came in, unless they lie across the borders that a processor likes.
"""

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from node.errors import BadRequest
from node.tensors import DTYPES, Array

_LENGTH = 4


def read(data: memoryview, datatype: str, shape: Sequence[int]) -> Array:
    """Return the array of ``shape`` whose elements are all of ``data``. Raises ``BadRequest``."""
    count, dtype = prod(shape), DTYPES[datatype]
    if datatype == "BYTES":
        array: Array = np.empty(_counted(data, shape), object)
        array[:] = list(_split(data, shape))
        return array.reshape(shape)
    if len(data) != count * dtype.itemsize:
        raise BadRequest(
            f"{len(data)} bytes of binary data, a tensor of shape {list(shape)} and {datatype} takes "
            f"{count * dtype.itemsize}"
        )
    if datatype == "BOOL" and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise BadRequest("a BOOL of the binary data is neither 0 nor 1")
    native = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False)
    return np.require(native, requirements="A").reshape(shape)


def write(array: Array) -> list[bytes | memoryview]:
    """Return pieces that make up the elements when joined; those of numbers are the array's own memory."""
    if array.dtype.kind == "O":
        return [piece for each in array.reshape(-1) for piece in (len(each).to_bytes(_LENGTH, "little"), each)]
    return [np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data]


def _counted(data: memoryview, shape: Sequence[int]) -> int:
    count = prod(shape)
    if len(data) < count * _LENGTH:
        raise BadRequest(f"{len(data)} bytes of binary data cannot hold {count} elements of BYTES, shape {list(shape)}")
    return count


def _split(data: memoryview, shape: Sequence[int]) -> Iterator[bytes]:
    at = 0
    for _ in range(prod(shape)):
        begin = at + _LENGTH
        at = begin + int.from_bytes(data[at:begin], "little")
        if begin > len(data) or at > len(data):
            raise BadRequest(f"{len(data)} bytes of binary data end in the middle of an element of BYTES")
        yield bytes(data[begin:at])
    if at != len(data):
        raise BadRequest(f"{len(data) - at} bytes of binary data after {prod(shape)} elements of BYTES")
