"""What a page is: an address, what it says as data, and the live parts it is drawn of.

``view`` is a pure function of the world and is the page's JSON twin as it stands. ``parts`` says how it is drawn: each
part is one element with its id, made again only when its key has changed; so a key holds what is seen and not the time
of day (``macros.moment`` counts on in the browser). Rows of a table are parts of their own, named ``row:…``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import msgspec

from registry.dashboard.render import Part
from registry.dashboard.world import World
from registry.errors import RegistryError


class NoSuchPage(RegistryError):
    """There is nothing at this address; the message says what to look at instead."""


class BadAddress(RegistryError):
    """The address cannot be read as it stands."""


class Page(Protocol):
    """One page at one address; made from the address alone, and read only."""

    template: ClassVar[str]
    name: ClassVar[str]
    """The entry of the navigation it belongs to: ``overview``, ``instances``, ``calls``, ``events``, ``lookup``."""

    @property
    def here(self) -> str:
        """Its address in one canonical form, path and query."""
        ...

    @property
    def title(self) -> str:
        """What it is called."""
        ...

    def view(self, world: World) -> msgspec.Struct:
        """What it says. Raises ``NoSuchPage``."""
        ...

    def parts(self, view: Any, world: World) -> Mapping[str, Part]:
        """How its live parts are drawn, by element id."""
        ...

    def order(self, view: Any) -> Sequence[str]:
        """Ids of the rows of its table, in order; empty where there is no table that lives."""
        ...
