"""Signatures the requests are read for."""

import pytest

from node.runtimes.base import Signature
from node.tensors import TensorSpec


def _specs(described):
    return tuple(TensorSpec(name=name, datatype=datatype, shape=shape) for name, datatype, shape in described)


@pytest.fixture
def signature():
    """Make a signature of ``(name, datatype, shape)`` for each input and output."""

    def make(*inputs, outputs=(("y", "FP32", ()),)):
        return Signature(inputs=_specs(inputs), outputs=_specs(outputs))

    return make


@pytest.fixture
def numbers(signature):
    """One number in."""
    return signature(("x", "FP32", ()))


@pytest.fixture
def sensors(signature):
    """The three inputs of TensorFlow Serving's documentation."""
    return signature(("tag", "BYTES", ()), ("signal", "INT32", (5,)), ("sensor", "INT64", (2, 2)))


@pytest.fixture
def picture(signature):
    """A picture in, as uint8."""
    return signature(("image", "UINT8", (2, 2, 3)), outputs=(("scores", "FP32", (10,)),))
