"""An image to bytes, bytes to a request, an answer to a ``Classification``. Nothing here touches the network.

The node's side of it is ``POST /classify?top=K&model=NAME&version=V`` with the image as the raw body
(docs/protocol.md). What comes back is validated: a 2xx answer of some other kind of server is an error that names the
node, never a half-filled result.
"""

import asyncio
import os
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlencode

import msgspec

from smartclient.call import Done
from smartclient.errors import BadInput, BadOption, ClientError
from smartclient.refusals import UNREADABLE, foreign, refused
from smartclient.transport import Request


class Readable(Protocol):
    """An open binary file, or something like one."""

    def read(self) -> bytes:
        """Return the rest of it."""
        ...


Image = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable
"""A path, the bytes of an encoded image (JPEG, PNG, …), or an open binary file."""


class Prediction(msgspec.Struct, frozen=True):
    """One class: its name, its number in the model's output, its probability."""

    label: str
    score: float
    index: int = -1


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """What a node said of one image: the best class, the ``top`` best in order, who said it and how it went.

    ``milliseconds``: the whole call as the caller waited for it, failed attempts included.
    """

    label: str
    score: float
    predictions: tuple[Prediction, ...]
    node: str
    model: str
    version: str
    milliseconds: float
    attempts: int


class Classified(msgspec.Struct, frozen=True, kw_only=True):
    """One image of ``classify_many``: its result, or the error it failed with."""

    image: Image
    result: Classification | None = None
    error: ClientError | None = None


class _Result(msgspec.Struct):
    predictions: tuple[Prediction, ...] = ()
    error: str = ""
    reason: str = ""


class _Reply(msgspec.Struct):
    results: tuple[_Result, ...]
    model: str = ""
    version: str = ""
    node: str = ""


_REPLY = msgspec.json.Decoder(_Reply)
_WHAT = "/classify as a node does"


async def read(image: Image) -> bytes:
    """Return an image's bytes; files are read in a thread. Raises ``BadInput`` when it cannot be read."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    try:
        if isinstance(image, str | os.PathLike):
            return await asyncio.to_thread(Path(image).read_bytes)
        data = await asyncio.to_thread(image.read)
    except OSError as error:
        raise BadInput(f"cannot read {image}: {(error.strerror or str(error)).lower()}", reason="unreadable") from error
    except ValueError as error:  # a NUL in a path, a closed file
        raise BadInput(f"cannot read {image!r}: {error}", reason="unreadable") from error
    if not isinstance(data, bytes):
        raise BadInput(f"{image!r} gives text; open it with mode 'rb'", reason="unreadable")
    return data


def encode(body: bytes, top: int, model: str = "", version: str = "") -> Request:
    """Return the request that asks for the ``top`` best classes (1 to 100). Raises ``BadOption``.

    ``model``, ``version``: empty for the node's first model, and for its newest version.
    """
    if not 1 <= top <= 100:
        raise BadOption(f"top={top} is out of range; ask for 1 to 100 classes")
    asked = {"top": top, "model": model, "version": version}
    query = urlencode(
        {name: value for name, value in asked.items() if value}, quote_via=quote, safe="", errors="replace"
    )
    return Request(method="POST", target=f"/classify?{query}", body=body)


def decode(done: Done, service: str) -> Classification:
    """Return the classification in an answer.

    Raises ``BadInput`` (4xx), ``AccessDenied`` (401, 403), ``DeadlineExceeded`` (504), ``CallFailed`` (other refusals),
    ``BadAnswer``.
    """
    answer = done.answer
    if not 200 <= answer.status < 300:
        raise refused(done, service, _WHAT)
    try:
        reply = _REPLY.decode(answer.body)
    except UNREADABLE as error:
        raise foreign(done, service, _WHAT, str(error)) from error
    if len(reply.results) != 1 or not reply.results[0].predictions:
        said = reply.results[0].error if len(reply.results) == 1 else ""
        raise foreign(done, service, _WHAT, said or f"{len(reply.results)} results for one image")
    predictions = reply.results[0].predictions
    return Classification(
        label=predictions[0].label,
        score=predictions[0].score,
        predictions=predictions,
        node=reply.node or done.endpoint.name,
        model=reply.model,
        version=reply.version,
        milliseconds=done.milliseconds,
        attempts=done.attempts,
    )
