"""The fields at the head of a request, the same whichever way it is sent.

How long a body is, and how it is framed, is told here and by nobody else: a node and whatever stands before it must
not come to different opinions about where a request ends (RFC 9112, section 6.3).
"""

from collections.abc import Mapping
from functools import lru_cache

from multidict import CIMultiDict
from yarl import URL

from smartclient.transport import Request

BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # say nothing of a body where there is none


def fields(base: CIMultiDict[str], request: Request, headers: Mapping[str, str], size: int | None) -> CIMultiDict[str]:
    """Add to ``base`` what ``request`` says, then ``headers``. ``size``: bytes of the body, None when not known."""
    if request.headers:
        base.update(request.headers)
        base.popall("Transfer-Encoding", None)
    base.update(headers)
    if size != 0:
        base.setdefault("Content-Type", "application/octet-stream")
    if size or (size == 0 and request.method not in BODILESS):
        base["Content-Length"] = str(size)
    elif size == 0:
        base.popall("Content-Length", None)
    return base


@lru_cache(maxsize=1024)
def quoted(target: str) -> str:
    """``target`` as it stands in a request line, quoted as aiohttp quotes it."""
    return URL(f"http://node{target}").raw_path_qs
