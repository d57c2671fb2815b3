"""The server most teams start with: a form comes in, Pillow decodes it whole, ``model.predict`` says what it is.

One request at a time, because the work is done where the request is handled. ``python -m infra.bench.rivals.naive
MODEL.keras PORT``.
"""

import io
import sys

from aiohttp import web

MOST = 64 * 1024 * 1024


def application(path: str) -> web.Application:
    """Load the model; one route."""
    import keras
    import numpy as np
    from PIL import Image

    model = keras.models.load_model(path, compile=False)
    height, width = model.input_shape[1:3]

    async def classify(request: web.Request) -> web.Response:
        form = await request.post()
        upload = form["request"]
        if not isinstance(upload, web.FileField):
            raise web.HTTPBadRequest(text="the form holds no file")
        image = Image.open(io.BytesIO(upload.file.read())).convert("RGB").resize((width, height))
        scores = model.predict(np.asarray(image, dtype=np.float32)[None], verbose=0)[0]
        best = int(np.argmax(scores))
        return web.json_response({"index": best, "score": float(scores[best])})

    app = web.Application(client_max_size=MOST)
    app.router.add_post("/classify", classify)
    return app


if __name__ == "__main__":
    web.run_app(application(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), access_log=None, print=None)
