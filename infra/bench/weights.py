"""Random weights that decide, and what the arms of ``bench node`` are given of them.

``python -m infra.bench.weights FOLDER`` rewrites ``model.keras`` there (see ``infra.bench.material``) and adds
``frozen.pb``, the function that the rivals run, and ``samples``, pictures to calibrate eight bits with. A fresh
MobileNetV2 gives every image the same 1,000 equal scores, for the signal fades from layer to layer; neither a wrong
pixel nor a broken conversion would show. So each batch normalisation is set to hand on a mean square of 1, and of the
classifier's rows the first are set to the images' own features: image n is of class n, clearly, as with a trained
model, and it remains so when the picture changes a little. Nothing is trained and no speed changes.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.bench.pressure import images
from infra.bench.rivals.frozen import INPUT, OUTPUT, SIDE, Pixels, decode

# The logit of an image's own class; that of a class nobody has is about 0.
OWN = 8.0
# What is left of the classifier's other, random weights.
QUIET = 0.1
# Samples of each image: as many shades of brightness, around its own.
SHADES = 8

Features = NDArray[np.float32]


def decide(model: Any, pixels: Pixels) -> None:
    """Change a classifier's weights so that it tells these pixels apart."""
    network = next(layer for layer in model.layers if hasattr(layer, "layers"))
    features = _steadied(network, pixels.astype(np.float32) / 127.5 - 1)
    centred = features - features.mean(axis=0)
    classifier = network.layers[-1]
    kernel, bias = (np.array(each) * QUIET for each in classifier.get_weights())
    own = slice(len(pixels))
    kernel[:, own] = (OWN * centred / np.square(centred).sum(axis=1, keepdims=True)).T
    bias[own] = -features.mean(axis=0) @ kernel[:, own]
    classifier.set_weights([kernel, bias])


def _steadied(network: Any, pixels: Features) -> Features:
    """Set the batch normalisations, first to last, and return what the last layer is given."""
    values = {id(network.inputs[0]): pixels}
    for layer in network.layers[1:-1]:
        given = [values[id(each)] for each in layer.input] if isinstance(layer.input, list) else values[id(layer.input)]
        if hasattr(layer, "moving_variance"):
            shape = layer.moving_variance.shape
            layer.moving_mean.assign(np.zeros(shape))
            layer.moving_variance.assign(np.full(shape, np.square(np.asarray(given)).mean()))
        values[id(layer.output)] = layer(given)
    return np.asarray(values[id(network.layers[-1].input)])


def freeze(model: Any) -> bytes:
    """The model as a graph from uint8 pixels to scores, its variables constants, the batch free."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec([None, SIDE, SIDE, 3], tf.uint8)
    function = tf.function(lambda x: model(tf.cast(x, tf.float32), training=False))
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(spec))
    ends = [each.name for each in (*frozen.inputs, *frozen.outputs)]
    if ends != [INPUT, OUTPUT]:
        raise SystemExit(f"error: the frozen function's ends are {ends}, not {[INPUT, OUTPUT]}")
    return bytes(frozen.graph.as_graph_def().SerializeToString())


def write_samples(folder: Path, pixels: Pixels) -> None:
    """Write every picture, at the model's size, a little darker and a little brighter."""
    from PIL import Image, ImageEnhance

    folder.mkdir()
    for number, each in enumerate(pixels):
        for shade in range(SHADES):
            brightness = ImageEnhance.Brightness(Image.fromarray(each)).enhance(0.965 + 0.01 * shade)
            brightness.save(folder / f"{number}-{shade}.jpg", quality=90)


def main(folder: Path) -> None:
    """Rewrite the model in a folder, and add the rest."""
    import keras

    model = keras.models.load_model(folder / "model.keras", compile=False)
    pixels = np.stack([decode(path.read_bytes()) for path in images(folder)])
    decide(model, pixels)
    found = model(pixels.astype(np.float32)).numpy().argmax(axis=1).tolist()
    if found != list(range(len(pixels))):
        raise SystemExit(f"error: the images are of the classes {found}")
    model.save(folder / "model.keras")
    (folder / "frozen.pb").write_bytes(freeze(model))
    write_samples(folder / "samples", pixels)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
