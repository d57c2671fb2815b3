"""Models of ``keras.applications`` by name: ``keras:MobileNetV2?weights=imagenet``.

Reads such a reference and builds the model with the application's own preprocessing inside the graph, so that it takes
uint8 pixels like every model trained here. Options: ``weights`` (``imagenet``, which Keras downloads once; ``none``; a
weights file), ``classes`` and ``size`` (of a side, in pixels), both the application's own where they are not given.
Without weights the same reference always gives the same random ones: nodes of one fleet answer alike. TensorFlow is
not imported here; whoever has it hands Keras in.
"""

import contextlib
import difflib
import json
import logging
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
import numpy as np

from node.errors import ModelError
from node.runtimes.reasons import summary

log = logging.getLogger(__name__)

SCHEME = "keras:"
_EXAMPLE = "keras:MobileNetV2?weights=imagenet"
_SEED = 7
_IMAGENET = 1000  # classes of the weights that Keras offers


class Application(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a reference asks for; None: what the application itself has."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    weights: str = "imagenet"
    classes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    size: Annotated[int, msgspec.Meta(ge=1)] | None = None


def parse(reference: str) -> Application:
    """Read ``keras:NAME?weights=imagenet|none|FILE&classes=N&size=N``. Raises ``ModelError``."""
    name, _, query = reference.removeprefix(SCHEME).partition("?")
    try:
        options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
        return msgspec.convert({**options, "name": name}, Application, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise ModelError(
            f"{reference} cannot be read: {error}; write it like {_EXAMPLE}&classes=10&size=224"
        ) from error


def find(keras: Any, name: str) -> tuple[Any, Callable[..., Any]]:
    """Return the module of an application, which has its ``preprocess_input``, and the function that builds it.

    Raises ``ModelError`` with the names that are close.
    """
    known = {each: build for each, build in vars(keras.applications).items() if each[0].isupper() and callable(build)}
    if name not in known:
        by_lower = {each.lower(): each for each in known}
        close = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
        names = ", ".join(by_lower[each] for each in close) or "MobileNetV2, EfficientNetB0, ResNet50"
        raise ModelError(f"there is no {name} in keras.applications; perhaps one of {names}")
    return sys.modules[known[name].__module__], known[name]


def build(keras: Any, wanted: Application) -> Any:
    """Return a Keras model from ``image``, uint8 pixels, to ``predictions``, a row of scores. Raises ``ModelError``."""
    module, make = find(keras, wanted.name)
    options: dict[str, Any] = {"weights": wanted.weights if wanted.weights == "imagenet" else None}
    if wanted.classes is not None:
        options["classes"] = wanted.classes
    if wanted.size is not None:
        options["input_shape"] = (wanted.size, wanted.size, 3)
    try:
        with quiet_download(), _same_random_weights():
            model = make(**options)
        if wanted.weights not in ("imagenet", "none"):
            model.load_weights(wanted.weights)
    except Exception as error:
        if "fetch failure" in str(error):
            raise ModelError(
                f"the imagenet weights of {wanted.name} cannot be downloaded ({summary(error)}); "
                "give a file of them (weights=FILE), or none to try without"
            ) from error
        raise ModelError(f"{wanted.name} with weights {wanted.weights} cannot be made: {summary(error)}") from error
    if wanted.weights == "imagenet":
        _fetch_labels(module)
    image = keras.Input(model.input_shape[1:], dtype="uint8", name="image")
    pixels = module.preprocess_input(keras.ops.cast(image, "float32"))
    return keras.Model(image, {"predictions": model(pixels)})


def labels(reference: str, count: int) -> tuple[str, ...]:
    """Return ImageNet's class names if the weights are ImageNet's and Keras has the names on disk; else nothing."""
    if parse(reference).weights != "imagenet" or count != _IMAGENET:
        return ()
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        index: dict[str, list[str]] = json.loads((home / "models" / "imagenet_class_index.json").read_bytes())
        return tuple(index[str(number)][1] for number in range(count))
    except (OSError, ValueError, LookupError, TypeError):
        return ()


@contextlib.contextmanager
def quiet_download() -> Iterator[None]:
    """Send what Keras tells of its downloads to standard error; standard output is for our own results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _fetch_labels(module: Any) -> None:
    """Let Keras download the class names to where ``labels`` looks for them."""
    try:
        with quiet_download():
            module.decode_predictions(np.zeros((1, _IMAGENET), np.float32), top=1)
    except Exception as error:  # noqa: BLE001 - whatever a download runs into; numbers will do
        log.warning(
            "ImageNet's class names cannot be downloaded (%s); labels are numbers, or give --labels FILE",
            summary(error),
        )


@contextlib.contextmanager
def _same_random_weights() -> Iterator[None]:
    """Keras draws the seed of every initializer from the global generator; it is put back as it was."""
    before = random.getstate()
    random.seed(_SEED)
    try:
        yield
    finally:
        random.setstate(before)
