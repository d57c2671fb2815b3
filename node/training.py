"""Making models a node can serve: the built-in digits, or a folder of your own pictures.

Both write the next version of a model folder, whole or not at all: model, labels, preprocessing and digest. Scaling is
part of the graph, so the model takes the uint8 pixels that ``images`` makes, in training as in serving. Seeds are
fixed: the same input gives the same split, and the same model up to the rounding of parallel sums. The digits are
scikit-learn's 1,797 scans of 8 x 8 (E. Alpaydin and C. Kaynak, UCI, 1998); a fifth of them, equally many of each, is
held out.
"""

import importlib.metadata
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.dataset import Example, Skipped, batches, readable, scan, split
from node.errors import MissingExtra, ModelError, TrainingError
from node.images import encode_png
from node.models import Manifest, publish
from node.preprocessing import Colour, Fit, Pixels, Preprocessing
from node.runtimes import applications
from node.runtimes.tensorflow import tensorflow

HELD_OUT = 0.2
SEED = 7
DIGITS = Preprocessing(height=8, width=8, colour=Colour.GREY)
DIGITS_EPOCHS = 20
DIGITS_BATCH = 128
_FILE = "model.keras"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training is: ``done`` of ``total`` steps of a stage, and a word on quality."""

    stage: str
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it: the version folder written, and how often the model was right on what it had not seen."""

    folder: Path
    name: str
    version: str
    labels: tuple[str, ...]
    accuracy: float
    trained_on: int
    held_out: int
    samples: Path | None = None
    skipped: list[Skipped] = field(default_factory=list)


Tell = Callable[[Progress], None]


def train_digits(out: Path, *, epochs: int = DIGITS_EPOCHS, tell: Tell = lambda _: None) -> Trained:
    """Train on the built-in digits, in seconds, and write the held-out ones as PNGs to ``out``/samples/LABEL/NNNN.png.

    Decoding such a PNG gives back the very pixels. Raises ``MissingExtra`` and ``TrainingError``.
    """
    pixels, digits, held_out = _digits()
    _, keras = tensorflow()
    _make(out)
    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(DIGITS.shape, dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.25),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    steps = -(-int((~held_out).sum()) // DIGITS_BATCH) * epochs
    watch = _watch(keras, tell, "training", steps)
    model.fit(
        pixels[~held_out], digits[~held_out], batch_size=DIGITS_BATCH, epochs=epochs, verbose=0, callbacks=[watch]
    )
    accuracy = float(model.evaluate(pixels[held_out], digits[held_out], verbose=0)[1])
    labels = tuple(str(digit) for digit in range(10))
    folder = _write(model, out, labels, DIGITS, accuracy)
    _write_samples(out / "samples", pixels, digits, held_out)
    return Trained(
        folder=folder,
        name=_name(out),
        version=folder.name,
        labels=labels,
        accuracy=accuracy,
        trained_on=int((~held_out).sum()),
        held_out=int(held_out.sum()),
        samples=out / "samples",
    )


def train_folder(
    folder: Path,
    out: Path,
    *,
    base: str = "MobileNetV2",
    weights: str = "imagenet",
    epochs: int = 5,
    fine_tune_epochs: int = 0,
    image_size: int = 224,
    batch: int = 32,
    seed: int = SEED,
    tell: Tell = lambda _: None,
) -> Trained:
    """Train on ``folder``, one sub-folder of pictures for each class, on top of a ``keras.applications`` backbone.

    ``weights``: ``imagenet`` (downloaded once by Keras), the path of a weights file, or ``none`` to train all layers
    from scratch. With weights only the new top is trained for ``epochs``, then all of it, gently, for
    ``fine_tune_epochs``. Pictures that cannot be read are skipped and reported. Raises ``TrainingError``.
    """
    wanted = Preprocessing(height=image_size, width=image_size, fit=Fit.CROP_CENTRE)
    labels, found = scan(folder)
    examples, skipped = readable(found, wanted, lambda done: tell(Progress("checking images", done, len(found))))
    train, held_out = split(examples, labels, HELD_OUT, random.Random(seed))
    _, keras = tensorflow()
    keras.utils.set_random_seed(seed)
    scratch = weights == "none"
    model, backbone = _transfer_model(keras, base, weights, image_size, len(labels))
    feed = _Feed(train, wanted, batch, seed)
    _make(out)

    backbone.trainable = scratch
    _fit(keras, model, feed, epochs=epochs, rate=1e-3, tell=tell, stage="training")
    if fine_tune_epochs and not scratch:
        backbone.trainable = True
        _fit(keras, model, feed, epochs=fine_tune_epochs, rate=1e-5, tell=tell, stage="fine-tuning")
    steps = -(-len(held_out) // batch)
    accuracy = float(model.evaluate(batches(held_out, wanted, batch), steps=steps, verbose=0)[1])
    written = _write(model, out, labels, wanted, accuracy)
    return Trained(
        folder=written,
        name=_name(out),
        version=written.name,
        labels=labels,
        accuracy=accuracy,
        trained_on=len(train),
        held_out=len(held_out),
        skipped=skipped,
    )


@dataclass(slots=True)
class _Feed:
    """Training pictures for ever, in a fresh order each time through."""

    examples: list[Example]
    wanted: Preprocessing
    size: int
    seed: int

    @property
    def steps(self) -> int:
        return -(-len(self.examples) // self.size)

    def __iter__(self) -> Iterator[tuple[Pixels, NDArray[np.int64]]]:
        rng = random.Random(self.seed)
        while True:
            yield from batches(self.examples, self.wanted, self.size, rng)


def _digits() -> tuple[Pixels, NDArray[np.int64], NDArray[np.bool_]]:
    """Return pixels (1797, 8, 8, 1), digits, and which ones are held out."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("scikit-learn", "demo") from error
    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]  # 17 shades of ink to 256
    digits = data.target.astype(np.int64)
    held_out = np.zeros(len(digits), np.bool_)
    rng = np.random.default_rng(SEED)
    for digit in range(10):
        own = np.flatnonzero(digits == digit)
        held_out[rng.choice(own, round(len(own) * HELD_OUT), replace=False)] = True
    return pixels, digits, held_out


def _transfer_model(keras: Any, base: str, weights: str, size: int, classes: int) -> tuple[Any, Any]:
    try:
        module, build = applications.find(keras, base)
    except ModelError as error:
        raise TrainingError(str(error)) from error
    known = weights if weights == "imagenet" else None
    try:
        with applications.quiet_download():
            backbone = build(include_top=False, weights=known, input_shape=(size, size, 3), pooling="avg")
        if weights not in ("imagenet", "none"):
            backbone.load_weights(weights)
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "fetch failure" in text:
            raise TrainingError(
                f"the imagenet weights of {base} cannot be downloaded ({text}); "
                "give a weights file with --weights FILE, or train from scratch with --weights none"
            ) from error
        raise TrainingError(f"{base} at {size} pixels with weights {weights} cannot be made: {text}") from error
    inputs = keras.Input((size, size, 3), dtype="uint8")
    # Normalisation of a pretrained backbone keeps its statistics; a new one has to learn them.
    training = {} if weights == "none" else {"training": False}
    features = backbone(module.preprocess_input(keras.ops.cast(inputs, "float32")), **training)
    scores = keras.layers.Dense(classes, activation="softmax")(keras.layers.Dropout(0.2)(features))
    return keras.Model(inputs, scores), backbone


def _fit(keras: Any, model: Any, feed: _Feed, *, epochs: int, rate: float, tell: Tell, stage: str) -> None:
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    watch = _watch(keras, tell, stage, feed.steps * epochs)
    source = iter(feed)
    try:
        model.fit(source, steps_per_epoch=feed.steps, epochs=epochs, shuffle=False, verbose=0, callbacks=[watch])
    finally:
        source.close()  # type: ignore[attr-defined] # a generator; its threads end here


def _watch(keras: Any, tell: Tell, stage: str, total: int) -> Any:
    done = 0

    def step(_: int, logs: dict[str, float] | None) -> None:
        nonlocal done
        done += 1
        tell(Progress(stage, done, total, f"accuracy {(logs or {}).get('accuracy', 0.0):.3f}"))

    return keras.callbacks.LambdaCallback(on_train_batch_end=step)


def _write(model: Any, out: Path, labels: tuple[str, ...], wanted: Preprocessing, accuracy: float) -> Path:
    tf, keras = tensorflow()
    with _staging(out) as staging:
        keras.saving.save_model(model, staging / _FILE, include_optimizer=False)  # a third of the size
        manifest = Manifest(
            format="keras",
            file=_FILE,
            name=_name(out),
            version="",
            labels=labels,
            preprocessing=wanted,
            sha256="",
            accuracy=round(accuracy, 4),
            created_with=f"twostep {importlib.metadata.version('twostep')}, tensorflow {tf.__version__}, "
            f"keras {keras.__version__}",
        )
        return publish(staging, out, manifest)


def _make(out: Path) -> None:
    """Make the model folder before the work starts, not after: a long training must not fail at its last step."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise TrainingError(f"cannot write to {out}: {error.strerror or error}") from error


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Give a hidden folder beside the versions; what is still in it at the end is thrown away."""
    staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=out))
    staging.chmod(0o755)  # mkdtemp's 0700 would keep a node under another user out
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_samples(folder: Path, pixels: Pixels, digits: NDArray[np.int64], held_out: NDArray[np.bool_]) -> None:
    """Write the held-out digits as PNGs; each appears whole, and those that are there already stay."""
    for number in np.flatnonzero(held_out).tolist():
        file = folder / str(digits[number]) / f"{number:04}.png"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".partial")
            partial.write_bytes(encode_png(pixels[number]))
            partial.replace(file)


def _name(out: Path) -> str:
    return out.absolute().name or "model"
