"""The way through aiohttp's session: any body, and answers whose body is left to be read.

Large bodies, files and iterables are written by a task of aiohttp's beside the wait for the answer, so that a node may
refuse a body it has not read, or answer while it still comes. When a kept-alive connection breaks aiohttp itself sends
an idempotent request (GET, PUT, …) a second time; other methods it leaves to us.
"""

from collections.abc import Mapping

import aiohttp
from multidict import CIMultiDict

from smartclient.errors import BadInput
from smartclient.transport import Answer, Request
from smartclient.wire.bodies import in_one, in_pieces
from smartclient.wire.head import fields
from smartclient.wire.progress import FAILURES, Progress, Waits, bounded
from smartclient.wire.streamed import BodyStream


async def through_session(
    session: aiohttp.ClientSession,
    url: str,
    request: Request,
    headers: Mapping[str, str],
    *,
    progress: Progress,
    within: float,
    connecting: aiohttp.ClientTimeout,
    stream: bool,
    waits: Waits | None,
) -> Answer:
    """Send ``request``. Raises one of ``FAILURES``, ``ValueError``, or ``BadInput`` for a body that cannot be read."""
    body = in_one(request.body)
    pieces = in_pieces(request.body) if body is None else None
    requested = session.request(
        request.method,
        url + request.target,
        data=pieces or body or None,
        headers=fields(CIMultiDict(), request, headers, pieces.size if pieces else len(body or b"")),
        allow_redirects=False,
        timeout=connecting,
    )
    try:
        async with bounded(progress, within, waits):
            response = await requested
            progress.phase = "answering"
            if stream:
                return Answer(response.status, response.headers, b"", BodyStream(response, progress, within=within))
            async with response:
                return Answer(response.status, response.headers, await response.read())
    except FAILURES:
        if pieces is not None and pieces.error is not None:
            what = f"the body of {request.method} {request.target}"
            raise BadInput(f"{what} cannot be read: {pieces.error}") from pieces.error
        raise
