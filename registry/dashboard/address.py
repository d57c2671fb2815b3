"""Reading what an address asks for, and writing addresses: what several pages need, and nothing that a page decides.

What comes in is anybody's: values are cut to a length, and text that no address can carry is replaced. Links are made
as markup, for a printed string is cut to what fits in a line and half an address leads nowhere.
"""

import hashlib
from collections.abc import Collection, Iterable
from typing import TypeVar
from urllib.parse import urlencode

from markupsafe import Markup
from multidict import MultiMapping

from registry.dashboard.page import BadAddress

Query = MultiMapping[str]
Pairs = Iterable[tuple[str, object]]
_Item = TypeVar("_Item")

# Characters of one value; an instance's id may be as long.
MOST = 256
# Row ids longer than this would be cut when they are printed.
_LONGEST_ROW = 200


def text(query: Query, name: str) -> str:
    """Return the first value of a parameter without blanks round it; empty when it is not given."""
    return query.get(name, "").strip()[:MOST].encode(errors="replace").decode()


def whole(query: Query, name: str, otherwise: int) -> int:
    """Return a parameter that is a whole number above 0, else ``otherwise``."""
    value = text(query, name)
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 15 and int(value) else otherwise


def words(query: Query, name: str, known: Collection[str]) -> tuple[str, ...]:
    """Return what of ``known`` is asked for, in their order. Raises ``BadAddress`` over any other word."""
    given = {value.strip() for value in query.getall(name, [])} - {""}
    if given - set(known):
        raise BadAddress(f"There is no such {name}; take one of: {', '.join(known)}.")
    return tuple(each for each in known if each in given)


def address(path: str, pairs: Pairs) -> str:
    """Return a path with parameters; what is empty is left out."""
    query = urlencode([(name, str(value)) for name, value in pairs if value], errors="replace")
    return f"{path}?{query}" if query else path


def link(path: str, pairs: Pairs = ()) -> Markup:
    """Return ``address`` as it stands in an attribute."""
    return Markup.escape(address(path, pairs))


def row(*names: str) -> str:
    """Return the id of a table's row about ``names``: readable, or a digest when it could not be printed as it is."""
    found = "/".join(names)
    if len(found) > _LONGEST_ROW or not found.isprintable():
        found = hashlib.sha256("\0".join(names).encode(errors="replace")).hexdigest()[:32]
    return f"row:{found}"


def cut(found: tuple[_Item, ...], page: int, most: int) -> tuple[tuple[_Item, ...], int, int]:
    """Return one page of ``found``, which page that is (the last one when there are fewer), and of how many."""
    pages = max(1, -(-len(found) // most))
    page = min(page, pages)
    return found[(page - 1) * most : page * most], page, pages
