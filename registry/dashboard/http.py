"""The dashboard over HTTP: pages, their JSON twins and files, streams, reports, and what a browser needs of us.

No handler lets a traceback out: what goes wrong is a page, or JSON, with one sentence.
"""

import hashlib
import logging
import mimetypes
from urllib.parse import parse_qsl, urlsplit

from aiohttp import hdrs, web
from multidict import MultiDict
from yarl import URL

from registry.dashboard import reply, wire
from registry.dashboard.access import Access, Refused
from registry.dashboard.acting import THEME, Acting, Handler, only_post
from registry.dashboard.live import Drawn, Live, LivePage
from registry.dashboard.page import BadAddress, NoSuchPage, Page
from registry.dashboard.pages import events, instances, problem
from registry.dashboard.render import Renderer, static
from registry.dashboard.routing import page_of
from registry.dashboard.shell import parts, shell
from registry.dashboard.state import State
from registry.dashboard.streams import Reports, Streams
from registry.timing import Clock
from registry.wording import printable

log = logging.getLogger(__name__)

_STATIC = ("app.css", "app.js", "stream.js", "morph.js", "keys.js", "select.js", "shapes.svg", "icon.svg")
# What an operator's browser may send to us.
_MOST_BODY = 1024 * 1024


class Surface:
    """Handlers over a ``State``. ``epoch`` tells this process from the one before."""

    def __init__(self, state: State, access: Access, *, clock: Clock, epoch: str, proxied: bool = False) -> None:
        self.renderer = Renderer()
        self.live = Live(self.renderer, state.world, state.stamp, clock=clock, epoch=epoch, frame=parts)
        self._state = state
        self._acting = Acting(state, access, self.renderer, proxied=proxied)
        self.streams = Streams(self.live, _page_at, state.world, clock=clock)
        self._reports = Reports(state.calls, access)
        self._files = {name: _file(name) for name in _STATIC}

    def application(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._guard], client_max_size=_MOST_BODY)
        app.add_routes(
            [
                web.get("/healthz", self.healthy),
                web.get("/static/{name}", self.static),
                web.get("/stream", self.streams.stream, allow_head=False),
                *only_post(wire.PATH, self._reports.take),
                web.get("/instances.csv", self.instances_csv),
                web.get("/events.csv", self.events_csv),
                web.get("/api/v1/{rest:(?s:.*)}", self.twin),
                *self._acting.routes(),
                web.get("/{rest:(?s:.*)}", self.page),  # a name may hold a line break
            ]
        )
        app.on_response_prepare.append(_headers)  # streams too, which the middleware sees when they have ended
        app.on_shutdown.append(self._stop)
        return app

    async def healthy(self, _: web.Request) -> web.Response:
        """Whether this process answers."""
        return web.Response(text="ok\n")

    async def static(self, request: web.Request) -> web.Response:
        """A style sheet, a script, a drawing."""
        name = request.match_info["name"]
        if name not in self._files:
            raise NoSuchPage(f"there is no file {name}")
        content, kind, tag = self._files[name]
        headers = {hdrs.ETAG: tag, hdrs.CACHE_CONTROL: "no-cache", hdrs.CONTENT_TYPE: kind}
        if any(f'"{each.value}"' == tag for each in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        response = web.Response(body=content, headers=headers)
        response.enable_compression()
        return response

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Any page."""
        live = self.live.page(page_of(request.rel_url.raw_path, request.query))
        drawn = self.live.draw(live)
        return reply.html(self._whole(request, live, drawn))

    async def twin(self, request: web.Request) -> web.StreamResponse:
        """What a page says, as JSON."""
        path = request.rel_url.raw_path.removeprefix("/api/v1")
        live = self.live.page(page_of("/" if path == "/overview" else path, request.query))
        return reply.json(self.live.draw(live).view)

    async def instances_csv(self, request: web.Request) -> web.StreamResponse:
        """The instances of a filter, all of them."""
        return reply.download(instances.as_csv(request.query, self._state.world()), "instances.csv")

    async def events_csv(self, request: web.Request) -> web.StreamResponse:
        """The events of a filter, all that are kept."""
        return reply.download(events.as_csv(request.query, self._state.world()), "events.csv")

    def _whole(self, request: web.Request, live: LivePage, drawn: Drawn) -> str:
        world = self._state.world()
        page = live.page
        around = shell(
            world,
            name=page.name,
            here=page.here,
            version=live.version,
            theme=request.cookies.get(THEME, "auto"),
            session=self._acting.session(request),
            live=True,
        )
        return self.renderer.page(
            page.template,
            shell=around,
            title=page.title,
            view=drawn.view,
            parts={**drawn.parts, **self._framed()},  # how old the data are is said anew each time
            page=page,
            now=world.now,
        )

    def _framed(self) -> dict[str, object]:
        return {name: self.renderer.part(part) for name, part in parts(self._state.world()).items()}

    async def _stop(self, _: web.Application) -> None:
        self.streams.stop()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        status, sentence, headers = 500, "", {}
        try:
            return await handler(request)
        except Refused as error:
            status, sentence = error.status, error.sentence
        except BadAddress as error:
            status, sentence = 400, str(error)
        except NoSuchPage as error:
            status, sentence = 404, str(error)
        except web.HTTPMethodNotAllowed as error:
            status, sentence = 405, "this address takes another method: use the pages' own buttons"
            headers = {hdrs.ALLOW: error.headers.get(hdrs.ALLOW, "POST")}
        except web.HTTPException as error:
            status, sentence = error.status, error.reason
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            log.exception("%s %s failed", printable(request.method), printable(request.path))
            sentence = "the dashboard failed at this; its log says why"
        response = self._problem(request, status, sentence)
        response.headers.update(headers)
        return response

    def _problem(self, request: web.Request, status: int, sentence: str) -> web.Response:
        if reply.wants_json(request) or request.path == "/stream":
            return reply.json({"error": sentence, "status": status}, status)
        around = shell(
            self._state.world(),
            name="",
            here="/",
            version="",
            theme=request.cookies.get(THEME, "auto"),
            session=self._acting.session(request),
            live=False,
        )
        variables = problem.variables(status, sentence, _came_from(request))
        return reply.html(self.renderer.alone("problem.html", around, **variables), status)


def _came_from(request: web.Request) -> str:
    """The page of ours that somebody came from."""
    try:
        came = URL(request.headers.get(hdrs.REFERER, ""))
    except ValueError:
        return "/"
    return came.raw_path_qs if came.authority == request.host else "/"


def _page_at(address: str) -> Page:
    try:
        split = urlsplit(address)
        path = URL(split.path or "/", encoded=True).raw_path
    except ValueError as error:
        raise BadAddress("no page is at this address: take one of the navigation") from error
    return page_of(path, MultiDict(parse_qsl(split.query)))


async def _headers(_: web.Request, response: web.StreamResponse) -> None:
    reply.guard(response)


def _file(name: str) -> tuple[bytes, str, str]:
    content = static(name)
    kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0] or "application/octet-stream"
    return content, f"{kind}; charset=utf-8", f'"{hashlib.sha256(content).hexdigest()[:16]}"'
