"""What a caller may give as ``data``, turned into what a transport sends. Nothing large is copied."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable

from smartclient.errors import BadOption
from smartclient.transport import Body, File

Data = Body | str | Iterable[bytes] | None
"""Text (sent as UTF-8), bytes, an open binary file, or pieces; pieces can be sent once only, so not tried again."""


def body_of(data: Data) -> Body:
    """Return ``data`` as a body. Raises ``BadOption`` for what is none."""
    if data is None:
        return b""
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes | bytearray | memoryview | File | AsyncIterable):
        return data
    if isinstance(data, Iterable):
        return _pieces(data)
    raise BadOption(f"data cannot be {type(data).__name__}; give bytes, text, an open binary file, or pieces of bytes")


async def _pieces(data: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece
