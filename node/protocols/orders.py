"""The body of a request that steers a node: a few bytes of JSON, or none.

It has bounds of its own, not those of requests for work: a node that is full can still be steered.
"""

from typing import TypeVar

import msgspec
from aiohttp import web

from node.admission import Admission
from node.body import Body
from node.errors import BadRequest

T = TypeVar("T")

# Bytes of a body, and seconds for it to come in.
MOST = 64 * 1024
TIME = 10.0


async def read(request: web.Request, form: type[T]) -> T:
    """Read one as ``form``; no body at all is an empty object. Raises ``RequestError``."""
    body = Body(request, Admission(limit=0.0), most=MOST, seconds=TIME)
    body.announce()
    data = await body.whole()
    try:
        return msgspec.json.decode(data or b"{}", type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body cannot be read: {str(error).splitlines()[0]}") from error
