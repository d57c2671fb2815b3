"""What changes something: signing in and out, the theme, drain and undrain.

Each is a POST from a page of this very dashboard; ``access`` decides who may, ``guard`` what may be done, ``drains``
does it.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from aiohttp import hdrs, web

from registry.dashboard import reply
from registry.dashboard.access import COOKIE, Access, Facts, Refused, Session, check_origin, cookie
from registry.dashboard.orders import Verb
from registry.dashboard.pages import confirm, signin
from registry.dashboard.render import Renderer
from registry.dashboard.shell import THEMES, shell
from registry.dashboard.state import State

THEME = "theme"
_YEAR = 365 * 24 * 3600
_MOST_FORM = 1024 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Acting:
    """The handlers of every POST by a person. ``proxied``: the scheme is the one that ``X-Forwarded-Proto`` says."""

    def __init__(self, state: State, access: Access, renderer: Renderer, *, proxied: bool = False) -> None:
        self._state = state
        self._access = access
        self._renderer = renderer
        self._proxied = proxied

    def routes(self) -> list[web.RouteDef]:
        """See ``aiohttp.web``. What is asked with another method than POST is 405."""
        return [
            web.get("/sign-in", self.ask),
            web.post("/sign-in", self.sign_in),
            *only_post("/sign-out", self.sign_out),
            *only_post("/theme", self.theme),
            *only_post("/actions/drain", self._order("drain")),
            *only_post("/actions/undrain", self._order("undrain")),
        ]

    def session(self, request: web.Request) -> Session | None:
        """Who is looking."""
        return self._access.session(request.cookies.get(COOKIE))

    async def ask(self, request: web.Request) -> web.Response:
        """The form to sign in with."""
        return self._form(request, request.query.get("back", "/"))

    async def sign_in(self, request: web.Request) -> web.Response:
        """Begin a session and go back."""
        form = await _form(request)
        back = form.get("back", "/")
        try:
            self._access.check_sign_in(self._facts(request, form))
            session = self._access.sign_in(form.get("token", ""), form.get("name", ""))
        except Refused as error:
            return self._form(request, back, error.sentence, error.status, form.get("name", ""))
        if session is None:
            sentence = "this is no operator token of this dashboard"
            return self._form(request, back, sentence, 401, form.get("name", ""))
        response = reply.see(back)
        response.headers.add(hdrs.SET_COOKIE, cookie(session.cookie, self._scheme(request) == "https"))
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        """End the session."""
        form = await _form(request)
        self._access.check_action(self._facts(request, form))
        self._access.sign_out(request.cookies.get(COOKIE))
        response = reply.see("/")
        response.headers.add(hdrs.SET_COOKIE, cookie("", self._scheme(request) == "https"))
        return response

    async def theme(self, request: web.Request) -> web.Response:
        """Remember how pages are to look in this browser."""
        form = await _form(request)
        check_origin(self._facts(request, form))
        name = form.get("theme", "")
        response = reply.see(form.get("back", "/"))
        response.set_cookie(THEME, name if name in THEMES else "auto", max_age=_YEAR, samesite="Strict", httponly=True)
        return response

    def _order(self, kind: Verb) -> Handler:
        async def order(request: web.Request) -> web.Response:
            form = await _form(request)
            session = self._access.check_action(self._facts(request, form))
            asked = confirm.Confirm({}, form)
            chosen = confirm.decide(asked, self._state.world(), kind=kind, form=form)
            if chosen.refused:
                again = [(key, value) for key, value in form.items() if key != "csrf"]
                return reply.see(f"/confirm?{urlencode([*again, ('refused', chosen.refused)])}")
            begun = self._state.drains.start(kind, chosen.service, chosen.ids, reason=asked.reason, who=session.name)
            return reply.see(f"/orders/{begun.id}")

        return order

    def _form(
        self, request: web.Request, back: str, refused: str = "", status: int = 200, who: str = ""
    ) -> web.Response:
        world = self._state.world()
        around = shell(
            world,
            name="",
            here="/",
            version="",
            theme=request.cookies.get(THEME, "auto"),
            session=self.session(request),
            live=False,
        )
        variables = signin.variables(reply.local(back), refused, can_act=not self._access.read_only, who=who)
        return reply.html(self._renderer.alone("signin.html", around, **variables), status)

    def _facts(self, request: web.Request, form: Any) -> Facts:
        return Facts(
            method=request.method,
            scheme=self._scheme(request),
            host=request.headers.get(hdrs.HOST),
            origin=request.headers.get(hdrs.ORIGIN),
            cookie=request.cookies.get(COOKIE),
            csrf=form.get("csrf"),
        )

    def _scheme(self, request: web.Request) -> str:
        told = request.headers.get(hdrs.X_FORWARDED_PROTO, "") if self._proxied else ""
        return told if told in {"http", "https"} else request.scheme


def only_post(path: str, handler: Handler) -> list[web.RouteDef]:
    """Routes of what takes POST only: the pages' own route would answer GET with 404."""
    return [web.post(path, handler), web.route("*", path, _not_this_way)]


async def _not_this_way(request: web.Request) -> web.StreamResponse:
    raise web.HTTPMethodNotAllowed(request.method, ["POST"])


async def _form(request: web.Request) -> Any:
    """The fields of a form. Raises ``Refused``."""
    # A page sends UTF-8; another encoding could smuggle in text that can be written nowhere.
    if request.content_type != "application/x-www-form-urlencoded" or (request.charset or "utf-8").lower() != "utf-8":
        raise Refused(415, "this takes a form, in UTF-8")
    if (request.content_length or 0) > _MOST_FORM:
        raise Refused(413, "this form is too large; choose fewer instances")
    try:
        return await request.post()
    except ValueError as error:
        raise Refused(400, "this form cannot be read") from error
