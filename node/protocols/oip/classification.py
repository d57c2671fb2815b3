"""Triton's classification extension: of each row the best values, as text, in place of all of them.

An element is ``VALUE:INDEX`` or ``VALUE:INDEX:LABEL``; the value is written as shortly as its datatype lets it be read
back. Equal values stand in the model's own order, what is not a number last.
"""

from collections.abc import Sequence

import numpy as np

from node.tensors import Array


def best(values: Array, count: int, labels: Sequence[str] = ()) -> Array:
    """Return the ``count`` best (or all there are) of each row as BYTES (rows, count), best first."""
    flat = values.reshape(len(values), -1)
    worst_first = ~flat if flat.dtype.kind in "iu" else -flat  # negation would overflow
    order = worst_first.argsort(axis=1, kind="stable")[:, :count]
    found: Array = np.empty(order.shape, object)
    for row, indices in enumerate(order.tolist()):
        found[row] = [_text(flat[row, index], index, labels) for index in indices]
    return found


def _text(value: "np.generic", index: int, labels: Sequence[str]) -> bytes:
    text = f"{value!s}:{index}"
    return f"{text}:{labels[index]}".encode() if index < len(labels) else text.encode()
