"""A page drawn whole, as a browser gets it, and looked at: for the tests of calls, events, look-up and about."""

import re
from html.parser import HTMLParser

from multidict import MultiDict

from registry.dashboard.calls import Calls
from registry.dashboard.journal import Journal
from registry.dashboard.model import Fleet, Registry, Service
from registry.dashboard.render import Renderer
from registry.dashboard.shell import parts, shell
from registry.dashboard.world import World
from registry.testing import ManualClock

HOSTILE = "<script>alert('\"x\"')</script>\u202egnp.exe\x00\n" + "A" * 1_000_000
RENDERER = Renderer()
_VOID = {"input", "br", "meta", "link", "img", "use"}


def world(clock=None, *, services=(), live=True, journal=None, calls=None, unfollowed=0, can_act=False, about=None):
    """A world of these services; what the pages here do not look at is not there."""
    clock = clock or ManualClock()
    registry = Registry(source="consul://127.0.0.1:8500", live=live, heard_at=clock.time())
    named: dict[str, Service] = {each.name: each for each in sorted(services, key=lambda each: each.name)}
    return World(
        now=clock.time(),
        fleet=Fleet(registry=registry, services=named, unfollowed=unfollowed, version=1),
        loads=None,
        calls=calls or Calls(clock),
        journal=journal or Journal(),
        series=None,
        drains=None,
        cluster="lab",
        floor=1,
        about=about or {},
        can_act=can_act,
    )


def ask(page, address=""):
    """A page made from the query of an address, such as ``service=digits&page=2``."""
    pairs = [each.partition("=")[::2] for each in address.split("&") if each]
    return page({}, MultiDict(pairs))


def draw(page, seen, session=None):
    """Return the page's view and its HTML; each part is one element with its id, and is on the page."""
    view = page.view(seen)
    made = {name: RENDERER.part(part) for name, part in page.parts(view, seen).items()}
    for name, html in made.items():
        assert roots(html) == [name]
        assert page.parts(page.view(seen), seen)[name].key == page.parts(view, seen)[name].key
    assert set(page.order(view)) <= set(made)
    around = shell(seen, name=page.name, here=page.here, version="v", theme="auto", session=session, live=True)
    framed = {name: RENDERER.part(part) for name, part in parts(seen).items()}
    html = RENDERER.page(
        page.template, shell=around, title=page.title, view=view, parts={**framed, **made}, page=page, now=seen.now
    )
    for each in made.values():
        assert each in html
    return view, html


def roots(html):
    """Ids of the elements that stand side by side at the top."""
    found, depth = [], 0

    class Look(HTMLParser):
        def handle_starttag(self, tag, attributes):
            nonlocal depth
            if depth == 0:
                found.append(dict(attributes).get("id"))
            depth += tag not in _VOID

        def handle_endtag(self, tag):
            nonlocal depth
            depth -= tag not in _VOID

    Look().feed(html)
    assert depth == 0
    return found


def words(html):
    """What a person reads of it, blanks as one."""
    main = html[html.index("<main") : html.index("</main>")] if "<main" in html else html
    texts = []

    class Read(HTMLParser):
        def handle_data(self, data):
            texts.append(data)

    Read().feed(main)
    return re.sub(r"\s+", " ", "".join(texts)).strip()


def links(html):
    """Addresses that the page's own part links to."""
    found = []

    class Read(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag == "a":
                found.append(dict(attributes)["href"])

    Read().feed(html[html.index("<main") : html.index("</main>")])
    return found


def harmless(html):
    """Whether hostile text has come out as text, cut to a length."""
    scripts = re.findall(r"<script[^>]*>", html)
    assert scripts == ['<script type="module" src="/static/app.js">']
    assert "alert('" not in html
    assert "\u202e" not in html
    assert "\x00" not in html
    assert "A" * 1000 not in html
    assert " style=" not in html
    assert not re.search(r"<[^>]*\son\w+=", html)
    return "&lt;script&gt;" in html
