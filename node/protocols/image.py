"""``POST /classify``: a raw image as the body, or ``multipart/form-data`` with one or more files.

The parts of a form are decoded while later ones still arrive. A bad image in a form fails alone: it has an ``error`` in
its place and the others answer. What concerns the request as a whole (too large, overloaded, late) is raised as
``RequestError`` and answered by the surface.
"""

import asyncio

import msgspec
from aiohttp import web

from node.errors import (
    BadImage,
    BadRequest,
    EmptyBody,
    InternalError,
    RequestError,
    TooLarge,
    Unsupported,
)
from node.intake import Intake, Visit
from node.metrics import Metrics
from node.served import Prediction, Served
from node.tensors import Array
from node.together import end_all

PATH = "/classify"
DEFAULT_TOP = 5
MOST_TOP = 100
MOST_PARTS = 256
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


class Images:
    """The route ``/classify`` of one node."""

    def __init__(self, node: str, intake: Intake, metrics: Metrics) -> None:
        self._node = node
        self._intake = intake
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """See ``aiohttp.web``."""
        return [web.post(PATH, self._classify)]

    async def _classify(self, request: web.Request) -> web.Response:
        query = request.query
        with (
            self._intake.admit(request) as visit,
            self._intake.model(visit, query.get("model", ""), version=query.get("version", "")) as model,
        ):
            answer = await classify(request, model, visit, node=self._node)
        for result in answer.results:
            if result.reason is not None:
                self._metrics.rejected(result.reason)
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


async def classify(request: web.Request, model: Served, visit: Visit, *, node: str) -> Answer:
    """Answer one ``/classify`` request that has been let in. Raises ``RequestError``."""
    count = _top(request)
    if request.content_type.startswith("multipart/"):
        if request.content_type != "multipart/form-data":
            raise Unsupported(f"{request.content_type} is not read here; send multipart/form-data or the image itself")
        results = await _form(model, visit, count)
    else:
        scores = await model.classify(await visit.body.file(), visit.ticket, decoded=visit.body.spent)
        results = [_result(model, "", scores, count)]
    return Answer(model.name, model.version, node, results)


async def _form(model: Served, visit: Visit, count: int) -> list[Result]:
    names: list[str] = []
    tasks: list[asyncio.Task[Array]] = []
    try:
        async with visit.body.in_time():
            async for name, data in visit.body.files():
                if len(tasks) == MOST_PARTS:
                    raise BadRequest(f"more than {MOST_PARTS} images in one request; send several requests")
                names.append(name.encode(errors="replace").decode())
                tasks.append(asyncio.ensure_future(model.classify(data, visit.ticket)))
        if not tasks:
            raise EmptyBody("there is no file in the form; send one part for each image")
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await end_all(tasks)
    try:
        return _results(model, names, outcomes, count)
    finally:
        outcomes.clear()  # see ``end_all``


def _results(model: Served, names: list[str], outcomes: list[Array | BaseException], count: int) -> list[Result]:
    """What became of each image; raises what concerns the whole request, or that not one was answered."""
    fatal = [each for each in outcomes if isinstance(each, BaseException) and not isinstance(each, _OF_ONE_IMAGE)]
    if fatal:
        raise fatal.pop()
    results = [_result(model, name, outcome, count) for name, outcome in zip(names, outcomes, strict=True)]
    if all(result.error is not None for result in results):
        internal = [each for each in outcomes if isinstance(each, InternalError)]
        raise internal.pop() if internal else AllFailed(results)
    return results


def _result(model: Served, name: str, outcome: Array | BaseException, count: int) -> Result:
    if isinstance(outcome, RequestError):
        return Result(name, error=str(outcome), reason=outcome.reason)
    if isinstance(outcome, BaseException):
        raise outcome
    return Result(name, predictions=model.top(outcome, count))


def _top(request: web.Request) -> int:
    text = request.query.get("top", "")
    if not text:
        return DEFAULT_TOP
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= MOST_TOP):
        raise BadRequest(f"top={text[:20]} is not a whole number from 1 to {MOST_TOP}")
    return int(text)
