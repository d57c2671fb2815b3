"""The embedded registry's application: all routes, and errors as one line of text, as Consul gives them."""

from aiohttp import web
from aiohttp.typedefs import Handler

from registry.embedded.agent_api import AgentApi
from registry.embedded.core import Core
from registry.embedded.definitions import BadRequest
from registry.embedded.kv import LARGEST_VALUE
from registry.embedded.kv_api import KvApi
from registry.embedded.read_api import ReadApi

NAME = "Twostep's embedded registry, for a laptop and for tests (production wants Consul)"


def application(core: Core) -> web.Application:
    """Return the application over ``core``."""
    app = web.Application(middlewares=[_plain_errors], client_max_size=2 * LARGEST_VALUE)
    app.add_routes([web.get("/", _root), *AgentApi(core).routes(), *ReadApi(core).routes(), *KvApi(core).routes()])
    return app


async def _root(request: web.Request) -> web.Response:  # noqa: ARG001 - a handler's signature
    return web.Response(text=f"{NAME}\n")


@web.middleware
async def _plain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadRequest as error:
        return web.Response(status=400, text=str(error))
    except web.HTTPMethodNotAllowed as error:
        allowed = ",".join(sorted(error.allowed_methods))
        return web.Response(status=405, text=f"method {request.method} not allowed", headers={"Allow": allowed})
    except web.HTTPNotFound as error:
        if request.match_info.http_exception is None:
            return web.Response(status=404, text=error.text)
        return web.Response(status=404, text=f"{request.path} is not served here: this is {NAME}\n")
    except web.HTTPException as error:
        return web.Response(status=error.status, text=error.text)
