"""The embedded registry's application: all routes, and errors as one line of text, as Consul gives them."""

from aiohttp import web
from aiohttp.typedefs import Handler

from registry.embedded.agent_api import AgentApi
from registry.embedded.core import Core
from registry.embedded.definitions import BadRequest
from registry.embedded.kv import LARGEST_VALUE
from registry.embedded.kv_api import KvApi
from registry.embedded.read_api import ReadApi
from registry.errors import ConfigurationError

NAME = "Twostep's embedded registry, for a laptop and for tests (production wants Consul)"


def application(core: Core) -> web.Application:
    """Return the application over ``core``."""

    @web.middleware
    async def acknowledge(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Say that something is done when it is where it is to be kept."""
        _check_enterprise(request)
        reply = await handler(request)
        if request.method in {"PUT", "DELETE"}:
            try:
                await core.keep()
            except ConfigurationError as error:
                raise web.HTTPInternalServerError(text=f"the change is made but not kept: {error}") from error
        return reply

    app = web.Application(middlewares=[_plain_errors, acknowledge], client_max_size=2 * LARGEST_VALUE)
    app.add_routes([web.get("/", _root), *AgentApi(core).routes(), *ReadApi(core).routes(), *KvApi(core).routes()])
    return app


async def _root(request: web.Request) -> web.Response:  # noqa: ARG001 - a handler's signature
    return web.Response(text=f"{NAME}\n")


def _check_enterprise(request: web.Request) -> None:
    for name, what in (("ns", "Namespaces"), ("partition", "Partitions")):
        if request.query.get(name):
            raise BadRequest(f'Invalid query parameter: "{name}" - {what} are a Consul Enterprise feature')


@web.middleware
async def _plain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadRequest as error:
        return _error(400, str(error))
    except web.HTTPMethodNotAllowed as error:
        allowed = ",".join(sorted(error.allowed_methods))
        return _error(405, f"method {request.method} not allowed", {"Allow": allowed})
    except web.HTTPNotFound as error:
        if request.match_info.http_exception is None:
            return _error(404, error.text or "")
        return _error(404, f"{request.path} is not served here: this is {NAME}")
    except web.HTTPException as error:
        return _error(error.status, error.text or "")


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    """Answer with one line, whatever was quoted in it."""
    line = " ".join(text.split()).encode(errors="replace")
    return web.Response(status=status, body=line, headers=headers, content_type="text/plain", charset="utf-8")
