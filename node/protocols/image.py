"""``POST /classify``: a raw image as the body, or ``multipart/form-data`` with one or more files.

Reading is bounded in bytes and in time, decompressed bytes included; the parts of a form are decoded while later ones
still arrive. A bad image in a form fails alone: it has an ``error`` in its place and the others answer. What concerns
the request as a whole (too large, overloaded, late) is raised as ``RequestError`` and answered by the server.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

import msgspec
from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import BadHttpMessage

from node.admission import Admission
from node.batcher import Outcome
from node.errors import (
    BadImage,
    BadRequest,
    BodyTooLarge,
    EmptyBody,
    InternalError,
    MalformedBody,
    RequestError,
    SlowBody,
    TooLarge,
    Unsupported,
)
from node.pipeline import Pipeline, Prediction, Ticket

T = TypeVar("T")

DEFAULT_TOP = 5
MOST_TOP = 100
MOST_PARTS = 256
_CHUNK = 256 * 1024
_ENCODINGS = ("", "identity", "gzip", "deflate")
# What is wrong with one image only; anything else concerns the whole request.
_OF_ONE_IMAGE = (BadImage, TooLarge, EmptyBody, InternalError)


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one image: predictions, or an error with its reason."""

    name: str
    predictions: list[Prediction] | None = None
    error: str | None = None
    reason: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """The body of a 200."""

    model: str
    version: str
    node: str
    results: list[Result]


class AllFailed(BadImage):
    """Not one image of a form could be answered; ``results`` says what was wrong with each."""

    def __init__(self, results: list[Result]) -> None:
        super().__init__(f"none of the {len(results)} images can be read; the first: {results[0].error}")
        self.results = results

    @property
    def details(self) -> dict[str, object]:
        """What was wrong with each image."""
        return {"results": self.results}


class Body:
    """The bytes of one request, counted against the node's bounds as they come in."""

    def __init__(self, request: web.Request, admission: Admission, most: int) -> None:
        self._request = request
        self._admission = admission
        self._most = most
        self._arrived = 0
        self._held = 0

    def announce(self) -> None:
        """Look at the headers only. Raises ``TooLarge``, ``Unsupported`` or ``Overloaded`` before a byte is read."""
        length = self._request.content_length
        if length is not None and length > self._most:
            raise self._too_large()
        encoding = self._request.headers.get("Content-Encoding", "").lower()
        if encoding not in _ENCODINGS:
            raise Unsupported(f"Content-Encoding {encoding!r} is not read here; send the image as it is, or gzip")
        self._hold(length or 0)

    async def whole(self) -> bytearray:
        """Read it to its end."""
        data = bytearray()
        async for chunk in self._chunks():
            data += chunk
        return data

    async def files(self) -> AsyncIterator[tuple[str, bytearray]]:
        """Read the files of a form one by one, with their names; plain form fields are left out."""
        try:
            reader = await self._request.multipart()
            while (part := await reader.next()) is not None:
                if not isinstance(part, BodyPartReader):
                    raise BadRequest("a form inside a form is not read here; send the files side by side")
                data = bytearray()
                while chunk := await part.read_chunk(_CHUNK):
                    self._arrive(len(chunk))
                    data += chunk
                if part.filename is not None or not part.headers.get("Content-Type", "text/").startswith("text/"):
                    yield part.filename or "", data
        except web.RequestPayloadError as error:
            raise self._malformed(error) from error
        except (ValueError, RuntimeError, AssertionError, BadHttpMessage) as error:  # aiohttp's reader raises any
            raise BadRequest(f"the form is malformed: {error}") from error

    def release(self) -> None:
        """Give back what was counted."""
        self._admission.release(self._held)
        self._held = 0

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            while chunk := await self._request.content.readany():
                self._arrive(len(chunk))
                yield chunk
        except web.RequestPayloadError as error:
            raise self._malformed(error) from error

    def _arrive(self, size: int) -> None:
        self._arrived += size
        if self._arrived > self._most:
            raise self._too_large()
        if self._arrived > self._held:
            self._hold(self._arrived - self._held)

    def _hold(self, size: int) -> None:
        self._admission.hold(size)
        self._held += size

    def _malformed(self, error: web.RequestPayloadError) -> MalformedBody:
        self._request.content.feed_eof()  # aiohttp would go on reading after the answer, and log what it meets
        return MalformedBody(f"the body is malformed: {str(error).splitlines()[-1].strip()}")

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body is larger than the {self._most / 2**20:g} MiB this node takes")


async def classify(
    request: web.Request, pipeline: Pipeline, body: Body, ticket: Ticket, *, node: str, body_timeout: float
) -> Answer:
    """Answer one ``/classify`` request whose headers have been looked at. Raises ``RequestError``.

    ``body_timeout``: seconds within which the whole body must have arrived.
    """
    count = _top(request)
    if request.content_type.startswith("multipart/"):
        if request.content_type != "multipart/form-data":
            raise Unsupported(f"{request.content_type} is not read here; send multipart/form-data or the image itself")
        results = await _form(pipeline, body, ticket, count, body_timeout)
    else:
        data = await _in_time(body.whole(), body_timeout)
        results = [_result(pipeline, "", await pipeline.infer(data, ticket), count)]
    return Answer(pipeline.source.name, pipeline.source.version, node, results)


async def _form(pipeline: Pipeline, body: Body, ticket: Ticket, count: int, body_timeout: float) -> list[Result]:
    names: list[str] = []
    tasks: list[asyncio.Task[Outcome]] = []

    async def read() -> None:
        async for name, data in body.files():
            if len(tasks) == MOST_PARTS:
                raise BadRequest(f"more than {MOST_PARTS} images in one request; send several requests")
            names.append(name.encode(errors="replace").decode())
            tasks.append(asyncio.ensure_future(pipeline.infer(data, ticket)))

    try:
        await _in_time(read(), body_timeout)
        if not tasks:
            raise EmptyBody("there is no file in the form; send one part for each image")
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, _OF_ONE_IMAGE):
            raise outcome
    results = [_result(pipeline, name, outcome, count) for name, outcome in zip(names, outcomes, strict=True)]
    if all(result.error is not None for result in results):
        raise next((each for each in outcomes if isinstance(each, InternalError)), None) or AllFailed(results)
    return results


def _result(pipeline: Pipeline, name: str, outcome: Outcome | BaseException, count: int) -> Result:
    if isinstance(outcome, RequestError):
        return Result(name, error=str(outcome), reason=outcome.reason)
    if isinstance(outcome, BaseException):
        raise outcome
    return Result(name, predictions=pipeline.top(outcome.scores, count))


async def _in_time(reading: Awaitable[T], seconds: float) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await reading
    except TimeoutError as error:
        raise SlowBody(f"the body did not arrive within {seconds:g} s") from error


def _top(request: web.Request) -> int:
    text = request.query.get("top", "")
    if not text:
        return DEFAULT_TOP
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= MOST_TOP):
        raise BadRequest(f"top={text[:20]} is not a whole number from 1 to {MOST_TOP}")
    return int(text)
