"""Which page is at an address: one table, for what a browser asks for and for what its stream follows."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from registry.dashboard.page import NoSuchPage, Page
from registry.dashboard.pages.about import About
from registry.dashboard.pages.calls import CallsPage
from registry.dashboard.pages.confirm import Confirm
from registry.dashboard.pages.events import Events
from registry.dashboard.pages.instance import InstancePage
from registry.dashboard.pages.instances import Instances
from registry.dashboard.pages.lookup import Lookup
from registry.dashboard.pages.order import OrderPage
from registry.dashboard.pages.overview import Overview
from registry.dashboard.pages.service import ServicePage

Make = Callable[[Mapping[str, str], Any], Page]

_PAGES: tuple[tuple[str, Make], ...] = (
    ("/", Overview),
    ("/services/{service}", ServicePage),
    ("/instances", Instances),
    ("/instances/{service}/{id}", InstancePage),
    ("/calls", CallsPage),
    ("/events", Events),
    ("/lookup", Lookup),
    ("/confirm", Confirm),
    ("/orders/{id}", OrderPage),
    ("/about", About),
)
_ROUTES = [(re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)), make) for path, make in _PAGES]


def page_of(path: str, query: Any) -> Page:
    """Return the page at a path, percent-encoded as it came, with a query. Raises ``NoSuchPage`` and ``BadAddress``."""
    for pattern, make in _ROUTES:
        if found := pattern.fullmatch(path.rstrip("/") or "/"):
            return make({name: unquote(value) for name, value in found.groupdict().items()}, query)
    raise NoSuchPage(f"there is nothing at {unquote(path)[:100]}; the pages are in the navigation above")
