"""What people start with, as a process: load a Keras model, then ``predict`` one image after another.

``python -m infra.bench.baseline MODEL.keras IMAGE...`` loads once, prints ``ready``, and then, for every line on
standard input that holds a number, classifies so many images and prints the seconds it took. A script that reloads the
model for every image is this process started once per image.
"""

import itertools
import sys
import time

if __name__ == "__main__":
    import keras
    import numpy as np
    from PIL import Image

    model = keras.models.load_model(sys.argv[1], compile=False)
    height, width = model.input_shape[1:3]
    images = itertools.cycle(sys.argv[2:])

    def classify(path: str) -> int:
        """Decode, resize and predict one image; the index of its class."""
        pixels = np.asarray(Image.open(path).convert("RGB").resize((width, height)), dtype=np.float32)
        return int(np.argmax(model.predict(pixels[None], verbose=0)[0]))

    classify(next(images))
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        for path in itertools.islice(images, int(line)):
            classify(path)
        print(time.perf_counter() - began, flush=True)
