"""A dashboard on loopback over a fleet that the test sets, time moved by hand, and a browser that looks at it."""

import asyncio
import html.parser
import json
import zlib
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
import yarl

from registry.consul.settings import consul_settings
from registry.dashboard.model import Fleet, Registry
from registry.dashboard.service import Dashboard
from registry.testing import ManualClock
from registry.token import Token, Tokens

# No secrets of anything; distinctive, so that a leak of one would be found.
OPERATOR, ADMIN, REPORTS, CONSUL = ("operator-t0ken-71", "admin-t0ken-72", "reports-t0ken-73", "consul-t0ken-74")
TOKENS = (OPERATOR, ADMIN, REPORTS, CONSUL)
FORM = "application/x-www-form-urlencoded"


class Answer(NamedTuple):
    status: int
    headers: dict
    text: str

    @property
    def json(self):
        return json.loads(self.text)


class House:
    """``shown``: a ``Dashboard`` whose registry says what ``show`` was told; its own source is not at work."""

    def __init__(self, folder, *, tokens=True, clock=None, **options):
        self.clock = clock or ManualClock()
        if tokens:
            for name, token in (("operators", OPERATOR), ("reports", REPORTS)):
                file = folder / name
                file.write_text(token + "\n")
                options.setdefault(name, Tokens(file))
            options.setdefault("admin_token", Token(ADMIN))
        settings = consul_settings("consul://127.0.0.1:1", {"CONSUL_HTTP_TOKEN": CONSUL})
        self.shown = Dashboard(settings, port=0, clock=self.clock, **options)
        self.state = self.shown.state
        self.state.run = asyncio.Event().wait
        self.cookie = self.csrf = ""

    def show(self, *services, live=True, heard=True, error=""):
        """Set what the registry has said."""
        registry = Registry(
            source="consul://127.0.0.1:8500",
            live=live,
            leader="10.0.0.1:8300",
            heard_at=None if not heard else self.clock.time() if heard is True else heard,
            error=error,
        )
        named = {each.name: each for each in sorted(services, key=lambda each: each.name)}
        version = self.state.source.fleet.version + 1
        self.state.source._fleet = Fleet(registry=registry, services=named, version=version)

    def report(self, *nodes, service="digits", client="ada", **more):
        """Take what a client says of ``nodes``: fields of ``NodeReport``."""
        said = {"client": client, "service": service, "period": 5.0, "nodes": list(nodes), **more}
        self.state.calls.take(msgspec.json.encode(said), "10.0.0.9")

    @asynccontextmanager
    async def open(self):
        async with self.shown, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as self.session:
            self.url = self.shown.url
            yield self

    async def ask(self, method, path, *, headers=None, **more):
        mine = {"Cookie": f"twostep_session={self.cookie}"} if self.cookie else {}
        url = yarl.URL(self.url + path, encoded=True)
        async with self.session.request(
            method, url, headers={**mine, **(headers or {})}, allow_redirects=False, **more
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.text())

    async def get(self, path, **headers):
        return await self.ask("GET", path, headers=headers)

    async def post(self, path, form=(), *, origin=True, headers=None, **more):
        """Send a form as a page of the dashboard does; ``origin``: another one, or None for none."""
        said = {"Origin": self.url if origin is True else origin} if origin else {}
        said |= {"Content-Type": FORM, **(headers or {})}
        body = more.pop("data", None) or urlencode(form)
        return await self.ask("POST", path, data=body, headers=said, **more)

    async def sign_in(self, name="ada"):
        answer = await self.post("/sign-in", {"token": OPERATOR, "name": name})
        assert answer.status == 303, answer
        self.cookie = answer.headers["Set-Cookie"].partition("=")[2].partition(";")[0]
        self.csrf = self.state_csrf()
        return self.cookie

    def state_csrf(self):
        return self.shown._surface._acting._access.session(self.cookie).csrf

    @asynccontextmanager
    async def follow(self, at, version="", *, packed=False):
        async with self.follow_raw(f"/stream?at={quote(at, safe='')}&v={version}", packed=packed) as follower:
            yield follower

    @asynccontextmanager
    async def follow_raw(self, path, *, packed=False):
        """The same with the address of a stream as a page gives it."""
        headers = {"Accept-Encoding": "gzip" if packed else "identity"}
        url = yarl.URL(self.url + path, encoded=True)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.get(url, headers=headers) as answer,
        ):
            yield Follower(answer, packed)


class Follower:
    """One stream as a browser reads it."""

    def __init__(self, answer, packed):
        self.answer, self.status, self.headers = answer, answer.status, answer.headers
        self._unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if packed else None
        self._text = b""
        self.raw = b""

    async def next(self, seconds=5.0):
        """The next message; None at the end."""
        async with asyncio.timeout(seconds):
            while b"\n\n" not in self._text:
                piece = await self.answer.content.readany()
                if not piece:
                    assert not self._text
                    return None
                self._text += self._unpack.decompress(piece) if self._unpack else piece
        line, _, self._text = self._text.partition(b"\n\n")
        self.raw += line
        assert line.startswith(b"data: ")
        return json.loads(line[6:])

    async def parts(self, seconds=5.0):
        """The next message that says something of the page."""
        while (message := await self.next(seconds)) is not None:
            if "v" in message:
                return message
        return None

    async def rest(self, seconds=0.15):
        """What has come by now."""
        found = []
        try:
            while True:
                found.append(await self.next(seconds))
                if found[-1] is None:
                    return found
        except TimeoutError:
            return found


async def until(condition, what="it", seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


class Elements(html.parser.HTMLParser):
    """Every element with its attributes, and every text, of a page."""

    def __init__(self, text):
        super().__init__()
        self.kinds, self.texts, self.attributes = set(), [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.kinds.add((tag, ""))
        for name, value in attributes:
            self.kinds.add((tag, name))
            self.attributes.append((tag, name, value or ""))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_data(self, data):
        self.texts.append(data)
