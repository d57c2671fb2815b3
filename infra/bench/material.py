"""What the benchmarks run on, made on the spot and seeded: a MobileNetV2 with random weights, and photo-sized JPEGs.

``python -m infra.bench.material FOLDER`` writes ``model.keras`` and ``0.jpg`` …; a process of its own, because
TensorFlow belongs neither in the load generator nor in the numbers.
"""

import sys
from pathlib import Path

SIZE = (1600, 1200)  # a phone's picture after a messenger has made it smaller
COUNT = 8


def make_images(folder: Path) -> None:
    """Write ``COUNT`` JPEGs of about 300 kB: blurred colour noise with grain, so that decoding has real work to do."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(COUNT):
        coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC), dtype=np.int16)
        grain = rng.normal(0, 7, smooth.shape).astype(np.int16)
        picture = Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
        picture.save(folder / f"{number}.jpg", quality=75)


def make_model(path: Path) -> None:
    """Write MobileNetV2 (224 x 224, 1,000 classes) with random weights and the scaling inside."""
    import keras

    keras.utils.set_random_seed(0)
    pixels = keras.Input((224, 224, 3))
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    keras.Model(pixels, keras.applications.MobileNetV2(weights=None)(scaled)).save(path)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    make_images(target)
    make_model(target / "model.keras")
