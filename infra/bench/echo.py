"""A server that answers ``/classify`` with a fixed result and does nothing else: then the client is what is measured.

``python -m infra.bench.echo`` prints the port it listens on, on loopback.
"""

from aiohttp import web

ANSWER = {
    "model": "echo",
    "version": "1",
    "node": "echo",
    "results": [{"name": "", "predictions": [{"label": "7", "index": 7, "score": 1.0}]}],
}


async def classify(request: web.Request) -> web.Response:
    """Read the image and answer the same as always."""
    await request.read()
    return web.json_response(ANSWER)


async def application() -> web.Application:
    """The one route."""
    app = web.Application()
    app.router.add_post("/classify", classify)
    return app


if __name__ == "__main__":
    web.run_app(
        application(), host="127.0.0.1", port=0, access_log=None, print=lambda text: print(text.split()[3], flush=True)
    )
